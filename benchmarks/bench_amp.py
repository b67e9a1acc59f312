"""Training steps under bfloat16 autocast beside the same steps in our own float32, and beside PyTorch's autocast.

The demo's model, the same four times as wide and without tables (more of its time is products), and GPT-2 124M; what
is timed is in bench_train_step.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main_beside
from bench_train_step import gpt2, step

GOALS = {"demo model": (1.7, 1.5)}  # PyTorch's autocast; our own float32
REASONS = {
    "demo model, f32": "products are half of the float32 step and twice as fast; tables, AdamW, norms, float32 sums "
    "and gathering rows for experts are the other half and stay"
}
WIDE = {"dim": 256, "n_heads": 4, "expert_dim": 384, "ngram_orders": (2,), "ngram_rows": 256}


def cases(T: Any, lower: bool) -> dict[str, Callable[[], Any]]:
    return {
        "demo model": step(T, autocast=lower),
        "256 wide": step(T, autocast=lower, **WIDE),
        "GPT-2 124M": gpt2(T, autocast=lower),
    }


def goal(name: str) -> float | None:
    case = name.removesuffix(", f32")
    return GOALS[case][int(case != name)] if case in GOALS else None


if __name__ == "__main__":
    main_beside(
        "amp",
        "bfloat16 autocast beside float32, and beside PyTorch's autocast.",
        lambda T, worker: cases(T, worker != "f32"),
        ("bf16", "f32"),
        goal,
        7,
        lambda case: REASONS.get(case, ""),
    )
