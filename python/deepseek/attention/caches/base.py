"""What all caches share: several streams that grow, rewind, and change their order together."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Self

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.stream import Stream


@public
class Cache:
    """What attention remembers of a batch of sequences between calls. Start with an empty one; one a layer.

    A subclass names its streams in :meth:`_streams` and says how many rows each has after ``length`` tokens
    (:meth:`_rows_after`, as many as tokens unless it says otherwise).

    Sequences that are padded differently have different lengths. The first call with such a batch splits the cache into
    caches of one sequence each (:meth:`by_sequence`), and padding never enters it.

    Attributes:
        length: Tokens seen so far; of a split cache, of the longest sequence.
    """

    def __init__(self) -> None:
        self._length = 0
        self._sequences: list[Self] | None = None

    def _streams(self) -> dict[str, Stream]:
        raise NotImplementedError(f"{type(self).__name__} does not name its streams")

    def _fresh(self) -> Self:
        """An empty cache of the same kind and settings."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to make another")

    def _rows_after(self, name: str, length: int) -> int:
        """How many rows the stream ``name`` has after ``length`` tokens."""
        return length

    def __len__(self) -> int:
        return self.length

    @property
    def length(self) -> int:
        """Tokens seen so far; of a split cache, of the longest sequence."""
        if self._sequences is not None:
            return max((one.length for one in self._sequences), default=0)
        return self._length

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        if self._sequences is not None:
            return [one._length for one in self._sequences]
        return [self._length] * (self.batch or 0)

    @property
    def batch(self) -> int | None:
        """Number of sequences, None while the cache is empty."""
        if self._sequences is not None:
            return len(self._sequences)
        return next((s.batch for s in self._streams().values() if s.batch is not None), None)

    @property
    def is_split(self) -> bool:
        """Whether each sequence has a cache of its own, because their lengths differ or once did."""
        return self._sequences is not None

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""
        if self._sequences is not None:
            return sum(one.nbytes for one in self._sequences)
        return sum(s.nbytes for s in self._streams().values())

    @property
    def allocated(self) -> int:
        """Bytes of the memory that is held, with room to grow."""
        if self._sequences is not None:
            return sum(one.allocated for one in self._sequences)
        return sum(s.allocated for s in self._streams().values())

    def by_sequence(self, batch: int) -> list[Self]:
        """A cache for each sequence; from now on they hold what this one did.

        Raises:
            ValueError: the cache holds another number of sequences.
        """
        if self.batch not in (None, batch):
            raise ValueError(f"the cache holds {self.batch} sequences, got {batch}; use a new cache for another batch")
        if self._sequences is None:
            self._sequences = [self._one(b) for b in range(batch)]
            self.clear_streams()
        return self._sequences

    def truncate(self, length: int | Sequence[int]) -> None:
        """Forgets the newest tokens, so that ``length`` are left; of a split cache, one number for each sequence.

        The tokens may then be given again, or others: the results have the bits of a cache that never saw more.

        Raises:
            ValueError: there are fewer tokens, or the cache has already forgotten what it would need.
        """
        if not isinstance(length, Sequence):
            length = operator.index(length)  # numpy's integers too
        if self._sequences is not None:
            wanted = [length] * len(self._sequences) if isinstance(length, int) else list(length)
            if len(wanted) != len(self._sequences):
                raise ValueError(f"truncate needs a length for each of {len(self._sequences)} sequences, got {wanted}")
            if any(not 0 <= n <= one.length for n, one in zip(wanted, self._sequences, strict=True)):
                raise ValueError(f"cannot truncate to {wanted} tokens, there are {self.lengths}")
            for n, one in zip(wanted, self._sequences, strict=True):  # all or none
                one._check_truncate(n)
            for n, one in zip(wanted, self._sequences, strict=True):
                one.truncate(n)
            return
        if not isinstance(length, int):
            if len(set(length)) != 1 or len(length) != self.batch:
                raise ValueError(f"the sequences of this cache have one length; truncate({list(length)}) differs")
            length = length[0]
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot truncate to {length} tokens, there are {self._length}")
        self._check_truncate(length)
        for name, stream in self._streams().items():
            stream.truncate(self._rows_after(name, length))
        self._length = length

    def _check_truncate(self, length: int) -> None:
        for name, stream in self._streams().items():
            stream.check_truncate(self._rows_after(name, length))

    def reorder(self, index: Tensor | Sequence[int]) -> None:
        """Sequence i becomes what sequence ``index[i]`` was, as beam search needs. May also drop or repeat some.

        Raises:
            TypeError: numbers that are not whole.
            RuntimeError: a tensor that has not one dim.
            IndexError: the cache has no such sequence.
        """
        if not isinstance(index, Tensor):
            index = deepseek.tensor([operator.index(i) for i in index], dtype=deepseek.int64)
        if index.is_floating_point() or index.dtype is deepseek.bool:
            raise TypeError(f"reorder: index must hold integers, got {index.dtype}")
        if index.dim() != 1:
            raise RuntimeError(f"reorder: index must have one dim, got {list(index.shape)}")
        chosen = index.to(deepseek.int64)
        batch = self.batch
        if batch is not None and chosen.numel() and not bool(((chosen >= 0) & (chosen < batch)).all()):
            raise IndexError(f"reorder: the cache holds sequences 0 to {batch - 1}, got {chosen.tolist()}")
        if self._sequences is not None:
            numbers: list[int] = chosen.tolist()
            self._sequences = [self._sequences[b]._copy() for b in numbers]
            return
        for stream in self._streams().values():
            stream.reorder(chosen)

    def clear_streams(self) -> None:
        """Forgets the rows of its own streams (those of the caches it was split into stay)."""
        fresh = self._fresh()
        self.__dict__.update({k: v for k, v in fresh.__dict__.items() if k != "_sequences"})

    def _advance(self, tokens: int) -> None:
        self._length += tokens

    def _one(self, b: int) -> Self:
        one = self._fresh()
        one._length = self._length
        if self.batch is not None:
            mine, its = self._streams(), one._streams()
            for name, stream in mine.items():
                its[name].__dict__.update(stream.row(b).__dict__)
        return one

    def _copy(self) -> Self:
        return self._one(0)

    def __repr__(self) -> str:
        lengths: Any = self.lengths if self.is_split else self.length
        return f"{type(self).__name__}(length={lengths}, batch={self.batch}, nbytes={self.nbytes:,})"


guard(__name__)
