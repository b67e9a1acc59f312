"""Peak resident memory of training steps, beyond what is resident before the model is made; one fresh process each.
A case may say how much of it are inputs and gradients, which any library has to hold, and only the rest counts.

What counts is what the system has to give the process: memory that a library caches is included.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from _harness import load_library, machine, print_verdict, significant, torch_python, torch_version, write_pages

STEPS = 6


def status_mb(field: str) -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024


def perceptron(T: Any) -> Callable[[], Any]:
    """Four layers of 2048, batch 512."""
    nn = T.nn
    layers = [layer for _ in range(4) for layer in (nn.Linear(2048, 2048), nn.GELU())]
    model = nn.Sequential(*layers)
    optimizer = T.optim.AdamW(model.parameters(), lr=1e-3)
    x = T.randn(512, 2048)

    def step() -> None:
        loss = nn.functional.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def language_model(T: Any, **changes: Any) -> Callable[[], Any]:
    return importlib.import_module("bench_train_step").step(T, **changes)()[0]


def linear_cross_entropy(T: Any) -> tuple[Callable[[], Any], float]:
    """The step, and the MB of its inputs and gradients. PyTorch takes its plain path."""
    fused = importlib.import_module("bench_fused")
    x, weight, target = fused.linear_cross_entropy_inputs(T)
    loss = next(iter(fused.losses(T).values()))

    def step() -> None:
        fused.gradients_dropped(x, weight)
        loss(x, weight, target).backward()

    return step, 2 * (x.numel() + weight.numel()) * 4 / 2**20


GOALS = {"linear + cross-entropy 2048x768x50257": 0.2}  # others 1.0
CASES: dict[str, Callable[[Any], Any]] = {
    "perceptron": perceptron,
    "demo model": language_model,
    "dense language model": lambda T: language_model(
        T, dim=256, n_heads=4, n_layers=4, n_routed_experts=0, n_shared_experts=4, ngram_orders=(2,), ngram_rows=256
    ),
    "linear + cross-entropy 2048x768x50257": linear_cross_entropy,
}


def measure(library: str, case: str) -> None:
    """In the measuring process: prints MB."""
    T = load_library(library)
    T.set_num_threads(int(os.environ["DEEPSEEK_BENCH_THREADS"]))
    T.manual_seed(0)
    (T.ones(8, 8) @ T.ones(8, 8)).sum().item()  # what the first product loads is not the step's
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # forgets the peak of the import
    before = status_mb("VmRSS")
    made = CASES[case](T)
    step, excluded = made if isinstance(made, tuple) else (made, 0.0)
    for _ in range(STEPS):
        step()
    print(status_mb("VmHWM") - before - excluded)


def sample(python: str, library: str, case: str, threads: int) -> float:
    environment = os.environ | {"DEEPSEEK_BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [python, sys.argv[0], "--worker", library, "--only", case]
    return float(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=["deepseek", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=3, help="processes of each library and case")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of both")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--write", action="store_true", help="write the table of docs/performance.md")
    options = parser.parse_args()
    if options.worker:
        measure(options.worker, options.only)
        return
    peer = torch_python()
    rows = []
    for case in (name for name in CASES if options.only in name):
        taken: dict[str, list[float]] = {"deepseek": [], "torch": []}
        for _ in range(options.turns):
            taken["deepseek"].append(sample(sys.executable, "deepseek", case, options.threads))
            if peer:
                taken["torch"].append(sample(peer, "torch", case, options.threads))
        mine = statistics.median(taken["deepseek"])
        row: dict[str, Any] = {"benchmark": "memory", "case": case, "deepseek_MB": significant(mine)}
        if peer:
            theirs = statistics.median(taken["torch"])
            share, goal = round(mine / theirs, 3), GOALS.get(case, 1.0)
            row |= {"torch_MB": significant(theirs), "share": share, "goal": goal, "met": share <= goal}
        print(json.dumps(row), flush=True)
        rows.append(row)
    print_verdict("memory", rows)
    if options.write:
        write_pages("memory", machine(options.threads) | {"torch": torch_version(peer)}, rows, ())


if __name__ == "__main__":
    main()
