"""What attention modules share: the call, positions, padding, and sequences of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import deepseek
from deepseek import Tensor
from deepseek.attention.caches.base import Cache
from deepseek.nn.modules.module import Module


class Batch(NamedTuple):
    """Sequences of one length without padding: what :meth:`SequenceModule.attend` gets.

    Attributes:
        x: [batch, time, width].
        positions: int64 [time] or [batch, time], or None: they follow those in the cache.
        cache: The cache, or None.
        mask: Pairs of query and key, [batch or 1, heads or 1, time, keys], bool (True takes part) or added to the
            scores, or None. Only modules with ``takes_pair_masks`` get one.
        tags: One value for each sequence, what the module gave to :meth:`SequenceModule.run`, or None.
    """

    x: Tensor
    positions: Tensor | None = None
    cache: Cache | None = None
    mask: Tensor | None = None
    tags: Sequence[Any] | None = None

    @property
    def start(self) -> int:
        """Tokens before these: the place of the first one among the keys."""
        return 0 if self.cache is None else self.cache.length


class SequenceModule(Module):
    """A module [batch, time, width] -> [batch, time, width] with masks, positions and a cache.

    A subclass sets ``width`` and ``caches`` (the kinds of cache it takes) and implements :meth:`attend` for sequences
    without padding. A batch with padding is computed one sequence after another, of its real tokens only, so a sequence
    gives the same alone, padded on the left, on the right, or with holes.
    """

    width: int
    heads = 1  # of queries, which a mask of pairs may tell apart
    causal = True
    caches: tuple[type[Cache], ...] = ()
    takes_pair_masks = False

    def attend(self, batch: Batch) -> Tensor:
        """The result [batch, time, width] for sequences without padding; appends to the cache."""
        raise NotImplementedError(f"{type(self).__name__} does not implement attend")

    def new_cache(self) -> Cache:
        """An empty cache of the kind this module works with best."""
        raise NotImplementedError(f"{type(self).__name__} has no cache")

    def forward(
        self,
        x: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: [batch, time, width], the new tokens.
            attention_mask: [batch, time], or [batch, earlier + time] with a cache: True (or nonzero) for real tokens,
                False for padding, on any side. Padding is seen by nobody, does not enter the cache, and gives zeros.
                Some modules also take pairs of query and key, [batch or 1, heads or 1, time, keys], bool or added to
                the scores.
            positions: integers [time] or [batch, time] for the rotary angles. By default real tokens of a sequence are
                numbered from 0, on from those in the cache. What a token sees depends on its place alone.
            cache: What came before, see :mod:`deepseek.attention.caches`; the new tokens are added to it.

        Returns:
            [batch, time, width].

        Raises:
            RuntimeError: a shape does not fit.
            TypeError: a cache of a kind that the module does not take.
        """
        return self.run(x, attention_mask, positions, cache)

    def run(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        tags: Sequence[Any] | None = None,
    ) -> Tensor:
        """What :meth:`forward` does, with a value for each sequence that :meth:`attend` finds in its batch."""
        name = type(self).__name__
        self._check(name, x, positions, cache)
        batch, time, _ = x.shape
        earlier = 0 if cache is None else cache.length
        if batch == 0 or time == 0:
            return x.clone()
        pairs = attention_mask is not None and attention_mask.dim() != 2
        if pairs and not self.takes_pair_masks:
            assert attention_mask is not None
            raise NotImplementedError(
                f"{name} selects keys by itself and takes padding masks [batch, time] only, got an attention_mask "
                f"of shape {list(attention_mask.shape)}"
            )
        if pairs:
            assert attention_mask is not None
            check_pairs(name, attention_mask, batch, self.heads, time, earlier + time)
        padding = None if pairs else attention_mask
        real = None if padding is None else _real_tokens(name, padding, batch, time, cache)
        if real is None and (cache is None or not cache.is_split):
            return self.attend(Batch(x, positions, cache, attention_mask if pairs else None, tags))
        if pairs:
            raise NotImplementedError(f"{name}: a mask of pairs does not fit a cache of sequences of different lengths")
        return self._one_by_one(x, real, positions, cache, tags)

    def _one_by_one(
        self,
        x: Tensor,
        real: Tensor | None,
        positions: Tensor | None,
        cache: Cache | None,
        tags: Sequence[Any] | None,
    ) -> Tensor:
        batch, time, _ = x.shape
        held = [None] * batch if cache is None else cache.by_sequence(batch)
        rows = []
        for b in range(batch):
            kept = deepseek.arange(time) if real is None else real[b].nonzero().squeeze(-1)
            one = x[b : b + 1].index_select(1, kept)
            if one.shape[1] == 0:
                rows.append(deepseek.zeros_like(x[b : b + 1]))
                continue
            numbers = positions
            if numbers is not None:
                numbers = (numbers if numbers.dim() == 1 else numbers[b]).index_select(0, kept)
            out = self.attend(Batch(one, numbers, held[b], tags=None if tags is None else tags[b : b + 1]))
            rows.append(out if one.shape[1] == time else deepseek.zeros_like(x[b : b + 1]).index_copy(1, kept, out))
        return deepseek.cat(rows)

    def _check(self, name: str, x: Tensor, positions: Tensor | None, cache: Cache | None) -> None:
        if x.dim() != 3 or x.shape[2] != self.width:
            raise RuntimeError(f"{name}: x must be [batch, time, {self.width}], got {list(x.shape)}")
        if positions is not None and (
            positions.is_floating_point() or list(positions.shape) not in ([x.shape[1]], list(x.shape[:2]))
        ):
            raise RuntimeError(
                f"{name}: positions must be integers [{x.shape[1]}] or {list(x.shape[:2])}, got {positions.dtype} "
                f"{list(positions.shape)}"
            )
        if cache is not None and not isinstance(cache, self.caches):
            kinds = " or ".join(kind.__name__ for kind in self.caches) or "no cache"
            raise TypeError(f"{name} takes a {kinds}, got {type(cache).__name__}")
        if cache is not None:
            self._check_causal()

    def _check_causal(self) -> None:
        """For modules that remember.

        Raises:
            ValueError: attention is not causal.
        """
        if not self.causal:
            raise ValueError(
                f"{type(self).__name__}: a cache needs causal=True: without it earlier tokens would see the new ones"
            )


