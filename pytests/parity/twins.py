"""What the state machines share: a tensor of each package, things done to both, and which writes are comparable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VIEWS: dict[str, Callable[[Any, int, int], Any]] = {
    "transpose": lambda t, a, b: t.transpose(a % t.dim(), b % t.dim()),
    "select": lambda t, a, b: t.select(a % t.dim(), b % t.shape[a % t.dim()]),
    "narrow": lambda t, a, b: t.narrow(a % t.dim(), b % t.shape[a % t.dim()], 1),
    "slice": lambda t, a, b: t[b % t.shape[0] :],
    "step": lambda t, a, b: t[..., :: 1 + b % 2],
    "flat": lambda t, a, b: t.view(-1),
    "reshape": lambda t, a, b: t.reshape(-1),
    "unsqueeze": lambda t, a, b: t.unsqueeze(a % (t.dim() + 1)),
    "expand": lambda t, a, b: t.unsqueeze(0).expand(2, *t.shape),
    "diagonal": lambda t, a, b: t.diagonal(),
    "detach": lambda t, a, b: t.detach(),
    "clone": lambda t, a, b: t.clone(),
    "contiguous": lambda t, a, b: t.contiguous(),
    "item": lambda t, a, b: t[b % t.shape[0]],
    "squeeze": lambda t, a, b: t.squeeze(),
}
NEED_DIMS = frozenset({"transpose", "select", "narrow", "slice", "step", "item", "diagonal"})
WRITES: dict[str, Callable[[Any, Any, float], Any]] = {
    "add scalar": lambda t, o, v: t.add_(v),
    "mul scalar": lambda t, o, v: t.mul_(v),
    "add": lambda t, o, v: t.add_(o),
    "mul": lambda t, o, v: t.mul_(o),
    "copy": lambda t, o, v: t.copy_(o),
    "zero": lambda t, o, v: t.zero_(),
    "fill": lambda t, o, v: t.fill_(v),
    "tanh": lambda t, o, v: t.tanh_(),
    "set first": lambda t, o, v: t.__setitem__(0, v),
    "set last": lambda t, o, v: t.__setitem__((..., -1), o),
    "sub slice": lambda t, o, v: t[..., 0].sub_(v),
}


class Pair:
    """One tensor in each package."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.ours, self.theirs = ours, theirs


def attempt(f: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return f(), None
    except (RuntimeError, IndexError, TypeError, ValueError, LookupError) as error:
        return None, error.with_traceback(None)  # a traceback would keep tensors alive


def overlaps_itself(t: Any) -> bool:
    return any(stride == 0 and size > 1 for stride, size in zip(t.stride(), t.shape, strict=True))


def share_partly(a: Any, b: Any) -> bool:
    same_storage = a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    return same_storage and not (a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.shape == b.shape)
