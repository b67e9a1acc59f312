"""One training step of the model of `deepseek demo`: forward, loss, backward, clipping, AdamW.

Both libraries run the source in python/deepseek/models; PyTorch eagerly, as it is installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from _harness import main

BATCH = 8


def step(T: Any, **changes: Any) -> Callable[[], Any]:
    def setup() -> Any:
        config = importlib.import_module("deepseek.models.config").ModelConfig(**changes)
        model = importlib.import_module("deepseek.models.language_model").LanguageModel(config)
        functional, utils = T.nn.functional, T.nn.utils
        T.manual_seed(0)
        tokens = T.randint(0, 256, (BATCH, config.context + 1))
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        optimizer = T.optim.AdamW(model.parameters(), lr=1e-3)

        def run() -> None:
            logits = model(inputs)  # [batch, context, 256]
            loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        return run, BATCH * config.context, "tokens_per_s"

    return setup


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    return {
        "train step, demo model": step(T),
        "train step, dense, no tables": step(
            T, n_routed_experts=0, n_shared_experts=4, ngram_orders=(2,), ngram_rows=256
        ),
    }


if __name__ == "__main__":
    main("train_step", cases, goals=lambda case: 1.2 if case == "train step, demo model" else None)
