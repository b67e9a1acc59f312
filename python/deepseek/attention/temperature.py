"""Temperatures of attention that are learned: by head, and with the number of visible keys."""

# mypy: no-implicit-reexport

from __future__ import annotations

import math

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.nn.modules.module import Module
from deepseek.nn.parameter import Parameter


@public
class HeadTemperature(Module):
    """One temperature a head, learned as its logarithm so that it stays positive.

    Applied to queries: ``softmax(q k^T / temperature)``. The starting value 1 changes nothing.

    Args:
        num_heads: Number of heads.
        low, high: Temperatures are kept in this range.
    """

    def __init__(self, num_heads: int, low: float = 0.05, high: float = 20.0) -> None:
        super().__init__()
        if not 0 < low <= 1 <= high:
            raise ValueError(f"temperatures must lie around 1: 0 < low <= 1 <= high, got low={low} and high={high}")
        self.low, self.high = low, high
        self.log_temperature = Parameter(deepseek.zeros(num_heads))

    def temperatures(self) -> Tensor:
        """The temperature of each head, [num_heads]."""
        return deepseek.exp(self.log_temperature.clamp(math.log(self.low), math.log(self.high)))

    def forward(self, query: Tensor) -> Tensor:
        """Queries [batch, heads, L, E] divided by their head's temperature."""
        return (query / self.temperatures().reshape(-1, 1, 1)).to(query.dtype)


@public
class LengthTemperature(Module):
    """Scalable softmax: scores are multiplied by ``s * log(n)``, n the number of keys a query sees, s learned by head.

    Weights then do not flatten as sequences grow. (Nakanishi, "Scalable-Softmax Is Superior for Attention", 2025)

    Args:
        num_heads: Number of heads.
        reference: The length at which the starting value changes nothing: s starts as 1 / log(reference).
    """

    def __init__(self, num_heads: int, reference: int = 1024) -> None:
        super().__init__()
        if reference < 2:
            raise ValueError(f"reference must be a length of at least 2, got {reference}")
        self.scale = Parameter(deepseek.full((num_heads,), 1.0 / math.log(reference)))

    def forward(self, query: Tensor, query_start: int = 0, keys: int | None = None) -> Tensor:
        """Queries [batch, heads, L, E], multiplied.

        Args:
            query: The queries.
            query_start: Position of the first, which sees ``query_start + 1`` keys (causal).
            keys: So many are seen by all (not causal).
        """
        wide = (
            deepseek.float64 if query.dtype is deepseek.float64 else deepseek.float32
        )  # lengths need more than 16 bits
        if keys is None:
            seen = deepseek.arange(query_start + 1, query_start + query.shape[-2] + 1, dtype=wide)
        else:
            seen = deepseek.full((query.shape[-2],), float(keys), dtype=wide)
        logs = deepseek.log(seen.clamp(min=2)).unsqueeze(-1)  # one visible key has weight 1 at any temperature
        return (query * (self.scale.reshape(-1, 1, 1).to(wide) * logs)).to(query.dtype)


guard(__name__)
