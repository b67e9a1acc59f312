"""Every op at every size, dtype and sort of values, beside PyTorch or an older deepseek; the slowest first.

All cases get a short look, and those that seem slow are measured well. `--old PYTHON` names the interpreter of another
deepseek to compare with (`make bench-compare COMMIT=…` builds one). The cases are those of `_op_cases.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _harness
from _harness import Worker, machine, python_with, serve, significant
from _op_cases import SIZES, VALUES, cases, write

LOOK_SECONDS, LOOKS = 0.003, 2  # of the short look
TURN_SECONDS = 0.01
LIMIT_SECONDS = 3.0  # a larger size is left out when it may take longer, by the square of what the smaller one took
SUSPECT = 1.05  # what seems slower than this is measured well
SLOW = 0.9
VALUES_SLOW = 1.3  # times the seconds on usual values


def looked_at(ours: Worker, theirs: Worker, names: list[str], skipped: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The best of a few short turns of each process."""
    seconds: dict[str, tuple[int, float]] = {}  # of an op's last size
    for number, case in enumerate(names):
        family, size = split_size(case)
        smaller, took = seconds.get(family, (size, 0.0))
        if took * (size / smaller) ** 2 > LIMIT_SECONDS:
            skipped[case] = "takes too long"
            continue
        times = []
        for worker in (ours, theirs):
            replies = [worker.ask(case, LOOK_SECONDS)]
            if "error" in replies[0]:
                skipped[case] = replies[0]["error"]
                break
            replies += [worker.ask(case, LOOK_SECONDS) for _ in range(LOOKS - 1)]
            times.append(min(reply["seconds"] for reply in replies))
        else:
            seconds[family] = size, max(times)
            yield {"case": case, "deepseek_us": significant(times[0] * 1e6), "peer_us": significant(times[1] * 1e6)}
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {len(names)}", end="", file=sys.stderr)


def split_size(case: str) -> tuple[str, int]:
    """("exp (n) float32", 1000); what has sorts of values is a family of its own."""
    words = case.split(" ")
    place = next(i for i in (-1, -2) if words[i] in SIZES)
    return " ".join(words[:place] + words[place:][1:]), SIZES[words[place]]


def measured(row: dict[str, Any], ours: Worker, theirs: Worker, turns: int) -> dict[str, Any]:
    times = [[], []]  # type: ignore[var-annotated]
    for _ in range(turns):
        for series, worker in zip(times, (ours, theirs), strict=True):
            series.append(worker.ask(row["case"], TURN_SECONDS)["seconds"])
    mine, other = (statistics.median(series) for series in times)
    return row | {"deepseek_us": significant(mine * 1e6), "peer_us": significant(other * 1e6), "turns": turns}


def by_values(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the cases with special values, how much longer they take than the same on usual values."""
    usual = {row["case"]: row["deepseek_us"] for row in rows}
    found = []
    for row in rows:
        same, _, values = row["case"].rpartition(" ")
        if values in VALUES and same in usual:
            found.append({"case": row["case"], "times": round(row["deepseek_us"] / usual[same], 2)})
    return sorted(found, key=lambda row: -row["times"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Every op beside PyTorch, the slowest first.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--old", help="the interpreter of another deepseek, in place of PyTorch's")
    parser.add_argument("--turns", type=int, default=9, help="turns of each process for what seems slow")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="cases whose name begins with this")
    parser.add_argument("--sizes", default=",".join(SIZES), help="of the cases")
    parser.add_argument("--json", type=Path, help="where to store all rows")
    options = parser.parse_args()
    if options.worker:
        serve(options.worker, cases)
        return
    python, peer = (options.old, "deepseek") if options.old else (python_with("torch"), "torch")
    if python is None:
        raise SystemExit(_harness.missing("torch"))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "samples")
        ours, theirs = Worker(sys.executable, "deepseek", options.threads), Worker(python, peer, options.threads)
    about = {"benchmark": "all_ops", **machine(options.threads), "peer": f"{peer} {theirs.about['version']}"}
    print(json.dumps(about), flush=True)
    sizes = [SIZES[label] for label in options.sizes.split(",")]
    names = [
        case
        for case in ours.about["cases"]
        if case in set(theirs.about["cases"]) and case.startswith(options.only) and split_size(case)[1] in sizes
    ]
    skipped: dict[str, str] = {}
    rows = []
    for row in looked_at(ours, theirs, names, skipped):
        if row["peer_us"] < SUSPECT * row["deepseek_us"]:
            row = measured(row, ours, theirs, options.turns)
        rows.append(row | {"speedup": float(f"{row['peer_us'] / row['deepseek_us']:.3g}")})
    rows.sort(key=lambda row: row["speedup"])
    slow = [row for row in rows if row["speedup"] < SLOW]
    for row in slow:
        print(json.dumps(row), flush=True)
    for values in by_values(rows):
        if values["times"] > VALUES_SLOW:
            print(json.dumps(values))
    verdict = {"cases": len(rows), "median": statistics.median(row["speedup"] for row in rows), "below 0.9": len(slow)}
    print(json.dumps(verdict | {"not run": len(skipped)}), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"about": about, "rows": rows, "not run": skipped}, indent=1))
    for worker in (ours, theirs):
        worker.close()


if __name__ == "__main__":
    main()