def check_pairs(name: str, mask: Tensor, batch: int, heads: int, queries: int, keys: int) -> None:
    """Raises for a mask of pairs of query and key that does not fit.

    Raises:
        RuntimeError: another shape than [batch or 1, heads or 1, queries, keys], or neither bool nor floating.
    """
    wanted = [batch, heads, queries, keys]
    fits = mask.dim() == 4 and all(m in (1, w) for m, w in zip(mask.shape[:2], wanted[:2], strict=True))
    if not fits or list(mask.shape[2:]) != wanted[2:]:
        raise RuntimeError(
            f"{name}: attention_mask must be padding [batch, keys] or pairs [{batch} or 1, {heads} or 1, {queries}, "
            f"{keys}], got {list(mask.shape)}"
        )
    if mask.dtype is not deepseek.bool and not mask.is_floating_point():
        raise RuntimeError(
            f"{name}: a mask of pairs is bool (True takes part) or floating (added to the scores), got {mask.dtype}"
        )


def _real_tokens(name: str, mask: Tensor, batch: int, time: int, cache: Cache | None) -> Tensor | None:
    """bool [batch, time], or None where all are real."""
    earlier = 0 if cache is None else cache.length
    # Beside a cache it may be wider than what is held: padding that all sequences had is not.
    fits = mask.shape[1] == time or (cache is not None and mask.shape[1] >= earlier + time)
    if mask.shape[0] != batch or not fits:
        wanted = f"[{batch}, {time}]" if cache is None else f"[{batch}, {time}] or [{batch}, {earlier} + {time}]"
        raise RuntimeError(f"{name}: attention_mask must be {wanted}, got {list(mask.shape)}")
    if mask.is_floating_point() and not bool(((mask == 0) | (mask == 1)).all() & (mask == 1).any()):
        raise RuntimeError(
            f"{name}: a padding mask [batch, time] has 1 for real tokens and 0 for padding, got other {mask.dtype}; "
            "numbers to be added to scores need a mask of pairs [batch, heads, time, keys]"
        )
    real = mask[:, mask.shape[1] - time :].to(deepseek.bool)
    return None if bool(real.all()) else real
