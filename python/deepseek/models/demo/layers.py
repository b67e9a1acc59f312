"""Dense feed-forward and the hashed n-gram memory."""

from __future__ import annotations

from deepseek import Tensor, cat, nn
from deepseek.models.demo.config import ModelConfig
from deepseek.nn import functional as F


class FeedForward(nn.Module):
    """SwiGLU feed-forward: down(silu(gate(x)) * up(x))."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [..., dim] to the same shape."""
        return self.down(F.swiglu(self.gate(x), self.up(x)))


class NgramMemory(nn.Module):
    """Adds what was learned about the last n tokens, looked up by hash (DeepSeek, "Engram").

    A lookup costs no arithmetic, so the tables hold most of the parameters and next to none of the time.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.orders = config.ngram_orders
        self.rows = config.ngram_rows
        self.tables = nn.ModuleList([nn.Embedding(config.ngram_rows, config.ngram_dim) for _ in self.orders])
        self.mix = nn.Linear(config.ngram_dim * len(self.orders), config.dim, bias=False)

    @property
    def history(self) -> int:
        """How many earlier tokens a lookup needs."""
        return max(self.orders) - 1

    def hashes(self, tokens: Tensor) -> list[Tensor]:
        """Row numbers [batch, time] of each order for tokens [batch, history + time]."""
        time = tokens.shape[1] - self.history
        rows: list[Tensor] = []
        value = tokens[:, self.history :]
        for back in range(1, max(self.orders)):
            older = tokens[:, self.history - back : self.history - back + time]
            # A linear congruential step per token; the modulus keeps every product far below 2^63.
            value = (value * 1000003 + older + 1) % 2147483647
            if back + 1 in self.orders:
                rows.append(value % self.rows)
        return rows

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens [batch, history + time] (int64) to [batch, time, dim]."""
        found = [table(rows) for table, rows in zip(self.tables, self.hashes(tokens), strict=True)]
        return self.mix(cat(found, dim=-1))
