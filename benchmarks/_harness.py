"""Runs the same cases with deepseek and with PyTorch, in two processes that take turns; one JSON line a case.

A benchmark is a program that calls `main(name, cases)`. `cases(T)` gets the library (both have one API) and returns
{case: setup}; `setup()` makes the inputs and returns the function to time, or (function, work, unit) or (function,
{unit: work}) to have rates printed too. PyTorch is looked for in the interpreter that DEEPSEEK_BENCH_TORCH_PYTHON names
(default: this one); where it is missing, deepseek runs alone and the output says so. A benchmark may name other peers:
modules in the interpreter that DEEPSEEK_BENCH_PEERS_PYTHON names, whose cases it builds itself.

A number is the median of all turns of a process; a turn is a mean over many calls. `speedup` is PyTorch's median
divided by deepseek's: above 1 deepseek is faster. A case may have a goal, a speedup to reach; the last line counts
those that were met. Both use the same number of threads (`--threads`, default: all the process may use).
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _experts

ROOT = Path(__file__).resolve().parents[1]
Cases = Callable[[Any], dict[str, Callable[[], Any]]]
Goals = Callable[[str], float | None]  # the speedup that a case has to reach
Reasons = Callable[[str], str]  # why a case misses its goal, or ""
TURN_SECONDS = 0.03  # length of one turn
QUIET = 0.9  # a smaller share of free time makes the figures rough, those of several threads most of all
PARITY = 0.95  # what "at least as fast" means on a shared machine
OTHERS = ("llama_cpp", "onnxruntime")  # peers beside PyTorch
PYTHONS = {"torch": "DEEPSEEK_BENCH_TORCH_PYTHON"}  # peers that have an interpreter of their own
# What keeps PyTorch's own kernels, oneDNN and MKL from the instructions that DEEPSEEK_ISA=avx2 keeps us from.
AVX2_OF_PEERS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
PAUSE_SECONDS = 0.02  # lets the other process's threads stop spinning


# --- the process that measures
def serve(library: str, cases: Cases) -> None:
    """Answers {"case": name, "turn": seconds}, a line each, with the seconds of one call or {"error": text}."""
    module = load_library(library)
    if library in ("deepseek", "torch"):  # others ask for the number themselves
        module.set_num_threads(int(os.environ["DEEPSEEK_BENCH_THREADS"]))
    table = cases(module)
    answer({"cases": list(table), "version": str(module.__version__)})
    current, timed, calls, rates = "", None, 0, {}
    for line in sys.stdin:
        request = json.loads(line)
        name, turn = request["case"], request.get("turn", TURN_SECONDS)
        if name != current:
            current, timed = "", None  # frees the inputs of the case before
            try:
                made = table[name]()
                timed, *work = made if isinstance(made, tuple) else (made, {})
                calls = calibrate(timed, turn)
            except Exception as error:
                answer({"error": f"{type(error).__name__}: {error}"})
                continue
            rates = work[0] if len(work) == 1 else {work[1]: work[0]}
            current = name
        gc.collect()
        gc.disable()
        begin = time.perf_counter()
        for _ in range(calls):
            timed()
        seconds = (time.perf_counter() - begin) / calls
        gc.enable()
        answer({"seconds": seconds, "rates": rates})


def answer(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


def calibrate(timed: Callable[[], Any], turn: float) -> int:
    """Warms up, then says how many calls fill a turn."""
    started = time.perf_counter()
    for _ in range(3):
        timed()
        if time.perf_counter() - started > turn:
            break
    calls = 1
    while True:
        begin = time.perf_counter()
        for _ in range(calls):
            timed()
        seconds = time.perf_counter() - begin
        if seconds > turn / 4:
            return max(1, round(calls * turn / seconds))
        calls *= 4


def load_library(name: str) -> Any:
    """Imports deepseek, or torch; then `deepseek.models.demo.config` can be imported too, which needs no engine."""
    module = importlib.import_module(name)
    if name == "torch":
        sys.modules["deepseek"] = module
        for package in ("deepseek.models", "deepseek.models.demo"):
            sys.modules[package] = type(sys)(package)
            sys.modules[package].__path__ = [str(ROOT.joinpath("python", *package.split(".")))]
        add_missing(module)
    return module


def add_missing(torch: Any) -> None:
    """The functions that the models use and PyTorch does not have, as its users write them."""
    functional: Any = torch.nn.functional

    def rope(x: Any, cos: Any, sin: Any) -> Any:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def add_rms_norm(x: Any, residual: Any, weight: Any = None, eps: float | None = None) -> tuple[Any, Any]:
        total = x + residual
        return functional.rms_norm(total, total.shape[-1:], weight, eps), total

    functional.swiglu = lambda gate, up: functional.silu(gate) * up
    functional.rope, functional.add_rms_norm = rope, add_rms_norm
    functional.moe = functools.partial(_experts.by_loop, torch)


# --- the process that compares
class Worker:
    """A measuring process."""

    def __init__(self, python: str, library: str, threads: int) -> None:
        environment = os.environ | {"DEEPSEEK_BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        if os.environ.get("DEEPSEEK_ISA") == "avx2":
            environment |= AVX2_OF_PEERS
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
        """One turn of a case that works."""
        reply = self.ask(case)
        if "error" in reply:
            raise SystemExit(f"{case}: {reply['error']}")
        time.sleep(PAUSE_SECONDS)
        return reply

    def ask(self, case: str, turn: float = TURN_SECONDS) -> dict[str, Any]:
        """One turn, or why there is none."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"case": case, "turn": turn}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def python_with(library: str) -> str | None:
    """The interpreter that has a peer."""
    python = os.environ.get(PYTHONS.get(library, "DEEPSEEK_BENCH_PEERS_PYTHON"), sys.executable)
    found = subprocess.run([python, "-c", f"import {library}"], capture_output=True, check=False)
    return python if found.returncode == 0 else None


