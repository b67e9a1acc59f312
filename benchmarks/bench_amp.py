"""Training steps under bfloat16 autocast beside the same steps in our own float32, and beside PyTorch's autocast.

The demo's model, the same four times as wide and without tables (more of its time is products), and GPT-2 124M; what
is timed is in bench_train_step.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from _harness import QUIET, Worker, compare, machine, missing, print_verdict, python_with, serve, write_pages
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


def main() -> None:
    parser = argparse.ArgumentParser(description="bfloat16 autocast beside float32, and beside PyTorch's autocast.")
    parser.add_argument("--worker", choices=["bf16", "f32", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=7, help="turns of each process and case")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of all")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--write", action="store_true", help="write the table of docs/performance.md")
    options = parser.parse_args()
    if options.worker:
        library = "torch" if options.worker == "torch" else "deepseek"
        return serve(library, lambda T: cases(T, options.worker != "f32"))
    about: dict[str, Any] = {"benchmark": "amp", **machine(options.threads)}
    ours, wide = (Worker(sys.executable, kind, options.threads) for kind in ("bf16", "f32"))
    python = python_with("torch")
    theirs = Worker(python, "torch", options.threads) if python else None
    about["torch"] = theirs.about["version"] if theirs else missing("torch")
    print(json.dumps(about), flush=True)
    if about["free"] < QUIET:
        print(f"the machine is busy: {about['free']:.0%} of its time is free, figures are rough", file=sys.stderr)
    rows = compare("amp", ours, wide, options.turns, options.only, goal, "f32")
    if theirs:
        rows += compare("amp", ours, theirs, options.turns, options.only, goal)
    print_verdict("amp", rows)
    if options.write:
        write_pages("amp", about, rows, (), lambda case: REASONS.get(case, ""))


if __name__ == "__main__":
    main()
