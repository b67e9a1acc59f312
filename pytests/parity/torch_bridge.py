"""The two packages side by side: torch's values as ours, and whether two results agree."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import deepseek
import torch

DTYPES = {
    getattr(torch, name): getattr(deepseek, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
        *("float8_e4m3fn", "float8_e5m2"),
    )
}
# What assert_close allows: (rtol, atol) by dtype; everything else must be equal.
TOLERANCES = {
    torch.float64: (1e-7, 1e-7),
    torch.float32: (1.3e-6, 1e-5),
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
}
# Arguments that say nothing here, with the values that may be left out.
DROPPED = {
    "device": lambda v: v is None or str(v) == "cpu",
    "layout": lambda v: v is torch.strided,
    "pin_memory": lambda v: not v,
    "memory_format": lambda v: v in (torch.contiguous_format, torch.preserve_format),
    "options": lambda v: v is None or isinstance(v, torch.nn.LinearCrossEntropyOptions),  # how to chunk
}


class Unsupported(Exception):
    """A documented non-goal; its text is the reason to skip."""


class Translation:
    """torch's arguments as ours: same values, strides, offsets and sharing of memory."""

    def __init__(self) -> None:
        self._storages: dict[int, deepseek.Tensor] = {}
        self._tensors: dict[int, deepseek.Tensor] = {}

    def tensor(self, t: torch.Tensor) -> deepseek.Tensor:
        if id(t) in self._tensors:
            return self._tensors[id(t)]
        if t.layout is not torch.strided:
            raise Unsupported("sparse tensor")
        if t.device.type != "cpu":
            raise Unsupported("device other than cpu")
        if t.dtype not in DTYPES:
            raise Unsupported("complex" if t.dtype.is_complex else f"{t.dtype}")
        if t.dim() > 8:
            raise Unsupported("more than 8 dims")
        source = t.detach()
        storage = source.untyped_storage()
        if storage.nbytes() == 0:
            result = deepseek.empty(tuple(t.shape), dtype=DTYPES[t.dtype])
        else:
            key = (storage.data_ptr(), t.dtype)
            if key not in self._storages:
                count = storage.nbytes() // t.element_size()
                flat = torch.empty(0, dtype=t.dtype).set_(storage, 0, (count,)).clone()
                self._storages[key] = deepseek.from_dlpack(flat).clone()
            result = self._storages[key].as_strided(t.shape, t.stride(), t.storage_offset())
        if t.requires_grad:
            result = result.detach().requires_grad_()
        self._tensors[id(t)] = result
        return result

    def __call__(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, torch.dtype):
            if value not in DTYPES:
                raise Unsupported("complex" if value.is_complex else f"{value}")
            return DTYPES[value]
        if isinstance(value, complex):
            raise Unsupported("complex")
        if isinstance(value, (torch.Generator, torch.memory_format, torch.layout, torch.device)):
            raise Unsupported(type(value).__name__)
        if isinstance(value, dict):
            return {k: self(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            made = [self(v) for v in value]
            return made if isinstance(value, list) else tuple(made)
        if inspect.isfunction(value) or inspect.isbuiltin(value) or isinstance(value, torch.nn.Module):
            raise Unsupported("a function as an argument")
        return value

    def kwargs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs.get("out") is not None:
            raise Unsupported("out=")
        for name in ("names", "sparse", "sparse_grad"):
            if kwargs.get(name):
                raise Unsupported(name)
        kept = {k: v for k, v in kwargs.items() if k not in DROPPED or not DROPPED[k](v)}
        return {k: self(v) for k, v in kept.items() if k != "out"}


def back(t: deepseek.Tensor) -> torch.Tensor:
    """Our tensor as torch's, on the same memory."""
    if t.dtype in (deepseek.float8_e4m3fn, deepseek.float8_e5m2):
        return torch.from_dlpack(t.detach().float())
    return torch.from_dlpack(t.detach())


def tensors(value: Any) -> Iterator[Any]:
    """All tensors of nested arguments or results, of either package."""
    if isinstance(value, (torch.Tensor, deepseek.Tensor)):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from tensors(v)


def map_tensors(f: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (torch.Tensor, torch.dtype)):
        return f(value)
    if isinstance(value, dict):
        return {k: map_tensors(f, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        made = [map_tensors(f, v) for v in value]
        return made if isinstance(value, list) else tuple(made)
    return value


def widened(value: Any) -> Any:
    """Floating tensors and dtypes as float64."""

    def widen(x: Any) -> Any:
        if isinstance(x, torch.dtype):
            return torch.float64 if x.is_floating_point else x
        return x.detach().to(torch.float64) if x.is_floating_point() else x

    return map_tensors(widen, value)


def far(ours: torch.Tensor, theirs: torch.Tensor, exact: Callable[[], torch.Tensor | None]) -> str:
    """Why the values disagree, or "". Where the two differ, ours has to be as near to the float64 answer as torch's."""
    if ours.numel() == 0:
        return ""
    if theirs.dtype not in TOLERANCES:
        wrong = ours != theirs
    else:
        rtol, atol = TOLERANCES[theirs.dtype]
        wrong = ~torch.isclose(ours.double(), theirs.double(), rtol=rtol, atol=atol, equal_nan=True)
        truth = exact() if wrong.any() else None
        if truth is not None and truth.shape == ours.shape:
            # A value that the dtype cannot hold is infinite in it.
            truth = truth.double()
            held = truth.to(theirs.dtype).double()
            near = torch.isclose(ours.double(), held, rtol=rtol, atol=atol, equal_nan=True)
            # In units of what is allowed, so that the largest error of a result means the same for all its elements.
            error, their_error = ((x.double() - truth).abs() / (atol + rtol * truth.abs()) for x in (ours, theirs))
            worst = their_error.nan_to_num(0, 0, 0).max()
            wrong &= ~(near | (error <= worst) | (theirs.isnan() & ~truth.isnan() & ours.isfinite()))
    if not wrong.any():
        return ""
    at = tuple(wrong.nonzero()[0].tolist())
    return f"{int(wrong.sum())} of {wrong.numel()} differ, at {at}: {ours[at].item()} for torch's {theirs[at].item()}"


def storage_of(t: Any) -> int:
    return t.untyped_storage().data_ptr() if isinstance(t, torch.Tensor) else t._storage_ptr()


def disagreement(
    ours: Any, theirs: Any, inputs: tuple[list[Any], list[Any]], exact: Callable[[], Any], values: bool = True
) -> str:
    """The first difference in structure, dtype, shape, values or shared memory of two results; "" when they agree.

    ``inputs`` holds the input tensors of (ours, torch), in the same order; ``exact`` computes torch's float64 results.
    """
    if isinstance(theirs, (list, tuple)):
        if not isinstance(ours, (list, tuple)) or len(ours) != len(theirs):
            return f"structure: {type(ours).__name__} for torch's {type(theirs).__name__} of {len(theirs)}"
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):

            def part(i: int = i) -> Any:
                found = exact()
                return found[i] if isinstance(found, (list, tuple)) else None

            if text := disagreement(a, b, inputs, part, values):
                return f"[{i}] {text}"
        return ""
    if not isinstance(theirs, torch.Tensor):
        if isinstance(theirs, float) and isinstance(ours, float):
            same = ours == theirs or (ours != ours and theirs != theirs) or abs(ours - theirs) <= 1e-6 * abs(theirs)
            return "" if same else f"value: {ours} for torch's {theirs}"
        if isinstance(theirs, torch.dtype):
            return "" if ours is DTYPES.get(theirs) else f"value: {ours} for torch's {theirs}"
        return "" if ours == theirs and type(ours) is type(theirs) else f"value: {ours!r} for torch's {theirs!r}"
    if not isinstance(ours, deepseek.Tensor):
        return f"structure: {type(ours).__name__} for torch's tensor"
    if DTYPES.get(theirs.dtype) is not ours.dtype:
        return f"dtype: {ours.dtype} for torch's {theirs.dtype}"
    if tuple(ours.shape) != tuple(theirs.shape):
        return f"shape: {tuple(ours.shape)} for torch's {tuple(theirs.shape)}"
    if ours.requires_grad != theirs.requires_grad:
        return f"requires_grad: {ours.requires_grad} for torch's {theirs.requires_grad}"
    if ours.numel():
        ours_shares = [storage_of(t) == storage_of(ours) for t in inputs[0]]
        theirs_shares = [storage_of(t) == storage_of(theirs) for t in inputs[1]]
        if ours_shares != theirs_shares:
            return f"alias: shares memory with inputs {ours_shares} for torch's {theirs_shares}"
        if any(theirs_shares) and (
            tuple(ours.stride()) != tuple(theirs.stride()) or ours.storage_offset() != theirs.storage_offset()
        ):
            return f"strides: {tuple(ours.stride())} for torch's {tuple(theirs.stride())}"
    if not values:
        return ""

    def truth() -> torch.Tensor | None:
        found = exact() if theirs.dtype is not torch.float64 else None
        return found if isinstance(found, torch.Tensor) else None

    text = far(back(ours), theirs.detach(), truth)
    return f"values: {text}" if text else ""