def torch_python() -> str | None:
    """The interpreter that has PyTorch."""
    return python_with("torch")


def torch_version(python: str | None) -> str:
    if python is None:
        return "missing"
    done = subprocess.run(
        [python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def compare(
    name: str, ours: Worker, theirs: Worker | None, turns: int, only: str, goals: Goals, peer: str = "torch"
) -> list[dict[str, Any]]:
    """Measures every case that both have, the two processes in turn, and prints the results as they come."""
    rows = []
    for case in ours.about["cases"]:
        if only not in case or (theirs and case not in theirs.about["cases"]):
            continue
        times: list[list[float]] = [[], []]
        rates: dict[str, float] = {}
        for _ in range(turns):
            for series, worker in zip(times, (ours, theirs), strict=True):
                if worker:
                    reply = worker.time(case)
                    series.append(reply["seconds"])
                    rates = reply["rates"] if worker is ours else rates
        mine = statistics.median(times[0])
        label = case if peer == "torch" else f"{case}, {peer}"
        row: dict[str, Any] = {"benchmark": name, "case": label, "deepseek_us": significant(mine * 1e6)}
        row |= {unit: significant(work / mine) for unit, work in rates.items()}
        if theirs:
            other = statistics.median(times[1])
            row |= {f"{peer}_us": significant(other * 1e6), **against_goal(other / mine, goals(label))}
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def against_goal(speedup: float, goal: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"speedup": float(f"{speedup:.3g}")}
    return row if goal is None else row | {"goal": goal, "met": speedup >= (PARITY if goal == 1.0 else goal)}


def missing(peer: str) -> str:
    return f"missing: not compared (set {PYTHONS.get(peer, 'DEEPSEEK_BENCH_PEERS_PYTHON')})"


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
    cores = len(os.sched_getaffinity(0))
    return {"cpu": cpu_model(), "cores": cores, "threads": threads, "isa": isa, "free": round(free, 2)}


def cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


# --- tables in the pages
def machine_line(about: dict[str, Any]) -> str:
    busy = f"; **rough**: other programs left {about['free']:.0%} of the time" if about["free"] < QUIET else ""
    peers = ", ".join(f"{peer} {about[peer]}" for peer in ("torch", *OTHERS) if peer in about)
    return f"{about['cores']} cores, {about['isa']}, threads: {about['threads']}, {peers}{busy}."


def three_digits(value: float) -> str:
    """1.24, 10.2, 163, 2,732: no exponents, no digits that the next run would change."""
    if not value:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:,.{places}f}"


def duration(microseconds: float) -> str:
    """The unit that leaves the fewest digits: 0.163 µs, 10.2 ms, 2.00 s."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= 0.9995 * size:
            return f"{three_digits(microseconds / size)} {unit}"
    return f"{three_digits(microseconds)} µs"


def shown(row: dict[str, Any], library: str) -> str:
    if f"{library}_us" in row:
        return duration(row[f"{library}_us"])
    return f"{three_digits(row[f'{library}_MB'])} MB" if f"{library}_MB" in row else ""


def result(row: dict[str, Any]) -> str:
    if "speedup" in row:
        return f"{three_digits(row['speedup'])}x"
    return f"{row['share']} of torch's" if "share" in row else f"{row['times']}x eager" if "times" in row else ""


def aim(row: dict[str, Any], why: Reasons) -> str:
    """The goal, and for one that was missed the reason."""
    goal = row.get("goal")
    if goal is None:
        return ""
    text = f"≥ {goal}x" if "speedup" in row else f"≤ {goal:g}{row.get('unit', '')}"
    return f"{text}; missed: {why(row['case']) or 'not yet known why'}" if row.get("met") is False else text


def table(rows: list[dict[str, Any]], why: Reasons | None = None) -> str:
    """With `why`, the goals too."""
    title = "peer" if any(f"{peer}_us" in row for row in rows for peer in ("dense", "f32", *OTHERS)) else "torch"
    lines = [f"| case | deepseek | {title} | result |", "|---|---:|---:|---:|"]
    if why:
        lines = [f"{lines[0]} goal |", f"{lines[1]}---|"]
    for row in rows:
        peer = next((text for name in ("torch", "eager", "dense", "f32", *OTHERS) if (text := shown(row, name))), "")
        line = f"| {row['case']} | {shown(row, 'deepseek')} | {peer} | {result(row)} |"
        lines.append(f"{line} {aim(row, why)} |" if why else line)
    return "\n".join(lines)


def summary(rows: list[dict[str, Any]]) -> str:
    """One line for all cases of one size or dtype, the last word of their names, and what missed its goal."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["case"].rpartition(" ")[2], []).append(row)
    lines = ["| of | cases | speedup: lowest | median | met | missed |", "|---|---:|---:|---:|---:|---|"]
    for size, group in groups.items():
        lowest = min(group, key=lambda row: row["speedup"])
        missed = [f"{row['case'].rpartition(' ')[0]} {row['speedup']}x" for row in group if not row["met"]]
        median = statistics.median(row["speedup"] for row in group)
        name = lowest["case"].rpartition(" ")[0]
        lines.append(
            f"| {size} | {len(group)} | {lowest['speedup']}x ({name}) | {median:.3g}x | "
            f"{len(group) - len(missed)} of {len(group)} | {', '.join(missed)} |"
        )
    return "\n".join(lines)


def write_block(page: Path, mark: str, text: str) -> bool:
    """Replaces what stands between <!-- mark --> and <!-- /mark -->; False when the page has no such place."""
    before = page.read_text(encoding="utf-8")
    place = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    if not place.search(before):
        return False
    page.write_text(place.sub(lambda m: f"{m[1]}{text}\n{m[2]}", before), encoding="utf-8")
    return True


def write_pages(
    name: str,
    about: dict[str, Any],
    rows: list[dict[str, Any]],
    readme: tuple[str, ...],
    why: Reasons = lambda case: "",
) -> None:
    """README.md shows the chosen cases, docs/performance.md those with goals (all where none has one) and why some were
    missed."""
    aimed = [row for row in rows if "goal" in row]
    shown_there = summary(aimed) if len(aimed) > 30 else table(aimed, why) if aimed else table(rows)
    docs = "\n\n".join([machine_line(about), shown_there])
    chosen = [row for row in rows if row["case"] in (readme or [r["case"] for r in rows])]
    text = "\n\n".join([machine_line(about), table(chosen)])
    written = write_block(ROOT / "README.md", f"bench:{name}", text)
    if not (write_block(ROOT / "docs" / "performance.md", f"goals:{name}", docs) or written):
        raise SystemExit(f"no page has a place for the benchmark {name!r}")


def main(
    name: str,
    cases: Cases,
    readme: tuple[str, ...] = (),
    goals: Goals = lambda case: None,
    peers: tuple[str, ...] = ("torch",),
    why: Reasons = lambda case: "",
) -> None:
    """The command line of a benchmark. `readme` names the cases that README.md shows.

    A case beside a peer that is not PyTorch is called "case, peer".
    """
    parser = argparse.ArgumentParser(description=f"The {name} benchmark, deepseek beside PyTorch.")
    parser.add_argument("--worker", choices=["deepseek", *peers], help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=15, help="turns of each process and case")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of both")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--write", action="store_true", help="write the tables of README.md and docs/performance.md")
    options = parser.parse_args()
    if options.worker:
        serve(options.worker, cases)
        return
    here, ours = machine(options.threads), Worker(sys.executable, "deepseek", options.threads)
    found = {peer: Worker(python, peer, options.threads) for peer in peers if (python := python_with(peer))}
    note = {peer: found[peer].about["version"] if peer in found else missing(peer) for peer in peers}
    about = {"benchmark": name, **here, "deepseek": ours.about["version"], **note}
    print(json.dumps(about), flush=True)
    if about["free"] < QUIET:
        print(f"the machine is busy: {about['free']:.0%} of its time is free, figures are rough", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for peer, theirs in found.items() or [("torch", None)]:
        rows += compare(name, ours, theirs, options.turns, options.only, goals, peer)
    print_verdict(name, rows)
    for worker in (ours, *found.values()):
        worker.close()
    if options.write:
        write_pages(name, about, rows, readme, why)


def main_beside(
    name: str,
    what: str,
    cases: Callable[[Any, str], dict[str, Callable[[], Any]]],
    sorts: tuple[str, str],
    goals: Goals,
    turns: int,
    why: Reasons = lambda case: "",
) -> None:
    """The command line of a benchmark of ours, sort `sorts[0]`, beside our `sorts[1]` and beside PyTorch.

    `cases(T, worker)` are those of a worker: one of the sorts, or "torch".
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--worker", choices=[*sorts, "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=turns, help="turns of each process and case")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of all")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--write", action="store_true", help="write the table of docs/performance.md")
    options = parser.parse_args()
    if options.worker:
        library = "torch" if options.worker == "torch" else "deepseek"
        return serve(library, lambda T: cases(T, options.worker))
    about: dict[str, Any] = {"benchmark": name, **machine(options.threads)}
    ours, other = (Worker(sys.executable, kind, options.threads) for kind in sorts)
    python = python_with("torch")
    theirs = Worker(python, "torch", options.threads) if python else None
    about["torch"] = theirs.about["version"] if theirs else missing("torch")
    print(json.dumps(about), flush=True)
    if about["free"] < QUIET:
        print(f"the machine is busy: {about['free']:.0%} of its time is free, figures are rough", file=sys.stderr)
    rows = compare(name, ours, other, options.turns, options.only, goals, sorts[1])
    if theirs:
        rows += compare(name, ours, theirs, options.turns, options.only, goals)
    print_verdict(name, rows)
    for worker in (ours, other, *([theirs] if theirs else [])):
        worker.close()
    if options.write:
        write_pages(name, about, rows, (), why)
