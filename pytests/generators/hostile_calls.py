"""Calls everything public with hostile arguments: ``python hostile_calls.py <first> <last>``.

What there is to call is read off the live objects. A case is a function of its number and runs in a forked child of its
own, with a limit on memory and time, so that nothing it changes is seen by the next one. A case fails when the child
ends by a signal (a crash, an abort, the alarm) or raises SystemError, CPython's word for a C function that broke the
rules. Every other Python exception is a right answer. Failures are printed as JSON, one a line.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import faulthandler
import functools
import gc
import importlib
import inspect
import json
import operator
import os
import pickle
import pkgutil
import random
import resource
import signal
import sys
import tempfile
import traceback
import types
import warnings

import deepseek
from deepseek import _C
from hostile_values import Subclass, Theme, anything, tensor, typed

SECONDS = int(os.environ.get("DEEPSEEK_HOSTILE_SECONDS", "60"))
MEMORY = 2 << 30  # bytes of address space beyond what the imports took
SYSTEM_ERROR, NO_CASE = 99, 98
# The command line is no part of the API: its functions read sys.argv, print and train.
NOT_API = "deepseek.cli"


@functools.cache
def namespaces() -> list[types.ModuleType]:
    """The package's public modules and the extension's."""
    found = {deepseek, _C, _C._io}
    for info in pkgutil.walk_packages(deepseek.__path__, "deepseek."):
        if info.name.startswith(NOT_API) or any(part.startswith("_") for part in info.name.split(".")):
            continue
        try:
            found.add(importlib.import_module(info.name))
        except ImportError:
            continue  # needs a package that is not installed
    return sorted(found, key=lambda m: m.__name__)


def _schemas() -> dict[str, list[str]]:
    """Argument types of each op, by the name it is called by."""
    out: dict[str, list[str]] = {}
    for definition in _C.op_table().values():
        out.setdefault(definition.name.partition(".")[0], [a[1] for a in definition.arguments])
    return out


def _annotations(f: object) -> list[str]:
    """Types of positional parameters in a schema's words, from what a Python function is annotated with."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = []
    for p in parameters:
        if p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            break
        text = p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", "")
        kind = next((k for k in ("Tensor", "dtype", "bool", "float", "int", "str", "Generator") if k in text), "")
        many = "list" in text or "tuple" in text or "Sequence" in text or "Iterable" in text
        kinds.append(kind + ("[]" if many and kind in ("Tensor", "int") else "") + ("?" if "None" in text else ""))
    return kinds


def _belongs(value: object) -> bool:
    return str(getattr(value, "__module__", None)).partition(".")[0] == "deepseek"


@functools.cache
def functions() -> list[tuple[str, object]]:
    """Every public function and class of the namespaces, and the private ones of the extension."""
    out = {}
    for module in namespaces():
        for name in sorted(dir(module)):
            value = getattr(module, name, None)
            private = name.startswith("_") and module not in (_C, _C._io)
            if private or not callable(value) or isinstance(value, types.ModuleType):
                continue
            if module in (_C, _C._io) or _belongs(value):
                out.setdefault(id(value), (f"{module.__name__}.{name}", value))
    return list(out.values())


@functools.cache
def operations() -> list[tuple[str, object]]:
    """What Python itself does with objects: operators, protocols, copies."""
    here = [(f"operator.{n}", f) for n, f in sorted(vars(operator).items()) if not n.startswith("_") and callable(f)]
    protocols = "abs bool bytes bytearray complex divmod float format hash int iter len list memoryview next pow repr"
    here += [(n, getattr(builtins, n)) for n in f"{protocols} reversed round set str sum tuple max min any all".split()]
    here += [("copy.copy", copy.copy), ("copy.deepcopy", copy.deepcopy), ("pickle", pickle.dumps), ("dir", dir)]
    return here


def instances(rng: random.Random, endless: list[str]) -> object:
    """An object of one of the package's own types."""
    kind = rng.randrange(12)
    if kind < 6:
        return tensor(rng, endless)
    w = deepseek.ones(2, requires_grad=True)
    op = rng.choice(list(_C.op_table().values()))
    return [
        lambda: rng.choice([d for d in vars(deepseek).values() if isinstance(d, deepseek.dtype)]),
        lambda: deepseek.Size(rng.choice([(), (2, 3), (2**40, 2**40)])),
        lambda: rng.choice([deepseek.Generator(), deepseek.device("cpu"), deepseek.default_generator]),
        lambda: (w * 2).grad_fn,
        lambda: rng.choice([_C.Saved(w, rng.choice([-1, 0, 3])), _C.FunctionNode(object()), Subclass(3)]),
        lambda: rng.choice(
            [op, deepseek.add, deepseek.Tensor.add, deepseek.finfo(deepseek.float32), deepseek.max(w, 0)]
        ),
    ][kind - 6]()


