"""``DataLoader``: batches of a data set, made in the calling process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from deepseek.utils.data._collate import default_collate, default_convert
from deepseek.utils.data._dataset import IterableDataset, fetch
from deepseek.utils.data._sampler import BatchSampler, RandomSampler, SequentialSampler

T_co = TypeVar("T_co", covariant=True)

# torch's options about worker processes and devices, with the values that mean "none of it".
_NO_MEANING: dict[str, tuple[Any, ...]] = {
    "num_workers": (0,),
    "pin_memory": (False,),
    "timeout": (0,),
    "worker_init_fn": (None,),
    "multiprocessing_context": (None,),
    "prefetch_factor": (None,),
    "persistent_workers": (False,),
    "pin_memory_device": ("",),
    "in_order": (True, False),
}


class _Endless:
    """The sampler of an iterable data set: its order is its own, only the batch limits come from here."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(Generic[T_co]):
    """Goes through a data set in batches; each ``iter()`` is one epoch.

    Args:
        dataset: a :class:`Dataset`, anything with ``__getitem__`` and ``__len__``, or an :class:`IterableDataset`.
        batch_size: samples per batch; None gives the samples one by one, without a batch dimension.
        shuffle: visit the samples in a new random order each epoch.
        sampler: an order of its own (indices).
        batch_sampler: batches of its own (lists of indices).
        collate_fn: makes a batch from a list of samples; :func:`default_collate` when omitted.
        drop_last: leave a last, shorter batch out.
        generator: source of the shuffling; the default generator when omitted.
        num_workers, pin_memory and their like: accepted with the values that switch them off; samples are loaded in
            the calling process.

    Raises:
        ValueError: options that exclude each other.
        NotImplementedError: worker processes or pinned memory.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        given = locals()
        for option, off in _NO_MEANING.items():
            if given[option] not in off:
                raise NotImplementedError(
                    f"DataLoader: {option}={given[option]!r} is not supported, samples are loaded in the calling "
                    f"process; leave it {off[0]!r}"
                )
        self.dataset = dataset
        self.num_workers = 0
        self.generator = generator
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            _refuse_order(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        self.sampler: Any = self._default_sampler(shuffle) if sampler is None else sampler
        if batch_sampler is None and batch_size is not None:
            batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.batch_sampler: Any = batch_sampler
        default = default_convert if batch_sampler is None else default_collate
        self.collate_fn: Callable[[Any], Any] = default if collate_fn is None else collate_fn

    def _default_sampler(self, shuffle: bool | None) -> Any:
        if self._iterable:
            return _Endless()
        if shuffle:
            return RandomSampler(self.dataset, generator=self.generator)
        return SequentialSampler(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        if self._iterable:
            return self._iterate_stream()
        return self._iterate_indices()

    def _iterate_indices(self) -> Iterator[Any]:
        if self.batch_sampler is None:
            for index in self.sampler:
                yield self.collate_fn(self.dataset[index])
        else:
            for indices in self.batch_sampler:
                yield self.collate_fn(fetch(self.dataset, list(indices)))

    def _iterate_stream(self) -> Iterator[Any]:
        stream = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, stream)
            return
        while batch := list(itertools.islice(stream, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield self.collate_fn(batch)

    def __len__(self) -> int:
        if not self._iterable:
            return len(self.sampler if self.batch_sampler is None else self.batch_sampler)
        count = len(self.dataset)
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


def _refuse_order(shuffle: bool | None, sampler: Any, batch_sampler: Any) -> None:
    for option, value in (("shuffle", shuffle), ("sampler", sampler), ("batch_sampler", batch_sampler)):
        if value not in (None, False):
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified {option} option, but got {option}={value}"
            )
