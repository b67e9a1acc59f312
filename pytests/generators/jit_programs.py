"""Random Python programs, run eagerly and under ``deepseek.jit``: whatever can be seen of them must be the same."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import sys
import textwrap
import types
import warnings
from dataclasses import dataclass
from typing import Any

import deepseek
from generators.jit_snippets import (
    CONTEXTS,
    HOSTED,
    MODULES,
    MORE,
    PYTHON,
    STATE,
    TENSORS,
    WITH_ARGUMENTS,
    WRAPPERS,
    Piece,
)

HEAD = """
import argparse, collections, contextlib, contextvars, dataclasses, enum, functools, itertools, math, os, random, sys
import threading, types, warnings, weakref
import deepseek as T
import numpy as np
from deepseek import nn
F = nn.functional
w = T.tensor([1.0, -2.0, 0.5], requires_grad=True)
@contextlib.contextmanager
def manager():
    yield
"""
CALLS = 6


@dataclass(frozen=True)
class Program:
    source: str
    changes: tuple[tuple[str, ...], ...]  # before each call
    arguments: tuple[str, ...]  # of each call, as source
    contexts: tuple[str, ...]  # it is made in
    after: tuple[str, ...]  # what the caller does with each result
    pure: bool


def number(r: random.Random) -> str:
    return str(r.choice([-1.5, -1.0, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0]))


def filled(text: str, n: int, r: random.Random) -> str:
    return re.sub("@(?![a-zA-Z])", lambda _: number(r), text.replace("#", str(n)))


def make(case: int) -> Program:
    r = random.Random(case)
    everything = [TENSORS, STATE, PYTHON, MODULES, MORE, HOSTED]
    only_pure = r.random() < 0.35
    tops, blocks, changes = [], [], []
    chosen: list[Piece] = []
    pieces = [r.choice([q for q in r.choice(everything) if q.pure or not only_pure]) for _ in range(r.randint(1, 5))]
    extra = ""
    if r.random() < 0.15:
        with_argument, extra = r.choice([a for a in WITH_ARGUMENTS if a[0].pure or not only_pure])
        pieces.append(with_argument)
    for n, piece in enumerate(pieces):
        chosen.append(piece)
        tops.append(filled(piece.top, n, r))
        block = filled(piece.body, n, r)
        declared = [line for line in block.splitlines() if line.startswith("global ")]
        block = "\n".join(line for line in block.splitlines() if line not in declared)
        if r.random() < 0.15 and not only_pure:
            wrapper = r.choice(WRAPPERS)
            block = wrapper.format(textwrap.indent(block, "    "))
        elif r.random() < 0.1 and not declared:
            # in a nested function
            block = f"def inner{n}(v, x):\n{textwrap.indent(block, '    ')}\n    return v\nv = inner{n}(v, x)"
        blocks.append("\n".join([*declared, block]))
        changes += [filled(change, n, r) for change in piece.change]
    start = r.choice(["v = x * 1", "v = x + w", "v = x * w + y"])
    end = r.choice(["return v, out", "return {'v': v, 'out': out}", "return v, out, x", "return out, w * v"])
    body = textwrap.indent("\n".join([start, "out = []", *blocks, end]), "    ")
    source = "\n".join([HEAD, *tops, f"def f(x, y=1.0, o=None, **kw):\n{body}\n"])
    calls, arguments, contexts, after = [], [], [], []
    for _ in range(CALLS):
        calls.append(tuple(r.choice(changes) for _ in range(r.choice([0, 0, 1, 1, 2]))) if changes else ())
        values = ", ".join(number(r) for _ in range(3))
        x = f"T.tensor([{values}])"
        if r.random() < 0.12:
            x = r.choice(
                [f"{x}.to(T.float64)", f"{x}.requires_grad_()", "T.ones(2, 3)", "w", f"T.stack([{x}] * 2, 1)[:, 0]"]
            )
        shared = r.choice(["", "", "", ", 1.0", ", y=2.0", ", k=3", f", {x}"])
        arguments.append(x + shared + (filled(f", {extra}", 0, r) if extra else ""))
        contexts.append(r.choice(CONTEXTS) if r.random() < 0.1 else "")
        after.append(r.choice(["", "", "write", "backward", "backward"]))
    pure = only_pure and all(piece.pure for piece in chosen)
    return Program(source, tuple(calls), tuple(arguments), tuple(contexts), tuple(after), pure)


# --- running


def picture(value: Any, depth: int = 0) -> Any:
    """All that can be seen of a value, in a form that can be compared."""
    if isinstance(value, deepseek.Tensor):
        raw = value.detach().to(deepseek.float64).contiguous().clone().tolist()
        own = [repr(raw), str(value.dtype), tuple(value.shape), value.stride(), value.requires_grad, value.is_leaf]
        if value.is_leaf and depth < 6:
            own.append(picture(value.grad, depth + 1))
        return [type(value).__name__, *own, picture(dict(value.__dict__), depth + 1)]
    if depth > 6 or isinstance(value, (type(sys), deepseek.jit.Compiled)):
        return None
    if isinstance(value, deepseek.nn.Module):  # the keys of hooks are counted through the whole process
        own = {k: list(v.values()) if k.endswith("_hooks") else v for k, v in vars(value).items()}
        return [type(value).__name__, picture(own, depth + 1)]
    if isinstance(value, dict):
        return [(picture(k, depth + 1), picture(v, depth + 1)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return [
            type(value).__name__,
            [picture(v, depth + 1) for v in value],
            picture(vars(value), depth + 1) if hasattr(value, "__dict__") else 0,
        ]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, (int, float, str, bytes, bytearray, type(None))):
        return repr(value)
    if type(value).__name__ == "deque":
        return [picture(v, depth + 1) for v in value]
    if isinstance(value, deepseek.optim.Optimizer):
        return picture([value.param_groups, list(value.state.values())], depth + 1)
    if isinstance(value, types.FunctionType):
        return picture([value.__defaults__, value.__kwdefaults__, value.__dict__], depth + 1)
    slots = [getattr(value, s, None) for s in getattr(type(value), "__slots__", ()) if isinstance(s, str)]
    inside = vars(value) if hasattr(value, "__dict__") and not isinstance(value, type) else {}
    return [type(value).__name__, picture(slots, depth + 1), picture(dict(inside), depth + 1)]


def state_of(module: types.ModuleType) -> Any:
    skipped = ("__builtins__", "__name__", "__warningregistry__", "me", "f")
    return {k: picture(v) for k, v in vars(module).items() if k not in skipped}


def follow_up(what: str, result: Any) -> Any:
    """What a caller may do with a result: write into it, or go backward from it."""
    found: list[Any] = []

    def collect(value: Any) -> None:
        if isinstance(value, deepseek.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            for v in value.values():
                collect(v)
        elif isinstance(value, (list, tuple)):
            for v in value:
                collect(v)

    collect(result)
    for t in found:
        if what == "write" and not t.requires_grad:
            t.add_(1)
        if what == "backward" and t.requires_grad and t.dtype.is_floating_point:
            t.sum().backward(retain_graph=True)


def attempt(log: list[Any], call: Any) -> Any:
    try:
        return call()
    except Exception as error:
        log.append((type(error).__name__, str(error)))
        return None


def forget_gradients(module: types.ModuleType, arguments: Any) -> None:
    """After a backward pass that failed: which leaves it reached depends on how old the graphs are that they are in."""
    for value in [*vars(module).values(), *arguments]:
        leaves = value.parameters() if isinstance(value, deepseek.nn.Module) else [value]
        for leaf in leaves:
            if isinstance(leaf, deepseek.Tensor) and leaf.is_leaf:
                leaf.grad = None


def run(program: Program, captured: bool) -> tuple[list[Any], Any]:
    """What could be seen, call by call; and the captured function."""
    module = types.ModuleType("program")
    before, environment, argv = sys.modules.get("program"), dict(os.environ), list(sys.argv)
    sys.modules["program"] = module
    log: list[Any] = []
    deepseek.manual_seed(1)
    random.seed(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(program.source, "<program>", "exec"), vars(module))
            f = deepseek.jit(module.f, verify=True) if captured else module.f
            steps = zip(program.changes, program.arguments, program.contexts, program.after, strict=True)
            for change, arguments, context, after in steps:
                for statement in change:
                    attempt(log, lambda s=statement: exec(s, vars(module)))
                args, kwargs = eval(f"(lambda *a, **k: (a, k))({arguments})", vars(module))
                printed, before_call = io.StringIO(), len(log)
                surroundings = eval(context, vars(module)) if context else contextlib.nullcontext()
                with contextlib.redirect_stdout(printed), surroundings:
                    result = attempt(log, lambda: f(*args, **kwargs))  # noqa: B023
                    log.append(picture(result))
                    attempt(log, lambda: follow_up(after, result))  # noqa: B023
                if any(isinstance(entry, tuple) for entry in log[before_call:]):
                    forget_gradients(module, [*args, *kwargs.values()])
                log += [printed.getvalue(), picture(args), picture(kwargs), state_of(module)]
                log.append([deepseek.get_rng_state().tolist(), deepseek.is_grad_enabled(), random.random()])
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:] = argv
        if before is None:
            del sys.modules["program"]
    return log, f


def difference(program: Program) -> tuple[str, Any]:
    """Where a captured run differs from an eager one (empty: nowhere); and the captured function."""
    expected, _ = run(program, captured=False)
    found, f = run(program, captured=True)
    for i, (a, b) in enumerate(zip(expected, found, strict=False)):
        if a == b:
            continue
        seen = (a, b)
        if isinstance(a, dict) and isinstance(b, dict):  # the state of the program: only what differs
            names = [k for k in a | b if a.get(k) != b.get(k)]
            seen = ({k: a.get(k) for k in names}, {k: b.get(k) for k in names})
        return f"entry {i}: eager\n  {seen[0]}\ncaptured\n  {seen[1]}\n", f
    return ("" if len(expected) == len(found) else "another number of entries"), f