class Case:
    """What to do, made from a number; `run` does it."""

    def __init__(self, number: int) -> None:
        self.rng = rng = random.Random(number)
        self.endless: list[str] = []
        self.theme = Theme(rng)
        self.words = ""
        kind = rng.random()
        if kind < 0.45:
            self._call(*rng.choice(functions()))
        elif kind < 0.75:
            self._member(instances(rng, self.endless))
        elif kind < 0.9:
            name, f = rng.choice(operations())
            args = [instances(rng, self.endless)] + [self._any() for _ in range(rng.choice([0, 0, 1, 1, 1, 2]))]
            rng.shuffle(args)
            self._set(name, f, args, {})
        else:
            target = instances(rng, self.endless)
            name = rng.choice([*dir(type(target)), "x", "__dict__", "__class__"])
            value = self._any()
            action, args = rng.choice(
                [(setattr, (target, name, value)), (delattr, (target, name)), (getattr, (target, name))]
            )
            self._set(f"{action.__name__}({type(target).__name__}, {name!r})", action, args, {})

    def _any(self):
        return anything(self.rng, self.endless)

    def _call(self, name: str, f: object) -> None:
        schema = SCHEMAS.get(name.rpartition(".")[2].rstrip("_"))
        rng = self.rng
        if schema and rng.random() < 0.8:
            args = [typed(kind, rng, self.endless, self.theme) for kind in schema]
            if rng.random() < 0.3:
                args = args[: rng.randrange(len(args) + 1)]
        elif (annotated := _annotations(f)) and rng.random() < 0.7:
            wanted = annotated[: rng.randrange(len(annotated) + 1)] if rng.random() < 0.5 else annotated
            args = [typed(kind, rng, self.endless, self.theme) for kind in wanted]
        else:
            args = [self._any() for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 6]))]
        kwargs = {}
        if rng.random() < 0.35:
            try:
                names = list(inspect.signature(f).parameters)
            except (TypeError, ValueError):
                names = []
            names += ["out", "dtype", "dim", "input", "requires_grad", "no_such_keyword", "\ud800"]
            for _ in range(rng.randrange(1, 3) if rng.random() < 0.95 else 80):
                kwargs[rng.choice(names) if len(kwargs) < 4 else f"k{len(kwargs)}"] = self._any()
        self._set(name, f, args, kwargs)

    def _member(self, target: object) -> None:
        name = self.rng.choice(dir(target))
        label = f"{type(target).__name__}.{name}"
        try:
            bound = getattr(target, name)
        except Exception:
            return self._set(f"getattr {label}", getattr, (target, name), {})
        if callable(bound):
            schema = SCHEMAS.get(name.rstrip("_"))
            if schema and self.rng.random() < 0.7:
                return self._set(label, bound, [typed(k, self.rng, self.endless, self.theme) for k in schema[1:]], {})
            return self._call(label, bound)
        return self._set(label, bool, (bound,), {})

    def _set(self, words: str, f: object, args, kwargs) -> None:
        self.words, self.f, self.args, self.kwargs = words, f, args, kwargs

    def text(self) -> str:
        shown = [_show(a) for a in self.args] + [f"{k!r}={_show(v)}" for k, v in self.kwargs.items()]
        return f"{self.words}({', '.join(shown)})"

    def run(self) -> None:
        result = self.f(*self.args, **self.kwargs)
        if isinstance(result, deepseek.Tensor) and result.numel() < 1000:
            repr(result)
        if isinstance(result, types.GeneratorType | map | zip):
            next(iter(result), None)


def _show(value: object, depth: int = 0) -> str:
    if type(value) in (list, tuple) and len(value) < 12 and depth < 3:
        return f"{type(value).__name__}[{', '.join(_show(v, depth + 1) for v in value)}]"
    if isinstance(value, deepseek.Tensor):
        parts = f"{value.dtype}, {tuple(value.shape)}, strides {tuple(value.stride())}"
        return f"{type(value).__name__}<{parts}{', requires_grad' if value.requires_grad else ''}>"
    if type(value) in (int, float, bool, type(None), str, slice):
        return repr(value)[:50]
    return type(value).__name__


def child(number: int, note: int) -> None:
    """Runs one case and ends the process."""
    status, case = 0, None
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    signal.alarm(SECONDS)
    random.seed(number)
    if number % 2:
        deepseek.set_num_threads(2)  # a forked child has one until it asks
    try:
        case = Case(number)
        os.pwrite(note, (case.text() + (" (endless)" if case.endless else "") + "\n").encode(errors="replace"), 0)
        case.run()
    except SystemError as error:
        status = SYSTEM_ERROR
        os.pwrite(note, f"{case.text()}: SystemError: {error}\n".encode(errors="replace"), 0)
    except BaseException:  # a right answer; but the case itself has to work
        if case is None:
            status = NO_CASE
            os.pwrite(note, f"{traceback.format_exc()}\n".encode(errors="replace"), 0)
    case = None
    with contextlib.suppress(BaseException):
        gc.collect()
    os._exit(status)


def main(first: int, last: int) -> None:
    warnings.simplefilter("ignore")
    faulthandler.disable()
    os.chdir(tempfile.mkdtemp())
    functions(), operations()  # imports happen here, once
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not os.environ.get("DEEPSEEK_HOSTILE_NO_LIMIT"):  # AddressSanitizer maps terabytes
        with open("/proc/self/statm") as statm:
            have = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, have + MEMORY))
    gc.freeze()
    errors = os.memfd_create("stderr")
    for number in range(first, last):
        note = os.memfd_create("case")
        os.ftruncate(errors, 0)
        pid = os.fork()
        if pid == 0:
            os.lseek(errors, 0, os.SEEK_SET)
            os.dup2(errors, 2)
            child(number, note)
        _, status = os.waitpid(pid, 0)
        text = os.pread(note, 10_000, 0).decode(errors="replace").rpartition("\n")[0]
        os.close(note)
        if status == 0:
            continue
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        if slow and "(endless)" in text:
            continue  # as much work as was asked for
        said = os.pread(errors, 600, 0).decode(errors="replace")
        print(json.dumps({"case": number, "how": how, "what": text[:1500], "stderr": said}), flush=True)
    print(json.dumps({"done": last}), flush=True)


SCHEMAS = _schemas()
if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
