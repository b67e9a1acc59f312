"""The model of `deepseek demo` in the plain functions that deepseek and PyTorch share: PyTorch's side of comparisons.

`deepseek.models.LanguageModel` of the defaults computes the same; it loads these parameter names, those it had itself
once (`deepseek.models.demo.former_names`). `pytests/parity/test_training_curve.py` compares every step's loss.
"""

from __future__ import annotations

import math
from typing import Any


def language_model(T: Any, config: Any) -> Any:
    """The model of a `deepseek.models.ModelConfig` with dense attention, made of the modules of `T`."""
    nn, F = T.nn, T.nn.functional

    class Attention(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
            self.q_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
            self.out = nn.Linear(config.dim, config.dim, bias=False)

        def forward(self, x: Any, rope: Any) -> Any:
            batch, time, dim = x.shape
            q, k, v = self.qkv(x).view(batch, time, 3, config.n_heads, config.head_dim).permute(2, 0, 3, 1, 4)
            q, k = F.rope(self.q_norm(q), *rope), F.rope(self.k_norm(k), *rope)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(batch, time, dim))

    class FeedForward(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, hidden: int) -> None:
            super().__init__()
            self.gate = nn.Linear(config.dim, hidden, bias=False)
            self.up = nn.Linear(config.dim, hidden, bias=False)
            self.down = nn.Linear(hidden, config.dim, bias=False)

        def forward(self, x: Any) -> Any:
            return self.down(F.swiglu(self.gate(x), self.up(x)))

    class Router(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(T.empty(config.n_routed_experts, config.dim))
            self.register_buffer("bias", T.zeros(config.n_routed_experts))

        def forward(self, x: Any) -> Any:
            affinity = T.sigmoid(F.linear(x, self.weight))
            with T.no_grad():
                chosen = T.topk(affinity + self.bias, config.top_k, dim=-1)[1]
            gates = affinity.gather(1, chosen)
            return gates * (config.routed_scale / gates.sum(dim=-1, keepdim=True)), chosen

    class MixtureOfExperts(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            hidden = config.expert_dim * config.n_shared_experts
            self.shared = FeedForward(hidden) if hidden else None
            self.router = Router()
            self.gate, self.up = (
                nn.Parameter(T.empty(config.n_routed_experts, config.expert_dim, config.dim)) for _ in range(2)
            )
            self.down = nn.Parameter(T.empty(config.n_routed_experts, config.dim, config.expert_dim))

        def forward(self, x: Any) -> Any:
            flat = x.reshape(-1, config.dim)
            gates, chosen = self.router(flat)
            out = F.moe(flat, self.gate, self.up, self.down, chosen, gates)
            return (out if self.shared is None else out + self.shared(flat)).view(*x.shape)

    class NgramMemory(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            orders = config.ngram_orders
            self.tables = nn.ModuleList([nn.Embedding(config.ngram_rows, config.ngram_dim) for _ in orders])
            self.mix = nn.Linear(config.ngram_dim * len(orders), config.dim, bias=False)

        def forward(self, tokens: Any) -> Any:
            history, time = max(config.ngram_orders) - 1, tokens.shape[1]
            extended = T.cat([T.zeros(tokens.shape[0], history, dtype=tokens.dtype), tokens], dim=1)
            rows, value = [], tokens
            for back in range(1, history + 1):
                older = extended[:, history - back : history - back + time]
                value = (value * 1000003 + older + 1) % 2147483647
                if back + 1 in config.ngram_orders:
                    rows.append(value % config.ngram_rows)
            found = [table(row) for table, row in zip(self.tables, rows, strict=True)]
            return self.mix(T.cat(found, dim=-1))

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.attention_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
            self.attention = Attention()
            self.feed_forward_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
            routed = config.n_routed_experts > 0
            self.feed_forward = (
                MixtureOfExperts() if routed else FeedForward(config.expert_dim * config.n_shared_experts)
            )

        def forward(self, x: Any, rope: Any) -> Any:
            norm = self.feed_forward_norm
            h, x = F.add_rms_norm(self.attention(self.attention_norm(x), rope), x, norm.weight, norm.eps)
            return x + self.feed_forward(h)

    class LanguageModel(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.config = config
            self.embedding = nn.Embedding(config.vocab_size, config.dim)
            self.ngram = NgramMemory() if config.ngram_orders else None
            self.blocks = nn.ModuleList([Block() for _ in range(config.n_layers)])
            self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
            for name, parameter in self.named_parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=self._std(name, parameter.shape[-1]))

        @staticmethod
        def _std(name: str, width: int) -> float:
            if ".tables." in name:
                return 0.02
            if "embedding" in name:
                return 0.5 / math.sqrt(config.dim)
            residual = name.endswith(("out.weight", "down", "down.weight"))
            return 1.0 / math.sqrt(width * (2 * config.n_layers if residual else 1))

        def forward(self, tokens: Any) -> Any:
            exponents = T.arange(0, config.head_dim, 2, dtype=T.float32) / config.head_dim
            positions = T.arange(0, tokens.shape[1], dtype=T.float32).unsqueeze(1)
            angles = positions * config.rope_theta**-exponents
            rope = T.cos(angles), T.sin(angles)
            x = self.embedding(tokens)
            if self.ngram is not None:
                x = x + self.ngram(tokens)
            for block in self.blocks:
                x = block(x, rope)
            return F.linear(self.norm(x), self.embedding.weight)

    return LanguageModel()
