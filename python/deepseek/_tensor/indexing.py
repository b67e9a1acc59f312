"""Methods of Tensor that choose and write elements, and its transposes."""

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import PROPERTIES, method
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@method
def where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """This tensor's elements where ``condition``, else ``other``'s."""
    return _C.where(condition, self, other)


@method
def index_put(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with ``values`` written at ``self[indices]``; ``accumulate=True`` adds, also at repeated positions.

    Args:
        indices: a tuple of index tensors, one for each leading dim; shapes broadcast.
        values: broadcast to the indexed shape; same dtype.

    Raises:
        RuntimeError: different dtypes.
        IndexError: an index out of range.
    """
    if values.dtype is not self.dtype:
        raise RuntimeError(
            f"Index put requires the source and destination dtypes match, got {self.dtype} for the destination and "
            f"{values.dtype} for the source."
        )
    positions: list[Tensor] = []
    for index in indices:  # a mask stands for the positions where it is True
        positions += index.nonzero().unbind(1) if index.dtype in (_C.bool, _C.uint8) else [index]
    return _C._index_put(self, values, positions, accumulate=accumulate)


@method
def index_put_(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """:func:`index_put` into this tensor."""
    if accumulate or values.dtype is not self.dtype:
        return self.copy_(index_put(self, indices, values, accumulate))
    self[tuple(indices)] = values
    return self


def _conjugate_transposes(self: Tensor) -> Tensor:
    """The last two dims swapped, as ``mT``, because there are no complex numbers."""
    return self.mT


def _conjugate_transpose(self: Tensor) -> Tensor:
    """The conjugate transpose of a matrix, which for real numbers is its transpose."""
    if self.dim() not in (0, 2):
        raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got {self.dim()}-D tensor.")
    return self.T


PROPERTIES["H"] = _conjugate_transpose
PROPERTIES["mH"] = _conjugate_transposes
