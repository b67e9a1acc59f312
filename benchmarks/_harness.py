"""Runs the same cases with deepseek and with PyTorch, in two processes that take turns; one JSON line a case.

A benchmark is a program that calls `main(name, cases)`. `cases(T)` gets the library (both have one API) and returns
{case: setup}; `setup()` makes the inputs and returns the function to time, or (function, work, unit) to have a rate
printed too. PyTorch is looked for in the interpreter that DEEPSEEK_BENCH_TORCH_PYTHON names (default: this one); where
it is missing, deepseek runs alone and the output says so.

A number is the median of all turns of a process; a turn is a mean over many calls. `speedup` is PyTorch's median
divided by deepseek's: above 1 deepseek is faster. A case may have a goal, a speedup to reach; the last line counts those
that were met. Both use the same number of threads (`--threads`, default: all the process may use).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Cases = Callable[[Any], dict[str, Callable[[], Any]]]
Goals = Callable[[str], float | None]  # the speedup that a case has to reach
TURN_SECONDS = 0.03  # length of one turn
QUIET = 0.9  # a smaller share of free time makes the figures rough, those of several threads most of all
PARITY = 0.95  # what "at least as fast" means on a shared machine
PAUSE_SECONDS = 0.005  # lets the other process's threads stop spinning


# --- the process that measures
def serve(library: str, cases: Cases) -> None:
    """Answers one line per request: {"case": name} with the seconds of one call."""
    module = load_library(library)
    module.set_num_threads(int(os.environ["DEEPSEEK_BENCH_THREADS"]))
    table = cases(module)
    answer({"cases": list(table), "version": str(module.__version__)})
    current, timed, calls, work, unit = "", None, 0, 0.0, ""
    for line in sys.stdin:
        name = json.loads(line)["case"]
        if name != current:
            timed = None  # frees the inputs of the case before
            made = table[name]()
            timed, work, unit = made if isinstance(made, tuple) else (made, 0.0, "")
            current, calls = name, calibrate(timed)
        gc.collect()
        gc.disable()
        begin = time.perf_counter()
        for _ in range(calls):
            timed()
        seconds = (time.perf_counter() - begin) / calls
        gc.enable()
        answer({"seconds": seconds, "work": work, "unit": unit})


def answer(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


def calibrate(timed: Callable[[], Any]) -> int:
    """Warms up, then says how many calls fill a turn."""
    for _ in range(3):
        timed()
    calls = 1
    while True:
        begin = time.perf_counter()
        for _ in range(calls):
            timed()
        seconds = time.perf_counter() - begin
        if seconds > TURN_SECONDS / 4:
            return max(1, round(calls * TURN_SECONDS / seconds))
        calls *= 4


def load_library(name: str) -> Any:
    """Imports deepseek, or torch; with torch, `import deepseek.models` runs the project's models on PyTorch."""
    module = importlib.import_module(name)
    if name == "torch":
        for part in ("", ".nn", ".nn.functional", ".optim"):
            sys.modules["deepseek" + part] = importlib.import_module("torch" + part)
        models = type(sys)("deepseek.models")
        models.__path__ = [str(ROOT / "python" / "deepseek" / "models")]
        sys.modules["deepseek.models"] = models
        # The one function the models use that PyTorch does not have.
        functional: Any = module.nn.functional
        functional.swiglu = lambda gate, up: functional.silu(gate) * up
    return module


