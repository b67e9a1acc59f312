"""Functions that change the shape of tensors: broadcasting, grids, added dims."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.overload import overload
from deepseek._binding.public import public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from deepseek import Size


@public
def numel(input: Tensor) -> int:
    """Number of elements."""
    return input.numel()


@public
def broadcast_shapes(*shapes: int | Sequence[int]) -> Size:
    """The shape that tensors of these shapes broadcast to.

    Raises:
        RuntimeError: they do not broadcast.
    """
    result: list[int] = []
    for index, shape in enumerate(shapes):
        dims = [shape] if isinstance(shape, int) else list(shape)
        result = [1] * (len(dims) - len(result)) + result
        for i in range(-1, -len(dims) - 1, -1):
            if dims[i] != result[i] and dims[i] != 1:
                if result[i] != 1:
                    raise RuntimeError(
                        f"Attempting to broadcast a dimension of length {dims[i]} at {i}! Mismatching argument at "
                        f"index {index} had {tuple(dims)}; but expected shape should be broadcastable to {result}"
                    )
                result[i] = dims[i]
    return _C.Size(result)


def _tensors(args: Any) -> tuple[Tensor, ...]:
    """``f(a, b)`` and ``f([a, b])`` alike."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else args


@public
def broadcast_tensors(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape (views)."""
    found = _tensors(tensors)
    shape = broadcast_shapes(*(t.shape for t in found))
    return tuple(t.expand(shape) for t in found)


@public
def meshgrid(*tensors: Tensor | Sequence[Tensor], indexing: str = "ij") -> tuple[Tensor, ...]:
    """Grids of coordinates: for inputs of sizes n1, n2, … tensors of shape [n1, n2, …] (views).

    Args:
        tensors: 0-d or 1-d.
        indexing: ``"ij"`` (matrix order) or ``"xy"`` (the first two dims swapped).

    Raises:
        RuntimeError: more than one dim, or another indexing.
    """
    found = [t.reshape(-1) if t.dim() == 0 else t for t in _tensors(tensors)]
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    for t in found:
        if t.dim() != 1:
            raise RuntimeError(f"meshgrid: Expected 0D or 1D tensor in the tensor list but got: {list(t.shape)}")
    swap = indexing == "xy" and len(found) >= 2
    if swap:
        found[:2] = found[1::-1]
    shape = [t.numel() for t in found]
    grids = [t.reshape([-1 if i == j else 1 for j in range(len(found))]).expand(shape) for i, t in enumerate(found)]
    if swap:
        grids[:2] = grids[1::-1]
    return tuple(grids)


@public
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of 1-d tensors: shape [n1 * n2 * …, number of tensors]."""
    if len(tensors) == 1:
        return tensors[0]
    return _C.stack([g.reshape(-1) for g in meshgrid(*tensors)], -1)


def _at_least(dims: int, tensors: Any) -> Any:
    found = _tensors(tensors)
    result = []
    for t in found:
        if dims >= 3 and t.dim() == 2:
            t = t.unsqueeze(-1)
        while t.dim() < dims:
            t = t.unsqueeze(-1 if t.dim() == 2 else 0)
        result.append(t)
    return result[0] if len(tensors) == 1 and isinstance(tensors[0], Tensor) else tuple(result)


@overload
def atleast_1d(tensors: Tensor, /) -> Tensor: ...  # type: ignore[overload-overlap]
@overload
def atleast_1d(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]: ...
@public
def atleast_1d(*tensors: Any) -> Tensor | tuple[Tensor, ...]:
    """0-d tensors as 1-d; others as they are."""
    return _at_least(1, tensors)


@overload
def atleast_2d(tensors: Tensor, /) -> Tensor: ...  # type: ignore[overload-overlap]
@overload
def atleast_2d(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]: ...
@public
def atleast_2d(*tensors: Any) -> Tensor | tuple[Tensor, ...]:
    """Leading dims of size 1 added up to 2."""
    return _at_least(2, tensors)


@overload
def atleast_3d(tensors: Tensor, /) -> Tensor: ...  # type: ignore[overload-overlap]
@overload
def atleast_3d(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]: ...
@public
def atleast_3d(*tensors: Any) -> Tensor | tuple[Tensor, ...]:
    """Dims of size 1 added up to 3: [n] becomes [1, n, 1] and [m, n] becomes [m, n, 1]."""
    return _at_least(3, tensors)
