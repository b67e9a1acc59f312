"""Random indices of all sorts, mixed, and what PyTorch's rule says they select, worked out with NumPy.

The rule: numbers, slices, None and ... make a view first; then masks become one list of positions for each dim they
cover, all lists broadcast together, and the dims of that stand where the first list stood, or in front when other dims
lie between the lists. NumPy's own rule differs only in that it counts numbers and 0-d masks among the lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

INTEGERS = ("int64", "int32", "int64", "int64")
HUGE = (2**70, -(2**70), 2**63 - 1, -(2**63), 2**63)


@dataclass
class Entry:
    """One entry of an index: NumPy's value, and how the tensor libraries shall get it."""

    value: Any
    form: str = "as it is"  # or "tensor", "list"


@dataclass
class IndexCase:
    number: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]  # the tensor is a permutation of a contiguous one
    entries: list[Entry]
    seed: int

    def index(self, tensor: Any) -> Any:
        """The index for a library, whose ``tensor`` makes a tensor of an array."""

        def form(e: Entry) -> Any:
            if e.form == "list":
                return e.value.tolist()
            return tensor(e.value) if e.form == "tensor" else e.value

        made = tuple(form(e) for e in self.entries)
        return made[0] if len(made) == 1 and self.seed % 2 else made

    def array(self) -> np.ndarray:
        storage = np.random.default_rng(self.seed).normal(size=[self.sizes[d] for d in np.argsort(self.order)])
        return storage.transpose(self.order)

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        """Something to write over a result of this shape: a number, or an array that broadcasts to it."""
        rng = np.random.default_rng(self.seed + 1)
        kept = shape[rng.integers(0, len(shape) + 1) :]
        sizes = [s if rng.random() < 0.7 else 1 for s in kept]
        if len(sizes) == len(shape) and rng.random() < 0.2:
            sizes = [1, *sizes]
        return rng.normal(size=sizes)

    def __str__(self) -> str:
        return f"case {self.number}: x{list(self.sizes)} order {self.order} [{', '.join(map(str, self.entries))}]"


def positions(case: IndexCase) -> np.ndarray:
    """Where in the tensor, counted in row-major order, each element of the result lies. Raises IndexError."""
    view = np.arange(int(np.prod(case.sizes))).reshape(case.sizes)
    used = sum(covered(e.value) for e in case.entries)
    if used > view.ndim or sum(e.value is Ellipsis for e in case.entries) > 1:
        raise IndexError("too many")
    lists: dict[int, np.ndarray] = {}
    dim = 0
    for e in case.entries:
        v = e.value
        if v is None:
            view = np.expand_dims(view, dim)
            dim += 1
        elif v is Ellipsis:
            dim += len(case.sizes) - used
        elif isinstance(v, slice):
            view = view[(slice(None),) * dim + (v,)]
            dim += 1
        elif np.ndim(v) == 0 and np.asarray(v).dtype == bool:
            view = np.expand_dims(view, dim)
            lists[dim] = np.zeros(int(v), int)
            dim += 1
        elif np.ndim(v) == 0:
            view = view[(slice(None),) * dim + (int(v),)]
        elif v.dtype == bool:
            if v.shape != view.shape[dim : dim + v.ndim]:
                raise IndexError("mask")
            for places in np.nonzero(v):
                lists[dim] = places
                dim += 1
        else:
            if v.size and not (-view.shape[dim] <= v.min() and v.max() < view.shape[dim]):
                raise IndexError("out of range")  # NumPy and PyTorch do not look where nothing is selected
            lists[dim] = v.astype(int)
            dim += 1
    if not lists:
        return view
    dims = sorted(lists)
    together = np.broadcast_arrays(*(lists[d] for d in dims))
    rest = [d for d in range(view.ndim) if d not in lists]
    front = view.transpose(dims + rest)[tuple(together)]  # the lists' dims, then the others
    if dims[-1] - dims[0] + 1 != len(dims):
        return front
    count = together[0].ndim
    return np.moveaxis(front, range(count), range(dims[0], dims[0] + count))


def covered(v: Any) -> int:
    if v is None or v is Ellipsis:
        return 0
    if isinstance(v, slice):
        return 1
    return np.ndim(v) if np.asarray(v).dtype == bool else 1


def numpy_agrees(case: IndexCase) -> bool:
    """Whether NumPy's own rule is the same here: no number counts among lists, no mask is without dims, and no ellipsis
    stands for no dim, which NumPy sees between two lists all the same."""
    full = sum(covered(e.value) for e in case.entries) == len(case.sizes)
    if full and any(e.value is Ellipsis for e in case.entries):
        return False
    values = [e.value for e in case.entries if e.value is not None and e.value is not Ellipsis]
    numbers = [v for v in values if not isinstance(v, slice) and np.ndim(v) == 0]
    lists = [v for v in values if not isinstance(v, slice) and np.ndim(v) > 0]
    return not (numbers and lists) and not any(np.asarray(v).dtype == bool for v in numbers)


