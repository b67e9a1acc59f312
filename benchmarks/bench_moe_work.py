"""Layers that compute less for some tokens, beside themselves computing all: does the time shrink with the work?

Zero-computation experts and Mixture-of-Depths, forward and the forward and backward of training, on 2,048 tokens of
width 512. Both sides are deepseek, in one process, in turns; `speedup` is the time with all work divided by the time
with the named share of it, so 1 / share is what arithmetic alone would give.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import deepseek
from _harness import ROOT, machine, machine_line, significant, table, write_block
from deepseek import nn
from deepseek.moe import MixtureOfDepths, ZeroComputationMoE

SEQUENCES, LENGTH, DIM = 4, 512, 512


def experts(share: float) -> ZeroComputationMoE:
    """16 experts, top-4, and 16 copy experts, the selection bias set so that `share` of the slots is executed."""
    layer = ZeroComputationMoE(
        DIM, DIM, 16, 4, zero_experts=0, copy_experts=16, constant_experts=0, scoring="sigmoid", selection_bias=True
    )
    low, high = -1.0, 1.0
    x = deepseek.randn(SEQUENCES, LENGTH, DIM)
    with deepseek.no_grad():
        for _ in range(30):
            layer.gate.e_score_correction_bias[:16] = (low + high) / 2
            layer.reset_counts()
            layer(x)
            low, high = ((low + high) / 2, high) if layer.report().share < share else (low, (low + high) / 2)
    return layer


def depths(share: float) -> MixtureOfDepths:
    """A feed-forward of 4 times the width."""
    block = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.SiLU(), nn.Linear(4 * DIM, DIM))
    return MixtureOfDepths(block, DIM, share, residual=False)


KINDS: dict[str, tuple[Callable[[float], nn.Module], tuple[float, ...]]] = {
    "zero-computation experts": (experts, (0.5, 0.25)),
    "Mixture-of-Depths": (depths, (0.5, 0.125)),
}


def seconds(layer: nn.Module, x: Any, training: bool) -> float:
    begin = time.perf_counter()
    if training:
        layer(x).sum().backward()
        for parameter in layer.parameters():
            parameter.grad = None
    else:
        with deepseek.no_grad():
            layer(x)
    return time.perf_counter() - begin


def measure(kind: str, share: float, training: bool, turns: int) -> dict[str, Any]:
    deepseek.manual_seed(0)
    make = KINDS[kind][0]
    layers = make(share), make(1.0)
    x = deepseek.randn(SEQUENCES, LENGTH, DIM)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns + 2):
        for layer, series in zip(layers, times, strict=True):
            series.append(seconds(layer, x, training))
    ours, all_of_it = (statistics.median(series[2:]) for series in times)
    executed: Any = layers[0]
    name = f"{kind}, {executed.report().share:.1%} of the work, {'training step' if training else 'forward'}"
    return {
        "benchmark": "moe_work",
        "case": name,
        "deepseek_us": significant(ours * 1e6),
        "dense_us": significant(all_of_it * 1e6),
        "speedup": float(f"{all_of_it / ours:.3g}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="write the table of docs/moe.md")
    options = parser.parse_args()
    deepseek.set_num_threads(options.threads)
    about = machine(options.threads)
    print(json.dumps({"benchmark": "moe_work", **about}), flush=True)
    rows = []
    for kind, (_, shares) in KINDS.items():
        for share in shares:
            for training in (False, True):
                rows.append(measure(kind, share, training, options.turns))
                print(json.dumps(rows[-1]), flush=True)
    if options.write:
        head = "| case | time | with all the work | result |"
        text = table(rows).replace("| case | deepseek | peer | result |", head)
        page = ROOT / "docs" / "moe.md"
        line = machine_line(about).replace(f"threads: {options.threads}, ", f"threads: {options.threads}")  # no peers
        if not write_block(page, "bench:moe_work", f"{line}\n\n{text}"):
            raise SystemExit(f"{page} has no place for the table")


if __name__ == "__main__":
    main()
