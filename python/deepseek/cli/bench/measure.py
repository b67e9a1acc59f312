"""Runs the rows of a suite: ours and each peer in turn, in processes of their own."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deepseek.cli.bench.suites import Growth, Peer, Row, Suite

PYTHON = "DEEPSEEK_BENCH_TORCH_PYTHON"  # names the interpreter that has PyTorch; default: this one


QUIET = 0.9  # a smaller share of free time makes the figures rough


def free_share(threads: int) -> float:
    """The share of the threads' time that other programs leave."""
    spin = "import time; b = time.perf_counter()\nwhile time.perf_counter() - b < 0.4: pass\nprint(time.process_time())"
    spinners = [subprocess.Popen([sys.executable, "-S", "-c", spin], stdout=subprocess.PIPE) for _ in range(threads)]
    return min(1.0, sum(float(spinner.communicate()[0]) for spinner in spinners) / (0.4 * threads))


class Worker:
    """A measuring process."""

    def __init__(self, python: str, library: str, suite: str, threads: int, full: bool) -> None:
        command = [python, str(Path(__file__).with_name("worker.py")), library, suite, str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "DEEPSEEK_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [*command, "--full"] if full else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.version = str(self._read()["version"])

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.process.stderr.read().strip().splitlines()
            raise RuntimeError(f"the measuring process ended: {said[-1] if said else self.process.wait()}")
        return dict(json.loads(line))

    def ask(self, kind: str, case: str = "") -> float:
        """Seconds, peak or value of a case.

        Raises:
            RuntimeError: it cannot be measured; the text says why.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"kind": kind, "case": case}) + "\n")
        self.process.stdin.flush()
        reply = self._read()
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return float(reply.get("value", 0.0))

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


class Bench:
    """One run of a suite.

    Args:
        suite: Its rows.
        threads: Of every process.
        turns: How often each case is timed.
        full: The long lengths.
    """

    def __init__(self, suite: Suite, threads: int, turns: int, full: bool) -> None:
        self.suite, self.threads, self.turns, self.full = suite, threads, turns, full
        self.torch_python = os.environ.get(PYTHON, sys.executable)
        self.ours = self._worker("deepseek")
        self.torch, self.without = self._find_torch()

    def _worker(self, library: str) -> Worker:
        python = sys.executable if library == "deepseek" else self.torch_python
        return Worker(python, library, self.suite.name, self.threads, self.full)

    def _find_torch(self) -> tuple[Worker | None, str]:
        try:
            return self._worker("torch"), ""
        except (RuntimeError, OSError):
            return None, f"needs PyTorch (in this Python, or in one that {PYTHON} names)"

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in (self.ours, self.torch):
            if worker is not None:
                worker.close()

    def run(self, only: str, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """The results of the rows whose text contains ``only``, one for each peer, as they come."""
        for row in self.suite.rows:
            if only not in row.what:
                continue
            note(row.what)
            if isinstance(row, Growth):
                yield self._growth(row)
            else:
                yield from self._compared(row)
            for worker in (self.ours, self.torch):
                if worker is not None:
                    worker.ask("forget")

    def _compared(self, row: Row) -> Iterator[dict[str, Any]]:
        measured = self._measured(row)
        mine = measured[0]
        unit = {"seconds": "seconds", "peak": "bytes", "value": "bytes"}[row.measure]
        for peer, theirs in zip(row.peers, measured[1:], strict=True):
            result: dict[str, Any] = {"what": row.what, "peer": peer.name, "unit": unit}
            result |= {"ours": mine} if isinstance(mine, float) else {"why": mine}
            if isinstance(theirs, str):
                result["why"] = theirs
            elif isinstance(mine, float):
                ratio = mine / theirs if peer.most else theirs / mine
                result |= {"theirs": theirs, "ratio": ratio}
                if peer.goal is not None:
                    result |= {"goal": peer.goal, "met": ratio <= peer.goal if peer.most else ratio >= peer.goal}
            yield result | ({"at_most": True} if peer.most else {})

    def _measured(self, row: Row) -> list[float | str]:
        """Of ours and each peer a median, or why there is none."""
        ours = Peer("", "deepseek", row.case)
        series: list[list[float] | str] = [[] for _ in (ours, *row.peers)]
        for _ in range(self.turns if row.measure == "seconds" else 1):
            for place, peer in enumerate((ours, *row.peers)):
                values = series[place]
                if isinstance(values, str):
                    continue
                try:
                    values.append(self._one(row.measure, peer))
                except RuntimeError as error:
                    series[place] = self._reason(peer, str(error))
        return [values if isinstance(values, str) else statistics.median(values) for values in series]

    def _one(self, measure: str, peer: Peer) -> float:
        worker = self.ours if peer.library == "deepseek" else self.torch
        if worker is None:
            raise RuntimeError(self.without)
        if measure != "peak":
            return worker.ask(measure, peer.case)
        fresh = self._worker(peer.library)  # what others left behind must not count
        try:
            return fresh.ask("peak", peer.case)
        finally:
            fresh.close()

    def _reason(self, peer: Peer, error: str) -> str:
        if peer.needs and ("ModuleNotFoundError" in error or self.torch is None):
            return f"needs {peer.needs} and PyTorch (in this Python, or in one that {PYTHON} names)"
        return error

    def _growth(self, row: Growth) -> dict[str, Any]:
        seconds = {length: self._median(case) for length, case in row.cases}
        part = self._median(row.part)
        points = [(math.log(length), math.log(time)) for length, time in seconds.items()]
        power = statistics.linear_regression(*zip(*points, strict=True)).slope
        return {
            "what": row.what,
            "peer": "power of the length",
            "unit": "power",
            "ours": power,
            "goal": row.goal,
            "met": power <= row.goal,
            "at_most": True,
            "seconds": seconds,
            "selector_share": part / seconds[row.cases[-1][0]],
        }

    def _median(self, case: str) -> float:
        return statistics.median(self.ours.ask("seconds", case) for _ in range(self.turns))