def random_case(number: int) -> IndexCase:
    rng = np.random.default_rng(number)
    ndim = int(rng.integers(0, 6))
    sizes = tuple(int(rng.choice([0, 1, 2, 3, 4], p=[0.04, 0.16, 0.3, 0.3, 0.2])) for _ in range(ndim))
    order = tuple(int(d) for d in (rng.permutation(ndim) if rng.random() < 0.4 else range(ndim)))
    length = int(rng.choice([1, 2, 3]))  # of the lists, so that most broadcast
    entries: list[Entry] = []
    dim = 0
    ellipsis = False
    while True:
        kind = rng.random()
        left = ndim - dim
        if kind < 0.08:
            entries.append(Entry(None))
        elif kind < 0.14 and not ellipsis:
            entries.append(Entry(Ellipsis))
            ellipsis = True
            dim = int(rng.integers(dim, ndim + 1))  # the rest counts from the end
            suffix = ndim - dim
            dim = ndim - suffix
        elif kind < 0.2:
            flag = bool(rng.random() < 0.7)
            entries.append(Entry(flag) if rng.random() < 0.5 else Entry(np.array(flag), "tensor"))
        elif left <= 0:
            if rng.random() < 0.03:
                entries.append(Entry(0))  # one too many
            break
        elif kind < 0.35:
            low = rng.random() < 0.03
            at = int(rng.integers(-sizes[dim], sizes[dim])) if sizes[dim] and not low else sizes[dim]
            entries.append(Entry(at) if rng.random() < 0.5 else Entry(np.array(at), "tensor"))
            dim += 1
        elif kind < 0.52:
            entries.append(Entry(random_slice(rng, sizes[dim])))
            dim += 1
        elif kind < 0.75:
            entries.append(random_list(rng, sizes[dim], length))
            dim += 1
        else:
            rank = int(rng.integers(1, left + 1))
            entries.append(random_mask(rng, sizes[dim : dim + rank], length))
            dim += rank
        if dim >= ndim and rng.random() < 0.6:
            break
        if rng.random() < 0.12:
            break
    if sum(e.value is None or np.ndim(e.value) == 0 for e in entries if not isinstance(e.value, slice)) > 3:
        entries = entries[:4]  # eight dims at most
    return IndexCase(number, sizes, order, entries, int(rng.integers(1 << 30)))


def random_slice(rng: np.random.Generator, size: int) -> slice:
    def bound() -> int | None:
        if rng.random() < 0.3:
            return None
        return HUGE[rng.integers(len(HUGE))] if rng.random() < 0.2 else int(rng.integers(-size - 1, size + 2))

    step = None if rng.random() < 0.5 else int(rng.integers(1, 4)) if rng.random() < 0.9 else 2**65
    return slice(bound(), bound(), step)


def random_list(rng: np.random.Generator, size: int, length: int) -> Entry:
    shape = [length if rng.random() < 0.8 else 1]
    if rng.random() < 0.25:
        shape = [int(rng.integers(1, 3)), *shape]
    if rng.random() < 0.05:
        shape[-1] = 0
    wrong = rng.random() < 0.02
    values = rng.integers(-size, size, shape) if size else np.zeros(shape, int)
    if wrong and values.size:
        values.flat[0] = size
    form = "list" if rng.random() < 0.25 and values.ndim == 1 and values.size else "tensor"
    kind = INTEGERS[rng.integers(len(INTEGERS))]
    return Entry(values.astype(kind), form)


def random_mask(rng: np.random.Generator, sizes: tuple[int, ...], length: int) -> Entry:
    count = int(np.prod(sizes))
    mask = np.zeros(count, bool)
    wanted = length if rng.random() < 0.8 else int(rng.integers(0, 2))
    mask[rng.permutation(count)[:wanted]] = True
    if rng.random() < 0.08:
        mask = rng.random(count) < 0.5
    mask = mask.reshape(sizes)
    if rng.random() < 0.02:
        mask = np.concatenate([mask, mask[:1]]) if mask.shape[0] else np.ones((1, *mask.shape[1:]), bool)
    form = rng.random()
    if form < 0.2:
        return Entry(mask)  # NumPy's own
    return Entry(mask, "list" if form < 0.35 and mask.ndim == 1 and mask.size else "tensor")
