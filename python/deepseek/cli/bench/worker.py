"""A process that measures: cases of one library, asked for by lines of JSON. Run by path, by any interpreter.

It imports nothing of deepseek for another library, so that an interpreter with PyTorch alone will do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

TURN = 0.05  # seconds that a turn of quick calls fills


class Cases:
    """The cases of a library, made when they are first asked for."""

    def __init__(self, made: dict[str, Callable[[], Any]]) -> None:
        self._setups = made
        self._ready: dict[str, tuple[Callable[[], Any], int]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._setups

    def seconds(self, name: str) -> float:
        """Of one call, the mean of a turn."""
        if name not in self._ready:
            run = self._setups[name]()
            first = _timed(run)  # packs weights and warms caches
            call = first if first > 10 * TURN else _timed(run)
            self._ready[name] = run, max(1, round(TURN / call))
        run, calls = self._ready[name]
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - begin) / calls

    def value(self, name: str) -> float:
        """What a case that measures by itself says."""
        return float(self._setups[name]()())

    def peak(self, name: str) -> float:
        """Bytes that the first call takes at most beside what was there before. For a process that did nothing else."""
        run = self._setups[name]()
        before = _resident()  # with inputs and weights, which both have alike
        try:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # the highest so far becomes what is resident now
            highest = _status("VmHWM")
        except OSError:
            highest = 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        after = max(_status("VmHWM"), _resident())
        return max(0.0, after - max(before, min(highest, after)))

    def forget(self) -> None:
        """Frees what cases hold."""
        self._ready.clear()


def _timed(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return max(time.perf_counter() - begin, 1e-9)


def _status(key: str) -> float:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(1024.0 * int(line.split()[1]) for line in file if line.startswith(key))


def _resident() -> float:
    return _status("VmRSS")


def serve(library: str, suite: str, threads: int, full: bool) -> None:
    """Answers requests until the input ends."""
    module = importlib.import_module(library)
    module.set_num_threads(threads)
    cases = Cases(importlib.import_module(f"{suite}_cases").cases(module, full))
    print(json.dumps({"version": str(module.__version__)}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        kind, name = request["kind"], request.get("case", "")
        try:
            if kind == "forget":
                reply: dict[str, Any] = {}
                cases.forget()
            elif name not in cases:
                reply = {"error": f"no case {name!r}"}
            else:
                reply = {"value": getattr(cases, kind)(name)}
        except Exception as error:  # of the library: the rest of the table is still worth having
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("suite")
    parser.add_argument("threads", type=int)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    serve(options.library, options.suite, options.threads, options.full)
