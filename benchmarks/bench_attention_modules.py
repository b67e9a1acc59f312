"""Sparse attention as modules, selection included, beside dense ones: our own, and torch.nn.functional's attention.

`DynamicSparseAttention(512, 16, num_key_value_heads=2, head_dim=128, max_keys=2048, causal=True)`: 16 query heads on 2
key heads of size 128, each query reads 32 blocks of 64 keys for each key head. The dense modules have the same
projections; our own is the same class with a budget for all keys. Cases:

- "prefill 16K": 16,384 tokens;
- "prefill 64K": of a prompt of 65,536 the 2,048 tokens in the middle, which see the mean number of keys, with the
  31,744 before them in a cache (a full dense call takes minutes). PyTorch, which knows no position of a first query,
  runs them without a mask on 32,768 keys;
- "train 16K", "train 64K": the same, forward and backward; gradients of the cached keys and values too;
- "decode 64K": one token with 65,536 before it. PyTorch's query heads are stacked as rows of their key head, its
  fastest way;
- memory: peak of fresh processes beyond what the import takes, a training step of 16,384 tokens; ours alone 65,536;
- cost against length: the sparse module from 4,096 to 65,536 tokens in full, and the share of it that selects.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from _harness import (
    QUIET,
    ROOT,
    Worker,
    compare,
    duration,
    load_library,
    machine,
    missing,
    print_verdict,
    python_with,
    serve,
    significant,
    write_block,
    write_pages,
)

DIM, HEADS, KEY_HEADS, SIZE, BUDGET, BLOCK = 512, 16, 2, 128, 2048, 64
# Goals beside PyTorch, float32 and bfloat16, and beside our own dense module.
GOALS: dict[str, tuple[float, float, float | None]] = {
    "prefill 16K": (4.0, 7.0, 3.2),
    "prefill 64K": (13.0, 24.0, 11.0),
    "train 16K": (3.5, 5.0, None),
    "train 64K": (10.0, 10.0, None),
    "decode 64K": (18.0, 18.0, 11.0),
}
PROJECTIONS = "a fifth of the time are projections, which both have"
WHY = {
    "prefill 16K float32": PROJECTIONS,
    "prefill 16K bfloat16": PROJECTIONS,
    "prefill 16K bfloat16, dense": PROJECTIONS,
    "prefill 64K bfloat16": PROJECTIONS,
}
# Tokens, and how many are before them.
SIZES = {"16K": (16384, 0), "64K": (2048, 32768 - 2048 + 1024)}
DECODE = 65536
LENGTHS = (4096, 8192, 16384, 32768, 65536)
MEMORY_GOAL, SLOPE_GOAL = 0.4, 1.25


def goal(name: str) -> float | None:
    kind = " ".join(name.split()[:2])
    in_float32, in_bfloat16, dense = GOALS[kind]
    return dense if name.endswith(" dense") else in_bfloat16 if "bfloat16" in name else in_float32


def why(name: str) -> str:
    return WHY.get(name, "")


def our_module(T: Any, dtype: Any, sparse: bool) -> Any:
    budget = {"max_keys": BUDGET} if sparse else {"sparsity_ratio": 1.0}
    from deepseek.attention import DynamicSparseAttention

    return DynamicSparseAttention(
        DIM, HEADS, num_key_value_heads=KEY_HEADS, head_dim=SIZE, block_size=BLOCK, causal=True, **budget
    ).to(dtype)


def torch_module(T: Any, dtype: Any) -> Any:
    """The same with all keys. Called with earlier keys and values, or with a cache that has room for the new ones."""
    nn, F = T.nn, T.nn.functional

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query_proj = nn.Linear(DIM, HEADS * SIZE, bias=False)
            self.key_proj = nn.Linear(DIM, KEY_HEADS * SIZE, bias=False)
            self.value_proj = nn.Linear(DIM, KEY_HEADS * SIZE, bias=False)
            self.out_proj = nn.Linear(HEADS * SIZE, DIM, bias=False)

        def forward(self, x: Any, earlier: Any = None, cache: Any = None) -> Any:
            q, k, v = (
                p(x).unflatten(-1, (-1, SIZE)).transpose(1, 2)
                for p in (self.query_proj, self.key_proj, self.value_proj)
            )
            if earlier is not None:
                k, v = (T.cat([e, n], dim=2) for e, n in zip(earlier, (k, v), strict=True))
            if cache is not None:
                for held, new in zip(cache, (k, v), strict=True):
                    held[:, :, -1:] = new
                k, v = cache
            if x.shape[1] == 1:
                out = F.scaled_dot_product_attention(q.reshape(1, KEY_HEADS, -1, SIZE), k, v)
                return self.out_proj(out.reshape(1, 1, -1))
            wide = [t.repeat_interleave(HEADS // KEY_HEADS, 1) for t in (k, v)]
            out = F.scaled_dot_product_attention(q, *wide, is_causal=earlier is None)
            return self.out_proj(out.transpose(1, 2).flatten(2))

    return Dense().to(dtype)


def earlier_rows(T: Any, count: int, dtype: Any) -> list[Any]:
    return [T.randn(1, KEY_HEADS, count, SIZE).to(dtype) for _ in range(2)]


def case(T: Any, kind: str, dtype_name: str, sparse: bool) -> Callable[[], Any]:
    def setup() -> Any:
        T.manual_seed(0)
        torch, dtype, train = T.__name__ == "torch", getattr(T, dtype_name), kind.startswith("train")
        module = torch_module(T, dtype) if torch else our_module(T, dtype, sparse)
        tokens, start = (1, DECODE) if kind == "decode 64K" else SIZES[kind.split()[1]]
        x = T.randn(1, tokens, DIM).to(dtype).requires_grad_(train)
        if torch and start and tokens > 1:
            start = 32768 - tokens  # without a mask: as many keys as ours see in the mean
        rows = earlier_rows(T, start + (torch and tokens == 1), dtype) if start else None
        if rows and train:
            rows = [row.requires_grad_() for row in rows]
        call = torch_call(module, x, rows) if torch else our_call(T, module, x, rows, train)
        if not train:

            def forward() -> Any:
                with T.no_grad():
                    return call()

            return forward
        gradient = T.ones(1, tokens, DIM, dtype=dtype)

        def step() -> None:
            for leaf in (x, *(rows or ()), *module.parameters()):
                leaf.grad = None
            call().backward(gradient)

        return step

    return setup


def torch_call(module: Any, x: Any, rows: Any) -> Callable[[], Any]:
    if rows is None:
        return lambda: module(x)
    return (lambda: module(x, cache=rows)) if x.shape[1] == 1 else lambda: module(x, rows)


def our_call(T: Any, module: Any, x: Any, rows: Any, train: bool) -> Callable[[], Any]:
    if rows is None:
        return lambda: module(x)
    if train:  # gradients reach what the cache holds, so it begins anew

        def fresh() -> Any:
            cache = module.new_cache()
            cache.append(*rows)
            return module(x, cache=cache)

        return fresh
    cache = module.new_cache()
    with T.no_grad():
        cache.append(*rows)
    length = cache.length

    def again() -> Any:
        cache.truncate(length)
        return module(x, cache=cache)

    return again


def cases(T: Any, sparse: bool) -> dict[str, Callable[[], Any]]:
    dense = not sparse and T.__name__ == "deepseek"
    kinds = [kind for kind in GOALS if not dense or GOALS[kind][2] is not None]
    return {f"{kind} {dtype}": case(T, kind, dtype, sparse) for kind in kinds for dtype in ("float32", "bfloat16")}


# --- memory
def status_mb(field: str) -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024


def measure_memory(library: str, tokens: int) -> None:
    """In a process of its own: prints the MB and the seconds of a training step."""
    T = load_library(library)
    T.set_num_threads(int(os.environ["DEEPSEEK_BENCH_THREADS"]))
    T.manual_seed(0)
    (T.ones(8, 8) @ T.ones(8, 8)).sum().item()  # what the first product loads is not the step's
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # forgets the peak of the import
    before = status_mb("VmRSS")
    module = torch_module(T, T.float32) if library == "torch" else our_module(T, T.float32, True)
    x, gradient = T.randn(1, tokens, DIM).requires_grad_(), T.ones(1, tokens, DIM)
    begin = time.perf_counter()
    module(x).backward(gradient)
    print(json.dumps([status_mb("VmHWM") - before, time.perf_counter() - begin]))


def memory_of(python: str, library: str, tokens: int, threads: int) -> list[float]:
    environment = os.environ | {"DEEPSEEK_BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [python, sys.argv[0], "--memory", library, "--tokens", str(tokens)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    return list(json.loads(found))


def memory(python: str | None, threads: int) -> list[dict[str, Any]]:
    rows = []
    for tokens in (16384, 65536):
        mine, seconds = memory_of(sys.executable, "deepseek", tokens, threads)
        row: dict[str, Any] = {
            "benchmark": "attention_modules",
            "case": f"memory, train {tokens // 1024}K float32",
            "deepseek_MB": significant(mine),
            "seconds": significant(seconds),
        }
        if python and tokens == 16384:
            theirs = memory_of(python, "torch", tokens, threads)[0]
            share = round(mine / theirs, 3)
            row |= {"torch_MB": significant(theirs), "share": share, "goal": MEMORY_GOAL, "met": share <= MEMORY_GOAL}
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


# --- cost against length
def scaling(threads: int, turns: int) -> str:
    """Prints the times, returns the text for docs/performance.md."""
    import deepseek as T
    from deepseek.attention.caches.blocks import block_means
    from deepseek.attention.selection import Budget, select_blocks

    T.set_num_threads(threads)
    T.manual_seed(0)
    module = our_module(T, T.float32, True)
    lines = ["| tokens | seconds | of it selecting | µs a token |", "|---:|---:|---:|---:|"]
    whole = []
    for length in LENGTHS:
        x = T.randn(1, length, DIM)
        q, k = (p(x).detach().unflatten(-1, (-1, SIZE)).transpose(1, 2) for p in (module.query_proj, module.key_proj))

        def select(q: Any = q, k: Any = k, length: int = length) -> Any:
            means = block_means(k, BLOCK, (length - 1) // BLOCK)
            return select_blocks(q, k, means, BLOCK, Budget(max_keys=BUDGET), is_causal=True)

        def forward(x: Any = x) -> Any:
            with T.no_grad():
                return module(x)

        forward()  # first calls meet fresh pages
        seconds, selecting = (statistics.median(timed(f) for _ in range(turns)) for f in (forward, select))
        whole.append(seconds)
        row = {"case": f"prefill {length // 1024}K float32 in full", "seconds": significant(seconds)}
        print(json.dumps(row | {"selector_share": round(selecting / seconds, 4)}), flush=True)
        lines.append(
            f"| {length:,} | {duration(seconds * 1e6)} | {selecting / seconds:.1%} | {seconds / length * 1e6:.0f} |"
        )
    slope = log_slope(LENGTHS, whole)
    print(json.dumps({"slope": round(slope, 3), "goal": SLOPE_GOAL, "met": slope <= SLOPE_GOAL}), flush=True)
    lines.append(f"\nThe slope of log time against log length is {slope:.2f} (goal: at most {SLOPE_GOAL}).")
    return "\n".join(lines)


def timed(f: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    f()
    return time.perf_counter() - begin


def log_slope(x: tuple[int, ...], y: list[float]) -> float:
    logs = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True)]
    mean = [statistics.mean(column) for column in zip(*logs, strict=True)]
    return sum((a - mean[0]) * (b - mean[1]) for a, b in logs) / sum((a - mean[0]) ** 2 for a, _ in logs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sparse attention modules beside dense ones.")
    parser.add_argument("--worker", choices=["sparse", "dense", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=["deepseek", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=3, help="turns of each process and case")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of all")
    parser.add_argument("--only", default="", help="run the cases whose name contains this; no memory, no lengths")
    parser.add_argument("--write", action="store_true", help="write the tables of docs/performance.md")
    options = parser.parse_args()
    if options.memory:
        return measure_memory(options.memory, options.tokens)
    if options.worker:
        library = "torch" if options.worker == "torch" else "deepseek"
        return serve(library, lambda T: cases(T, options.worker == "sparse"))
    about: dict[str, Any] = {"benchmark": "attention_modules", **machine(options.threads)}
    ours, dense = (Worker(sys.executable, kind, options.threads) for kind in ("sparse", "dense"))
    python = python_with("torch")
    theirs = Worker(python, "torch", options.threads) if python else None
    about["torch"] = theirs.about["version"] if theirs else missing("torch")
    print(json.dumps(about), flush=True)
    if about["free"] < QUIET:
        print(f"the machine is busy: {about['free']:.0%} of its time is free, figures are rough", file=sys.stderr)
    rows = compare("attention_modules", ours, dense, options.turns, options.only, goal, "dense")
    if theirs:
        rows += compare("attention_modules", ours, theirs, options.turns, options.only, goal)
    for worker in (ours, dense, theirs):
        if worker:
            worker.close()
    if options.only:
        return print_verdict("attention_modules", rows)
    rows += memory(python, options.threads)
    lengths = scaling(options.threads, options.turns)
    print_verdict("attention_modules", rows)
    if options.write:
        write_pages("attention_modules", about, rows, (), why)
        write_block(ROOT / "docs" / "performance.md", "lengths:attention_modules", lengths)


if __name__ == "__main__":
    main()
