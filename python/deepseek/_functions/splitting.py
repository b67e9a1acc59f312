"""Functions that cut tensors into pieces."""

# mypy: no-implicit-reexport

from __future__ import annotations

from deepseek import _C
from deepseek._binding.public import documented, method, public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


_MAX_LIST = 8  # an int[] argument of an op holds at most this many entries


@public
@method
@documented
def split(
    tensor: Tensor,
    split_size_or_sections: int | Sequence[int] | None = None,
    dim: int = 0,
    *,
    split_size: int | Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """``split_size_or_sections`` is the size of each piece, or a list of sizes that add up to the dim."""
    sections = split_size if split_size_or_sections is None else split_size_or_sections
    if not isinstance(sections, (list, tuple)) or len(sections) <= _MAX_LIST:
        return _C.split(tensor, sections, dim)  # type: ignore[arg-type]  # it refuses None
    if any(n < 0 for n in sections):
        raise RuntimeError(f"split expects non-negative sizes, got {list(sections)}")
    if sum(sections) != tensor.size(dim):
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {tensor.size(dim)} (input tensor's size at "
            f"dimension {dim}), but got split_sizes={list(sections)}"
        )
    ends = [0]
    for n in sections:
        ends.append(ends[-1] + n)
    return tuple(tensor.narrow(dim, start, n) for start, n in zip(ends, sections, strict=False))


@public
@method
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """:func:`split` with a list of sizes."""
    return split(input, list(split_sizes), dim)


@public
@method
def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of nearly equal size (an int), or cut at the given positions (a list, tuple or 1-d tensor).

    Raises:
        RuntimeError: a 0-d input, or fewer than one section.
    """
    if input.dim() == 0:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    n = input.size(dim)
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        parts = indices_or_sections
        if parts <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {parts}")
        sizes = [n // parts + (i < n % parts) for i in range(parts)]
        starts = [sum(sizes[:i]) for i in range(parts)]
        return tuple(input.narrow(dim, start, size) for start, size in zip(starts, sizes, strict=True))
    bounds = [slice(i).indices(n)[1] for i in indices_or_sections]
    starts, stops = [0, *bounds], [*bounds, n]
    return tuple(input.narrow(dim, a, max(0, b - a)) for a, b in zip(starts, stops, strict=True))
