"""What a newcomer meets first: import, size, and training a small classifier of digits, beside PyTorch and MLX.

Fresh processes in turn, processor time of one thread, medians: so that the figures hold on a machine that does other
things too. PyTorch is looked for in the interpreter that DEEPSEEK_BENCH_TORCH_PYTHON names, MLX (`pip install
"mlx[cpu]"`) in that of DEEPSEEK_BENCH_PEERS_PYTHON. The data has the shape of scikit-learn's digits, the numbers are
random.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from _harness import (
    ROOT,
    duration,
    load_library,
    machine,
    missing,
    python_with,
    three_digits,
    write_block,
)
from bench_import import ENVIRONMENT, RESIDENT

IMAGES, PIXELS, HIDDEN, DIGITS, BATCH, EPOCHS = 1797, 64, 128, 10, 64, 5
LIBRARIES = {"deepseek": "deepseek", "torch": "PyTorch", "mlx.core": "MLX"}
EPOCH = f"an epoch of a digit classifier ({PIXELS}-{HIDDEN}-{DIGITS}, batches of {BATCH}, AdamW)"
# Files of the package itself, once, whether it is installed or a source tree; what it depends on is not counted.
SIZE = """
import importlib, importlib.metadata as metadata, pathlib, sys
top = importlib.import_module(sys.argv[1])
found = {p for folder in top.__path__ for p in pathlib.Path(folder).rglob("*")}
for name in sys.argv[2:]:
    found |= {pathlib.Path(p.locate()) for p in metadata.distribution(name).files or []}
kept = {p.resolve() for p in found if p.is_file() and "__pycache__" not in p.parts and ".dist-info" not in str(p)}
print(sum(p.stat().st_size for p in kept) / 1e6)
"""
DISTRIBUTIONS = {  # the module, and what pip installed for it
    "deepseek": ("deepseek", "deepseek"),
    "torch": ("torch", "torch"),
    "mlx.core": ("mlx", "mlx", "mlx-cpu"),
}


# --- what is timed
def epoch(T: Any) -> Callable[[], None]:
    """One pass over the images, as users of PyTorch write it."""
    nn, functional = T.nn, T.nn.functional
    T.manual_seed(0)
    images, labels = T.randn(IMAGES, PIXELS), T.randint(0, DIGITS, (IMAGES,))
    model = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIGITS))
    optimizer = T.optim.AdamW(model.parameters(), lr=1e-3)

    def train() -> None:
        for begin in range(0, IMAGES, BATCH):
            loss = functional.cross_entropy(model(images[begin : begin + BATCH]), labels[begin : begin + BATCH])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def mlx_epoch(mx: Any) -> Callable[[], None]:
    """The same as MLX's documentation writes it."""
    nn, optimizers = importlib.import_module("mlx.nn"), importlib.import_module("mlx.optimizers")
    mx.random.seed(0)
    images, labels = mx.random.normal((IMAGES, PIXELS)), mx.random.randint(0, DIGITS, (IMAGES,))
    model = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIGITS))
    optimizer = optimizers.AdamW(learning_rate=1e-3)
    step = nn.value_and_grad(model, lambda x, y: nn.losses.cross_entropy(model(x), y, reduction="mean"))

    def train() -> None:
        for begin in range(0, IMAGES, BATCH):
            _, gradients = step(images[begin : begin + BATCH], labels[begin : begin + BATCH])
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state)

    return train


def script(library: str) -> Callable[[], None]:
    """A small training script, in a process of its own."""
    module = importlib.import_module(library)
    train = mlx_epoch(module) if library == "mlx.core" else epoch(module)
    for _ in range(EPOCHS):
        train()
    return train


def print_epoch(library: str) -> None:
    """Seconds of processor time of one epoch, once warm."""
    train, times = script(library), []
    for _ in range(15):
        begin = time.process_time()
        train()
        times.append(time.process_time() - begin)
    print(statistics.median(times))


