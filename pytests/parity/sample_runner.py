"""Runs the samples of one entry of torch's database in both packages and notes where they disagree."""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import deepseek
import torch
from op_database import inplace_of, is_random, ours
from torch_bridge import Translation, Unsupported, back, disagreement, far, map_tensors, tensors, widened

FLOATS = (torch.float32, torch.float64)
LOW = (torch.bfloat16, torch.float16)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)


@dataclasses.dataclass(frozen=True)
class Failure:
    op: str
    form: str  # function, method, inplace, gradient, error
    dtype: str
    text: str

    def __str__(self) -> str:
        return f"{self.op} [{self.form} {self.dtype}] {self.text}"


def describe(sample: Any) -> str:
    def short(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return f"{str(x.dtype)[6:]}{list(x.shape)}"
        if isinstance(x, dict):
            return "{" + ", ".join(f"{k}={short(v)}" for k, v in x.items()) + "}"
        if isinstance(x, (list, tuple)):
            return "[" + ", ".join(str(short(v)) for v in x[:6]) + "]"
        return repr(x)

    rest = [str(short(a)) for a in sample.args] + [f"{k}={short(v)}" for k, v in sample.kwargs.items()]
    return f"({', '.join([str(short(sample.input)), *rest])[:300]})"


class Runner:
    """Counts and failures of one entry."""

    def __init__(self, name: str, op: Any) -> None:
        self.name, self.op, self.function = name, op, ours(op)
        self.run: collections.Counter[str] = collections.Counter()  # by dtype
        self.skipped: collections.Counter[str] = collections.Counter()  # by reason
        self.failures: list[Failure] = []

    def note(self, form: str, dtype: Any, sample: Any, text: str) -> None:
        self.failures.append(
            Failure(self.name, form, str(dtype).split(".")[-1], f"{text}  <- {describe(sample)}".replace("\n", " "))
        )

    # --- one sample

    def forward(self, form: str, function: Callable[..., Any], theirs: Callable[..., Any], dtype: Any, s: Any) -> None:
        """Values of one call."""
        translate = Translation()
        try:
            args, kwargs = translate((s.input, *s.args)), translate.kwargs(s.kwargs)
        except Unsupported as e:
            self.skipped[str(e)] += 1
            return
        their_args, their_kwargs = (s.input, *s.args), s.kwargs
        if form == "inplace":
            # Clones, so that the sample stays as it is; a leaf that requires a gradient refuses writes.
            their_args, args = (s.input.clone(), *s.args), (args[0].clone(), *args[1:])
        inputs = (list(tensors((args, kwargs))), list(tensors((their_args, their_kwargs))))
        try:
            want = theirs(*their_args, **their_kwargs)
        except Exception as e:
            self.refusal(form, dtype, s, e, lambda: function(*args, **kwargs))
            return
        self.run[str(dtype)] += 1
        try:
            got = function(*args, **kwargs)
        except Exception as e:
            self.note(form, dtype, s, f"raised {type(e).__name__}: {str(e)[:160]}")
            return
        text = disagreement(got, want, inputs, lambda: exact_result(theirs, s), values=not is_random(self.op, s))
        if not text and form == "inplace" and got is not args[0]:
            text = "alias: the in-place form returned another tensor"
        if text:
            self.note(form, dtype, s, text)

    def refusal(self, form: str, dtype: Any, s: Any, error: Exception, call: Callable[[], Any]) -> None:
        """torch raises: so must we, the same class or one derived from it."""
        self.run["error"] += 1
        try:
            call()
        except type(error):
            return
        except Exception as e:
            text = f"raised {type(e).__name__}: {str(e)[:120]} | torch {type(error).__name__}: {str(error)[:120]}"
            self.note(form, dtype, s, text)
        else:
            self.note(form, dtype, s, f"raised nothing | torch {type(error).__name__}: {str(error)[:160]}")

    def gradient(self, dtype: Any, s: Any) -> None:
        """Gradients of all floating outputs with respect to all inputs that require one."""
        translate = Translation()
        try:
            args, kwargs = translate((s.input, *s.args)), translate.kwargs(s.kwargs)
        except Unsupported as e:
            self.skipped[str(e)] += 1
            return
        if is_random(self.op, s):
            self.skipped["gradient of a random result"] += 1
            return
        their_inputs = [t for t in unique(tensors((s.input, s.args, s.kwargs))) if t.requires_grad]
        try:
            want = torch_gradients(self.op.op, (s.input, *s.args), s.kwargs, their_inputs)
        except Exception:
            self.skipped["torch has no gradient"] += 1
            return
        if want is None:
            return
        self.run[str(dtype)] += 1
        try:
            results = [t for t in tensors(self.function(*args, **kwargs)) if t.requires_grad]
            inputs = [translate.tensor(t) for t in their_inputs]
            weights = [deepseek.from_dlpack(weight(r.shape, back(r).dtype)) for r in results]
            got = deepseek.autograd.grad(results, inputs, weights, allow_unused=True)
        except Exception as e:
            self.note("gradient", dtype, s, f"raised {type(e).__name__}: {str(e)[:160]}")
            return

        def exact(i: int) -> torch.Tensor | None:
            wide = {id(t): t.detach().double().requires_grad_() for t in their_inputs}

            def widen(x: Any) -> Any:
                return wide[id(x)] if id(x) in wide else widened(x)

            call = [map_tensors(widen, v) for v in ((s.input, *s.args), s.kwargs)]
            try:
                found = torch_gradients(self.op.op, *call, list(wide.values()))
            except Exception:
                return None
            return found[i] if found else None

        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            if (a is None) != (b is None):
                if (b if a is None else back(a)).any():  # None means zero
                    self.note("gradient", dtype, s, f"input {i}: {'none' if a is None else 'some'} against torch's")
                continue
            if a is None:
                continue
            text = far(back(a), b, lambda i=i: exact(i) if dtype is not torch.float64 else None)
            if text:
                self.note("gradient", dtype, s, f"input {i}: {text}")
                return

    # --- all samples

    def samples(self, dtype: Any, grad: bool, reference: bool) -> Iterable[Any]:
        torch.manual_seed(0)
        source = self.op.reference_inputs if reference else self.op.sample_inputs
        return source("cpu", dtype, requires_grad=grad)

    def values(self, dtypes: Iterable[Any], limit: int, reference: bool, forms: bool) -> None:
        for dtype in dtypes:
            if not self.op.supports_dtype(dtype, "cpu"):
                continue
            for i, s in enumerate(self.samples(dtype, False, reference)):
                if i >= limit:
                    break
                self.forward("function", self.function, self.op.op, dtype, s)
                if not forms:
                    continue
                method = getattr(deepseek.Tensor, self.op.name, None)
                if self.op.method_variant and method and isinstance(s.input, torch.Tensor) and callable(method):
                    self.forward("method", method, self.op.method_variant, dtype, s)
                inplace = inplace_of(self.op) if self.op.inplace_variant else None
                if inplace and not s.broadcasts_input and not is_random(self.op, s):
                    self.forward("inplace", inplace, self.op.inplace_variant, dtype, s)

    def gradients(self, dtypes: Iterable[Any], limit: int) -> None:
        for dtype in dtypes:
            if not (self.op.supports_autograd and dtype in self.op.supported_backward_dtypes("cpu")):
                continue
            for i, s in enumerate(self.samples(dtype, True, False)):
                if i >= limit:
                    break
                self.gradient(dtype, s)

    def errors(self, limit: int) -> None:
        if self.op.error_inputs_func is None:
            return
        torch.manual_seed(0)
        for i, e in enumerate(self.op.error_inputs("cpu")):
            if i >= limit:
                break
            s = e.sample_input
            translate = Translation()
            try:
                args, kwargs = translate((s.input, *s.args)), translate.kwargs(s.kwargs)
            except Unsupported as u:
                self.skipped[str(u)] += 1
                continue
            try:
                self.op.op(s.input, *s.args, **s.kwargs)
            except Exception as error:
                self.refusal("error", "-", s, error, lambda a=args, k=kwargs: self.function(*a, **k))
            else:
                self.skipped["error input that torch accepts"] += 1

    def missing_forms(self) -> None:
        """Methods, in-place forms and second names that torch has of this entry."""
        op = self.op
        if op.variant_test_name:
            return
        wanted = [op.name] if op.method_variant and op.name != "where" else []
        wanted += [op.name + "_"] if op.inplace_variant and hasattr(torch.Tensor, op.name + "_") else []
        missing = [f"Tensor.{n}" for n in wanted if not hasattr(deepseek.Tensor, n)]
        for alias in op.aliases:
            place, _, last = alias.name.rpartition(".")
            if not place and hasattr(torch, last) and not hasattr(deepseek, last):
                missing.append(last)
        self.run["names"] += 1
        if missing:
            self.failures.append(Failure(self.name, "names", "-", "missing " + ", ".join(missing)))

    def everything(self, limit: int = 10**9, reference_limit: int = 0) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.missing_forms()
            self.values(FLOATS + LOW + INTEGERS, limit, False, forms=True)
            if reference_limit:
                self.values((torch.float32, torch.bfloat16, torch.int64), reference_limit, True, forms=False)
            self.gradients(FLOATS, limit)
            self.errors(limit)

    def a_few(self) -> None:
        """The fixed sample of continuous integration."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.missing_forms()
            self.values((torch.float32, torch.bfloat16, torch.int64), 3, False, forms=False)
            self.gradients((torch.float64,), 3)
            self.errors(3)


class Totals:
    """Sums over all entries of a session, for the closing summary."""

    def __init__(self) -> None:
        self.run: collections.Counter[str] = collections.Counter()
        self.skipped: collections.Counter[str] = collections.Counter()
        self.explained = self.failed = 0

    def add(self, runner: Runner, explained: int, failed: int) -> None:
        self.run.update({k.split(".")[-1]: n for k, n in runner.run.items()})
        self.skipped.update(runner.skipped)
        self.explained += explained
        self.failed += failed

    def lines(self) -> list[str]:
        count = sum(self.run.values())
        passed = count - self.explained - self.failed
        return [
            f"{count} comparisons: {passed} agree, {self.explained} differ for a known reason, {self.failed} differ",
            "  by dtype: " + ", ".join(f"{k} {n}" for k, n in self.run.most_common()),
            "  skipped: " + (", ".join(f"{n} {k}" for k, n in self.skipped.most_common()) or "none"),
        ]


TOTALS = Totals()


def unique(found: Iterable[Any]) -> list[Any]:
    return list({id(t): t for t in found}.values())


def weight(shape: Any, dtype: Any) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return (0.5 + torch.arange(count, dtype=torch.float64).mul(0.37).remainder(1.0)).reshape(tuple(shape)).to(dtype)


def torch_gradients(function: Callable[..., Any], args: Any, kwargs: Any, inputs: list[Any]) -> Any:
    results = [t for t in tensors(function(*args, **kwargs)) if t.requires_grad]
    if not results or not inputs:
        return None
    return torch.autograd.grad(results, inputs, [weight(r.shape, r.dtype) for r in results], allow_unused=True)


def exact_result(function: Callable[..., Any], s: Any) -> Any:
    """torch's answer in float64 (of integers too); None when it has none."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return function(*widened((s.input, *s.args)), **widened(s.kwargs))
    except Exception:
        return None
    finally:
        torch.set_default_dtype(before)
