"""Trains the demo's model with one library and prints the loss of every step: train_curve.py library weights.npz steps.

A process of its own. PyTorch trains the twin in benchmarks/demo_twin.py and comes first: it writes the weights, under
names that the model had once.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BATCH = 8


def text(length: int) -> np.ndarray:
    """Bytes of which each has eight likely successors: something to learn, the same everywhere."""
    generator = np.random.default_rng(0)
    successors = generator.integers(0, 256, (256, 8))
    choices, out = generator.integers(0, 8, length), np.zeros(length, np.int64)
    for i in range(1, length):
        out[i] = successors[out[i - 1], choices[i]]
    return out


def main(library: str, weights: Path, steps: int) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    harness = importlib.import_module("_harness")
    T = harness.load_library(library)
    T.set_num_threads(1)
    config = importlib.import_module("deepseek.models.demo.config").ModelConfig()
    T.manual_seed(0)
    if library == "torch":
        model = importlib.import_module("demo_twin").language_model(T, config)
        np.savez(weights, **{name: t.numpy() for name, t in model.state_dict().items()})
    else:
        model = importlib.import_module("deepseek.models").LanguageModel(config)
        with np.load(weights) as stored:
            model.load_state_dict({name: T.from_numpy(stored[name]) for name in stored.files})
    windows = text(steps * BATCH * (config.context + 1)).reshape(steps, BATCH, config.context + 1)
    optimizer = T.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for window in windows:
        tokens = T.from_numpy(window)
        logits = model(tokens[:, :-1].contiguous())
        loss = T.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        T.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    print(json.dumps(losses))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