def weights_digest(T: Any, threads: int) -> str:
    """A digest of a few steps of training and of two large sums, computed with so many threads."""
    T.set_num_threads(threads)
    T.manual_seed(0)
    x, y = T.randn(IMAGES, PIXELS), T.randn(IMAGES, 1)
    weight = T.randn(PIXELS, 1, requires_grad=True)
    for _ in range(5):
        ((x @ weight).tanh() - y).square().mean().backward()
        with T.no_grad():
            weight -= weight.grad
            weight.grad = None
    long = T.randn(300, 70_000)
    return str(hash((tuple(weight.flatten().tolist()), long.sum().item(), tuple(long.sum(0)[:100].tolist()))))


# --- the process that compares
def in_process(python: str, *arguments: str) -> str:
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "DEEPSEEK_NUM_THREADS": "1"}
    done = subprocess.run([python, *arguments], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def cost(python: str, code: str) -> tuple[float, float]:
    """Seconds of processor time and resident MB of a process that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    resident = int(in_process(python, "-c", f"{code}\n{RESIDENT}").split()[-1]) / 1024
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, resident


def measure(pythons: dict[str, str], turns: int) -> dict[str, dict[str, str]]:
    """{row: {library: text}}"""
    call = f"import sys; sys.path.insert(0, {sys.path[0]!r}); import bench_first_hour as b; b."
    taken: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for turn in range(turns + 1):  # the first fills the caches
        for library, python in pythons.items():
            found = {
                "bare": cost(python, "pass"),
                "import": cost(python, f"import {library}"),
                "script": cost(python, f"{call}script({library!r})"),
                "epoch": (float(in_process(python, "-c", f"{call}print_epoch({library!r})")), 0.0),
            }
            for name, pair in found.items():
                if turn:
                    taken[name, library].append(pair)
    seconds = {name: statistics.median(s for s, _ in pairs) for name, pairs in taken.items()}
    rows: dict[str, dict[str, str]] = {}
    for library, python in pythons.items():
        resident = statistics.median(m for _, m in taken["import", library])
        facts = {
            "`import`": duration((seconds["import", library] - seconds["bare", library]) * 1e6),
            "memory after it": f"{three_digits(resident)} MB",
            "installed, without dependencies": f"{three_digits(installed(python, library))} MB",
            EPOCH: duration(seconds["epoch", library] * 1e6),
            f"a script that does {EPOCHS} of them, start to end": duration(seconds["script", library] * 1e6),
            "same bits with 1, 2 and 3 threads": same_bits(python, library),
        }
        for row, text in facts.items():
            rows.setdefault(row, {})[library] = text
        print(json.dumps({"benchmark": "first_hour", "library": library, **facts}, ensure_ascii=False), flush=True)
    return rows


def installed(python: str, library: str) -> float:
    return float(in_process(python, "-c", SIZE, *DISTRIBUTIONS[library]))


def same_bits(python: str, library: str) -> str:
    if library == "mlx.core":
        return "threads cannot be set"
    digests = {in_process(python, sys.argv[0], "--digest", library, str(threads)) for threads in (1, 2, 3)}
    return "yes" if len(digests) == 1 else "no"


def table(rows: dict[str, dict[str, str]], versions: dict[str, str]) -> str:
    heads = [f"{LIBRARIES[library]} {version}" for library, version in versions.items()]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    lines += [f"| {row} | " + " | ".join(texts[library] for library in versions) + " |" for row, texts in rows.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digest", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=9, help="processes of each kind and library")
    parser.add_argument("--write", action="store_true", help="write the table of README.md")
    options = parser.parse_args()
    if options.digest:
        return print(weights_digest(load_library(options.digest[0]), int(options.digest[1])))
    pythons = {"deepseek": sys.executable}
    pythons |= {library: found for library in ("torch", "mlx.core") if (found := python_with(library))}
    about: dict[str, Any] = {"benchmark": "first_hour", **machine(1)}
    versions = {
        library: in_process(python, "-c", f"import {library}; print({library}.__version__)")
        for library, python in pythons.items()
    }
    about |= {library: versions.get(library, missing(library)) for library in LIBRARIES}
    print(json.dumps(about), flush=True)
    rows = measure(pythons, options.turns)
    if options.write:
        head = f"Time of one thread on the processor (not by the clock), medians; its instructions: {about['isa']}."
        text = "\n\n".join([head, table(rows, versions)])
        if not write_block(ROOT / "README.md", "bench:first_hour", text):
            raise SystemExit("README.md has no place for the benchmark 'first_hour'")


if __name__ == "__main__":
    main()
