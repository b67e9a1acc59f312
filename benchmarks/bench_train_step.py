"""One training step of the model of `deepseek demo`: forward, loss, backward, clipping, AdamW.

PyTorch runs the same model written for it (demo_twin.py), eagerly, as it is installed. Mixed precision beside our own
float32: bench_amp.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from _harness import main

BATCH = 8


def language_model(T: Any, config: Any) -> Any:
    """The demo's model, in PyTorch its twin."""
    if T.__name__ == "torch":
        return importlib.import_module("demo_twin").language_model(T, config)
    return importlib.import_module("deepseek.models").LanguageModel(config)


def step(T: Any, autocast: bool = False, **changes: Any) -> Callable[[], Any]:
    def setup() -> Any:
        config = importlib.import_module("deepseek.models.demo.config").ModelConfig(**changes)
        model = language_model(T, config)
        functional, utils = T.nn.functional, T.nn.utils
        T.manual_seed(0)
        tokens = T.randint(0, 256, (BATCH, config.context + 1))
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        optimizer = T.optim.AdamW(model.parameters(), lr=1e-3)

        def run() -> None:
            with T.autocast("cpu", dtype=T.bfloat16, enabled=autocast):
                logits = model(inputs)  # [batch, context, 256]
                loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        return run, BATCH * config.context, "tokens_per_s"

    return setup


class GPT2Sizes:
    layers, heads, dim, vocabulary, context = 12, 12, 768, 50257, 1024


def gpt2(T: Any, autocast: bool) -> Callable[[], Any]:
    """GPT-2 124M (Radford et al. 2019), one sequence of 512 tokens: forward, loss, backward, AdamW."""
    nn, F, S = T.nn, T.nn.functional, GPT2Sizes

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(S.dim), nn.LayerNorm(S.dim)
            self.qkv, self.out = nn.Linear(S.dim, 3 * S.dim), nn.Linear(S.dim, S.dim)
            self.up, self.down = nn.Linear(S.dim, 4 * S.dim), nn.Linear(4 * S.dim, S.dim)

        def forward(self, x: Any) -> Any:
            batch, time, dim = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, S.heads, dim // S.heads).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(batch, time, dim))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT2(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(S.vocabulary, S.dim), nn.Embedding(S.context, S.dim)
            self.blocks = nn.ModuleList([Block() for _ in range(S.layers)])
            self.norm = nn.LayerNorm(S.dim)

        def loss(self, tokens: Any, targets: Any) -> Any:
            x = self.tokens(tokens) + self.positions(T.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            return F.linear_cross_entropy(self.norm(x).flatten(0, 1), self.tokens.weight, targets.flatten())

    def setup() -> Any:
        T.manual_seed(0)
        model = GPT2()
        with T.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(0.0, 0.02)
        tokens = T.randint(0, S.vocabulary, (1, 513))
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        optimizer = T.optim.AdamW(model.parameters(), lr=1e-4)

        def run() -> None:
            with T.autocast("cpu", dtype=T.bfloat16, enabled=autocast):
                loss = model.loss(inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return run, inputs.numel(), "tokens_per_s"

    return setup


GOALS = {
    "train step, demo model": 1.4,
    "train step, GPT-2 124M f32": 1.5,
    "train step, GPT-2 124M bf16 autocast": 1.6,
    "train step, demo model bf16 autocast": 1.7,
}


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    return {
        "train step, GPT-2 124M f32": gpt2(T, autocast=False),
        "train step, GPT-2 124M bf16 autocast": gpt2(T, autocast=True),
        "train step, demo model": step(T),
        "train step, demo model bf16 autocast": step(T, autocast=True),
        "train step, dense, no tables": step(
            T, n_routed_experts=0, n_shared_experts=4, ngram_orders=(2,), ngram_rows=256
        ),
    }


if __name__ == "__main__":
    main("train_step", cases, goals=GOALS.get)
