"""What the state machines share: a tensor of each package, things done to both, and which writes are comparable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

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


@contextmanager
def exact_gradients() -> Iterator[None]:
    """PyTorch's allow_mutation_on_saved_tensors, where every gradient is right.

    It knows a saved tensor by the address of its first element, so that a write through a view that starts elsewhere
    goes unseen. Here it is known by the address of its whole memory.
    """
    import torch

    graph = torch.autograd.graph
    by_memory = mock.patch.object(graph, "_get_sid", lambda t: (t.untyped_storage().data_ptr(), t._version))
    with by_memory, graph.allow_mutation_on_saved_tensors():
        yield


def comparable(write: str, target: Any, other: Any) -> bool:
    """Whether PyTorch's answer is a matter of the write alone, not of its loop order or of how it sees overlaps."""
    if any(stride == 0 and size > 1 for stride, size in zip(target.stride(), target.shape, strict=True)):
        return False
    if target.untyped_storage().data_ptr() != other.untyped_storage().data_ptr():
        return True
    same = (target.data_ptr(), target.stride(), target.shape) == (other.data_ptr(), other.stride(), other.shape)
    # Not x[..., -1] = x of one element either: PyTorch refuses it where x has two dims or more.
    return same and write != "set last"
