"""Data sets."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar, cast

import deepseek
from deepseek import Tensor
from deepseek._binding.arguments import check_tensor
from deepseek._binding.missing import guard

__all__ = [
    "ChainDataset",
    "ConcatDataset",
    "Dataset",
    "IterableDataset",
    "Subset",
    "TensorDataset",
    "random_split",
]

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """A data set with samples by index: a subclass defines ``__getitem__`` and usually ``__len__``.

    A subclass may define ``__getitems__(indices)`` to fetch a whole batch at once.
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError(f"{type(self).__name__} defines no __getitem__")

    def __add__(self, other: Dataset[T_co]) -> ConcatDataset[T_co]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """A data set that can only be gone through in order: a subclass defines ``__iter__``."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} defines no __iter__")

    def __add__(self, other: Dataset[T_co]) -> ChainDataset[T_co]:  # type: ignore[override]
        return ChainDataset([self, other])  # type: ignore[list-item]  # if it is not iterable, iterating says so


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors with the same first size: sample i is the tuple of their rows i.

    Raises:
        TypeError: not tensors.
        ValueError: the first sizes differ, or no tensor was given.
    """

    def __init__(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            check_tensor("TensorDataset", "tensors", tensor)
        sizes = [tensor.shape[0] for tensor in tensors]
        if len(set(sizes)) != 1:
            raise ValueError(f"Size mismatch between tensors: the first dimensions are {sizes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


class Subset(Dataset[T_co]):
    """The samples of ``dataset`` at ``indices``."""

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        return fetch(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T_co]):
    """Data sets one after the other.

    Raises:
        ValueError: no data set was given.
        TypeError: one of them is iterable only.
    """

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise TypeError("ConcatDataset does not support IterableDataset; use ChainDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(dataset) for dataset in self.datasets))  # type: ignore

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        index %= len(self)
        place = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[place][index - (self.cumulative_sizes[place - 1] if place else 0)]


class ChainDataset(IterableDataset[T_co]):
    """Iterable data sets one after the other."""

    def __init__(self, datasets: Iterable[Iterable[T_co]]) -> None:
        self.datasets = list(datasets)

    def __iter__(self) -> Iterator[T_co]:
        return itertools.chain.from_iterable(self.datasets)

    def __len__(self) -> int:
        return sum(len(cast(Sized, dataset)) for dataset in self.datasets)


def fetch(dataset: Any, indices: list[int]) -> list[Any]:
    """The samples at ``indices``, at once where the data set can."""
    if hasattr(dataset, "__getitems__"):
        samples = dataset.__getitems__(indices)
        if len(samples) != len(indices):
            raise RuntimeError(f"__getitems__ returned {len(samples)} samples for {len(indices)} indices")
        return list(samples)
    return [dataset[index] for index in indices]


def random_split(
    dataset: Dataset[T_co], lengths: Sequence[int | float], generator: deepseek.Generator | None = None
) -> list[Subset[T_co]]:
    """Split a data set at random into parts.

    Args:
        lengths: the sizes, or fractions that add up to 1 (samples left by rounding go to the first parts in turn).
        generator: source of the permutation; the default generator when omitted.

    Raises:
        ValueError: the sizes do not add up, or a fraction is outside [0, 1].
    """
    total = len(dataset)  # type: ignore[arg-type]
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 + 1e-9 and total != 1:
        lengths = _sizes_of_fractions(lengths, total)
    if sum(lengths) != total:
        raise ValueError(
            f"Sum of input lengths does not equal the length of the input dataset: {sum(lengths)} != {total}"
        )
    order = deepseek.randperm(total, generator=generator).tolist()
    ends = list(itertools.accumulate(int(length) for length in lengths))
    return [Subset(dataset, order[end - int(length) : end]) for end, length in zip(ends, lengths, strict=True)]


def _sizes_of_fractions(fractions: Sequence[float], total: int) -> list[int]:
    for place, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(f"Fraction at index {place} is not between 0 and 1")
    sizes = [math.floor(total * fraction) for fraction in fractions]
    for place in range(total - sum(sizes)):
        sizes[place % len(sizes)] += 1
    for place, size in enumerate(sizes):
        if size == 0:
            warnings.warn(
                f"Length of split at index {place} is 0. This might result in an empty dataset.", stacklevel=3
            )
    return sizes


def get_worker_info() -> None:
    """None: samples are loaded in the calling process, as PyTorch says there too."""
    return None


guard(__name__)