# --- the process that compares
class Worker:
    """A measuring process."""

    def __init__(self, python: str, library: str, threads: int) -> None:
        environment = os.environ | {"DEEPSEEK_BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        command = [python, sys.argv[0], "--worker", library]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.about = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the measuring process ended with exit code {self.process.wait()}")
        return dict(json.loads(line))

    def time(self, case: str) -> dict[str, Any]:
        """One turn."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"case": case}) + "\n")
        self.process.stdin.flush()
        reply = self._read()
        time.sleep(PAUSE_SECONDS)
        return reply

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def torch_python() -> str | None:
    """The interpreter that has PyTorch."""
    python = os.environ.get("DEEPSEEK_BENCH_TORCH_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    return python if found.returncode == 0 else None


def compare(
    name: str, ours: Worker, theirs: Worker | None, turns: int, only: str, goals: Goals
) -> list[dict[str, Any]]:
    """Measures every case, the two processes in turn, and prints the results as they come."""
    rows = []
    for case in ours.about["cases"]:
        if only not in case:
            continue
        times: list[list[float]] = [[], []]
        reply: dict[str, Any] = {}
        for _ in range(turns):
            for series, worker in zip(times, (ours, theirs), strict=True):
                if worker:
                    reply = worker.time(case)
                    series.append(reply["seconds"])
        mine = statistics.median(times[0])
        row: dict[str, Any] = {"benchmark": name, "case": case, "deepseek_us": significant(mine * 1e6)}
        if reply["work"]:
            row[reply["unit"]] = significant(reply["work"] / mine)
        if theirs:
            peer = statistics.median(times[1])
            row |= {"torch_us": significant(peer * 1e6), **against_goal(peer / mine, goals(case))}
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def against_goal(speedup: float, goal: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"speedup": float(f"{speedup:.3g}")}
    return row if goal is None else row | {"goal": goal, "met": speedup >= (PARITY if goal == 1.0 else goal)}


def print_verdict(name: str, rows: list[dict[str, Any]]) -> None:
    aimed = [row for row in rows if "goal" in row]
    missed = [row["case"] for row in aimed if not row["met"]]
    if aimed:
        verdict = {"benchmark": name, "goals": len(aimed), "met": len(aimed) - len(missed), "missed": missed}
        print(json.dumps(verdict), flush=True)


def significant(value: float) -> float:
    return float(f"{value:.4g}")


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on. `free`: the share of the threads' time that other programs leave."""
    from deepseek import _C

    spin = "import time; b = time.perf_counter()\nwhile time.perf_counter() - b < 0.5: pass\nprint(time.process_time())"
    spinners = [subprocess.Popen([sys.executable, "-S", "-c", spin], stdout=subprocess.PIPE) for _ in range(threads)]
    used = sum(float(spinner.communicate()[0]) for spinner in spinners)
    free = min(1.0, used / (0.5 * threads))
    isa = _C.build_info()["isa"]
    return {"cores": len(os.sched_getaffinity(0)), "threads": threads, "isa": isa, "free": round(free, 2)}


def readme_table(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    busy = f"; **rough**: other programs left {about['free']:.0%} of the time" if about["free"] < QUIET else ""
    lines = [f"{about['cores']} cores, {about['isa']}, threads: {about['threads']}, torch {about['torch']}{busy}.", ""]
    lines += ["| case | deepseek | torch | speedup |", "|---|---:|---:|---:|"]
    for row in rows:
        peer, speedup = row.get("torch_us"), row.get("speedup")
        torch_time = f"{peer:,.4g} µs" if peer else "not measured"
        faster = f"{speedup}x" if speedup else ""
        lines.append(f"| {row['case']} | {row['deepseek_us']:,.4g} µs | {torch_time} | {faster} |")
    return "\n".join(lines)


def write_readme(name: str, about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Replaces what stands between <!-- bench:name --> and <!-- /bench:name --> in README.md."""
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    marks = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)", re.DOTALL)
    if not marks.search(text):
        raise SystemExit(f"README.md has no place for the benchmark {name!r}")
    page.write_text(marks.sub(lambda m: f"{m[1]}{readme_table(about, rows)}\n{m[2]}", text), encoding="utf-8")


def main(name: str, cases: Cases, readme: tuple[str, ...] = (), goals: Goals = lambda case: None) -> None:
    """The command line of a benchmark. `readme` names the cases that README.md shows."""
    parser = argparse.ArgumentParser(description=f"The {name} benchmark, deepseek beside PyTorch.")
    parser.add_argument("--worker", choices=["deepseek", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=15, help="turns of each process and case")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of both")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--readme", action="store_true", help="write the table of this benchmark into README.md")
    options = parser.parse_args()
    if options.worker:
        serve(options.worker, cases)
        return
    peer, here = torch_python(), machine(options.threads)
    ours = Worker(sys.executable, "deepseek", options.threads)
    theirs = Worker(peer, "torch", options.threads) if peer else None
    note = theirs.about["version"] if theirs else "missing: only deepseek is measured (set DEEPSEEK_BENCH_TORCH_PYTHON)"
    about = {"benchmark": name, **here, "deepseek": ours.about["version"], "torch": note}
    print(json.dumps(about), flush=True)
    if about["free"] < QUIET:
        print(f"the machine is busy: {about['free']:.0%} of its time is free, figures are rough", file=sys.stderr)
    rows = compare(name, ours, theirs, options.turns, options.only, goals)
    print_verdict(name, rows)
    for worker in (ours, theirs):
        if worker:
            worker.close()
    if options.readme:
        write_readme(name, about, [row for row in rows if row["case"] in (readme or [r["case"] for r in rows])])
