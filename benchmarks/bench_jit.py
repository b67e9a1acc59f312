"""What capturing costs: the first call of a captured function beside the same call run eagerly. Only deepseek."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import bench_overhead
import bench_train_step
import deepseek
from _harness import machine, print_verdict, significant, write_pages

MOST = 2.0  # times the eager call
TURNS = 15


def chain() -> Callable[[], Any]:
    x = deepseek.ones(16)

    def run() -> Any:
        y = x
        for _ in range(20):
            y = (y * 0.9) + 0.1
        return y

    return run


CASES: dict[str, Callable[[], Callable[[], Any]]] = {
    "40 small ops": chain,
    "41-op chain, forward and backward": lambda: bench_overhead.chain_step(deepseek),
    "AdamW step of a tiny MLP": lambda: bench_overhead.mlp_step(deepseek),
    "train step, demo model": lambda: bench_train_step.step(deepseek)()[0],
}


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table of docs/performance.md")
    options = parser.parse_args()
    rows = []
    for name, make in CASES.items():
        function = make()
        for _ in range(3):
            function()
        eager, first = [], []
        for _ in range(TURNS):
            eager.append(seconds(function))
            first.append(seconds(deepseek.jit(function)))
        mine, plain = statistics.median(first), statistics.median(eager)
        times = round(mine / plain, 2)
        row = {"benchmark": "jit", "case": f"first call, {name}", "deepseek_us": significant(mine * 1e6)}
        row |= {"eager_us": significant(plain * 1e6), "times": times, "goal": MOST, "met": times <= MOST}
        print(json.dumps(row), flush=True)
        rows.append(row)
    print_verdict("jit", rows)
    if options.write:
        write_pages("jit", machine(len(os.sched_getaffinity(0))) | {"torch": "not used"}, rows, ())


if __name__ == "__main__":
    main()
