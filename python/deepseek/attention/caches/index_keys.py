"""Keys of a sparse indexer: the part of a cache by which it selects."""

from __future__ import annotations

from typing import NamedTuple

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention.caches.stream import Stream
from deepseek.nn import functional as F


@public
class IndexRows(NamedTuple):
    """Keys as :class:`~deepseek.attention.SparseIndexer` reads them.

    Attributes:
        values: [batch, time, index_head_dim], floats, or int8 codes.
        scale: [batch, time], what each row of codes is multiplied by; None of floats.
    """

    values: Tensor
    scale: Tensor | None = None

    def first(self, time: int) -> IndexRows:
        """The keys 0 … time - 1."""
        return IndexRows(self.values[:, :time], None if self.scale is None else self.scale[:, :time])


@public
class IndexKeys:
    """Grows by the keys of new tokens. A cache that selects holds one and names its streams among its own.

    Args:
        dtype: ``"int8"`` (one scale a row), or None: as they come.
    """

    def __init__(self, dtype: str | None = None) -> None:
        if dtype not in (None, "int8"):
            raise ValueError(f"index keys are held as they come (None) or as 'int8', got {dtype!r}")
        self.dtype = dtype
        self._values, self._scale = Stream(), Stream()

    def append(self, keys: Tensor) -> IndexRows:
        """Adds keys [batch, time, index_head_dim]; returns all there are."""
        if self.dtype is None:
            return IndexRows(self._values.append(keys)[0])
        with deepseek.no_grad():
            codes, scale = F.quantize_rows(keys.detach())
            held = self._values.append(codes)[0]
            return IndexRows(held, self._scale.append(scale.unsqueeze(-1))[0].squeeze(-1))

    def streams(self) -> dict[str, Stream]:
        """The streams by name, for a cache that holds these rows beside others."""
        return {"index_keys": self._values} | ({} if self.dtype is None else {"index_scale": self._scale})

    def fresh(self) -> IndexKeys:
        """An empty one of the same dtype."""
        return IndexKeys(self.dtype)


guard(__name__)
