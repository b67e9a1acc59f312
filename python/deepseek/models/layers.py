"""Attention, rotary positions, dense feed-forward and the hashed n-gram memory."""

from __future__ import annotations

from deepseek import Tensor, arange, cat, cos, float32, nn, sin
from deepseek.models.config import ModelConfig
from deepseek.nn import functional as F


class KeyValueCache:
    """Keys and values of one attention layer, for decoding one token after another.

    Only the last ``window`` positions are kept, so that generation can run on past the trained context: rotary
    attention sees distances only, and no distance exceeds the trained ones.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values [batch, heads, time, head_dim]; returns all that are kept."""
        if self.keys is not None and self.values is not None:
            keys, values = cat([self.keys, keys], dim=2), cat([self.values, values], dim=2)
        self.keys, self.values = keys[:, :, -self.window :], values[:, :, -self.window :]
        return self.keys, self.values


def rope_table(start: int, length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Returns cos and sin [length, head_dim / 2] of the rotary angles at positions start, start + 1, …"""
    exponents = arange(0, head_dim, 2, dtype=float32) / head_dim
    angles = arange(start, start + length, dtype=float32).unsqueeze(1) * theta**-exponents
    return cos(angles), sin(angles)


def apply_rope(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates the pairs (x[i], x[i + head_dim / 2]) of x [batch, heads, time, head_dim] by the table's angles."""
    return F.rope(x, *table)


class Attention(nn.Module):
    """Causal multi-head attention with RoPE and RMS-normalised queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.head_dim = config.head_dim
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: KeyValueCache | None = None) -> Tensor:
        """Maps x [batch, time, dim] to the same shape.

        With a cache, either the cache is empty (prefill) or time is 1 (decode).
        """
        batch, time, dim = x.shape
        # [batch, time, 3, heads, head_dim] -> three of [batch, heads, time, head_dim]
        q, k, v = self.qkv(x).view(batch, time, 3, self.n_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q = apply_rope(self.q_norm(q), rope)
        k = apply_rope(self.k_norm(k), rope)
        if cache is not None:
            k, v = cache.append(k, v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=time > 1)
        return self.out(y.transpose(1, 2).reshape(batch, time, dim))


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
