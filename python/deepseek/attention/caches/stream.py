"""Memory that grows by appending rows: what every cache is made of."""

from __future__ import annotations

import deepseek
from deepseek import Tensor

# The attention kernels merge their sums of 512 keys in order of absolute positions. Memory that forgets old rows starts
# at a multiple of it, so that a row's result has the bits it would have beside all rows.
CHUNK = 512
_LEAST = 64  # rows of the first allocation


class Stream:
    """Rows of a batch of sequences, appended along the second to last dim.

    Memory is allocated once and doubled when it is full. While gradients are recorded rows are joined out of place
    instead, so that they flow through the stream.

    Args:
        reach: Rows that a new one needs of those before it; older ones are forgotten. None keeps all.
        rewind: So many rows more are kept, as far as :meth:`truncate` can go back.
        align: The oldest row in memory has a number that is a multiple of it. Rows that attention reads need the
            default, others may have 1.
    """

    def __init__(self, reach: int | None = None, rewind: int = 0, align: int = CHUNK) -> None:
        if (reach is not None and reach < 0) or rewind < 0:
            raise ValueError(f"reach and rewind must not be negative, got {reach} and {rewind}")
        self.reach, self.rewind, self.align = reach, rewind, align
        self._spare = max(align, _LEAST)  # rows that are forgotten together
        self.length = 0  # rows appended so far, forgotten ones too
        self.first = 0  # number of the oldest row in memory
        self._data: Tensor | None = None  # [batch, ..., capacity, width], row `first` at the start
        self._own = True  # nobody else has that memory: it may be written

    def append(self, rows: Tensor) -> tuple[Tensor, int]:
        """Adds rows [batch, ..., time, width]; returns those in memory, with all the new ones reach, and the first's
        number.

        Raises:
            ValueError: the rows do not fit those that are there.
        """
        self.check(rows)
        held = self.view()
        time = rows.shape[-2]
        if deepseek.is_grad_enabled() or (held is not None and held.requires_grad):
            result = self._data = rows if held is None else deepseek.cat([held, rows], dim=-2)
            self._own = False
        else:
            self._make_room(rows)
            assert self._data is not None
            place = self.length - self.first
            self._data.narrow(-2, place, time).copy_(rows)
            result = self._data.narrow(-2, 0, place + time)
        first = self.first
        self.length += time
        self._release()
        return result, first

    def view(self) -> Tensor | None:
        """The rows in memory, [batch, ..., length - first, width]; None before the first append."""
        return None if self._data is None else self._data.narrow(-2, 0, self.length - self.first)

    def truncate(self, length: int) -> None:
        """Forgets the newest rows, so that ``length`` are left; see :meth:`check_truncate`."""
        self.check_truncate(length)
        self.length = length

    def check_truncate(self, length: int) -> None:
        """Raises what :meth:`truncate` would.

        Raises:
            ValueError: there are fewer rows, or those that the next one needs have been forgotten already.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate to {length} rows, there are {self.length}")
        if self.reach is not None and max(0, length - self.reach) < self.first:
            raise ValueError(
                f"cannot truncate to {length} rows: those before {self.first} are forgotten and the next one needs "
                f"{self.reach} before it; make the cache with a larger rewind than {self.rewind}"
            )

    def reorder(self, index: Tensor) -> None:
        """Row i of the batch becomes what row ``index[i]`` was; ``index`` is int64 and may have another length."""
        if self._data is not None:
            self._data = self._data.index_select(0, index)

    def row(self, b: int) -> Stream:
        """A stream of one sequence, a copy."""
        one = Stream(self.reach, self.rewind, self.align)
        one.length, one.first = self.length, self.first
        one._data = None if self._data is None else self._data[b : b + 1].clone()
        return one

    @property
    def batch(self) -> int | None:
        """Number of sequences, None before the first append."""
        return None if self._data is None else self._data.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in memory."""
        rows = self.view()
        return 0 if rows is None else rows.numel() * rows.element_size()

    @property
    def allocated(self) -> int:
        """Bytes of the memory that is held for them."""
        return 0 if self._data is None else self._data.numel() * self._data.element_size()

    def check(self, rows: Tensor) -> None:
        """Raises what :meth:`append` would.

        Raises:
            ValueError: the rows do not fit those that are there.
        """
        data = self._data
        if data is None:
            return
        there = [*data.shape[:-2], data.shape[-1]]
        if [*rows.shape[:-2], rows.shape[-1]] != there or rows.dtype is not data.dtype:
            raise ValueError(
                f"the cache holds rows of shape {there} (without time) and {data.dtype}, got "
                f"{[*rows.shape[:-2], rows.shape[-1]]} and {rows.dtype}; use a new cache for another batch"
            )

    def _oldest_needed(self) -> int:
        """The number that the rows in memory may start with."""
        if self.reach is None:
            return 0
        return max(self.first, (self.length - self.reach - self.rewind) // self.align * self.align)

    def _make_room(self, rows: Tensor) -> None:
        capacity = 0 if self._data is None else self._data.shape[-2]
        if self._data is None or not self._own or self.length - self.first + rows.shape[-2] > capacity:
            needed = self.length - self._oldest_needed() + rows.shape[-2]
            self._move(max(needed, 2 * capacity if needed > capacity else capacity, _LEAST), rows)

    def _release(self) -> None:
        """Lets go of memory for many rows of which few are still needed, as after a long prompt."""
        if self.reach is None or self._data is None:
            return
        oldest = self._oldest_needed()
        if self._data.requires_grad or deepseek.is_grad_enabled():
            self._data, self.first = self._data.narrow(-2, oldest - self.first, self.length - oldest), oldest
        elif self._data.shape[-2] > 2 * (self.reach + self.rewind + self._spare) + self._spare:
            self._move(self.reach + self.rewind + 2 * self._spare, self._data)

    def _move(self, capacity: int, like: Tensor) -> None:
        """To fresh memory for ``capacity`` rows, without those that are no longer needed."""
        oldest = self._oldest_needed()
        fresh = deepseek.empty([*like.shape[:-2], capacity, like.shape[-1]], dtype=like.dtype)
        if self._data is not None:
            kept = self._data.narrow(-2, oldest - self.first, self.length - oldest)
            fresh.narrow(-2, 0, kept.shape[-2]).copy_(kept)
        self._data, self.first, self._own = fresh, oldest, True


def append_both(first: Stream, a: Tensor, second: Stream, b: Tensor) -> tuple[Tensor, Tensor, int]:
    """Adds rows of the same tokens to two streams, or to none; returns those in memory and the first's number.

    Raises:
        ValueError: rows that do not fit, or of other numbers of tokens.
    """
    if a.shape[-2] != b.shape[-2]:
        raise ValueError(f"keys and values must be of the same tokens, got {a.shape[-2]} and {b.shape[-2]}")
    first.check(a)
    second.check(b)
    rows, number = first.append(a)
    return rows, second.append(b)[0], number
