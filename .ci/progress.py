"""Runs a build and says how far it is: `[57/140] csrc/ops/index/sort.cc, about 3 minutes left`.

Usage: python .ci/progress.py LOG command…. All the command prints goes to the file LOG. On a terminal one line moves
on, elsewhere there is one every ten seconds. Warnings are shown as they come, and what failed at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

# Ninja's "[57/140] Building CXX object CMakeFiles/deepseek_objects.dir/csrc/ops/index/sort.cc.o".
# The small files of a folder are compiled as one, "….dir/Unity/unity_csrc-ops-index_cxx.cxx.o".
STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")
OBJECT = re.compile(r"Building \w+ object (?:\S*\.dir/)?(\S+)\.o")
UNIT = re.compile(r"Unity/unity_(.*)_cxx\.cxx")
CPU_SECONDS_A_FILE = 4.0  # what is expected before some files have been compiled, with an empty compiler cache
AS_MANY_FILES = 10  # how many files that expectation counts as
LATEST = 20  # files that are looked at: the compiler cache may have had the ones before


def seconds_left(files: int, seconds: float, left: int, cpus: int) -> float:
    """An estimate for the files left, from experience and what the latest files took together."""
    expected = CPU_SECONDS_A_FILE / cpus
    return (seconds + AS_MANY_FILES * expected) / (files + AS_MANY_FILES) * left


def in_words(seconds: float) -> str:
    if seconds < 50:
        return f"about {max(5, 5 * round(seconds / 5))} seconds left"
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} minute{'s' * (minutes > 1)} left"


class Line:
    """The line that tells of the progress."""

    def __init__(self) -> None:
        self.moves = sys.stdout.isatty()
        self.shown = -float("inf")

    def show(self, text: str, always: bool = False) -> None:
        now = time.monotonic()
        if self.moves:
            width = shutil.get_terminal_size().columns
            print(f"\r\x1b[K{text[: width - 1]}", end="", flush=True)
        elif always or now - self.shown >= 10:
            print(text, flush=True)
            self.shown = now

    def clear(self) -> None:
        if self.moves:
            print("\r\x1b[K", end="", flush=True)


def run(command: list[str], log: Path) -> int:
    begin = time.monotonic()
    times: deque[float] = deque(maxlen=LATEST + 1)
    cpus, line, failed = len(os.sched_getaffinity(0)), Line(), False
    line.show(f"preparing the build, which takes minutes where no compiler cache helps; its output: {log}", always=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    files = 0
    with open(log, "w", encoding="utf-8") as out:
        for text in process.stdout:
            out.write(text)
            text = text.strip()
            step = STEP.fullmatch(text)
            if step is None:
                failed = failed or text.startswith(("FAILED:", "CMake Error", "ERROR:", "error:"))
                if failed or ": warning:" in text:
                    line.clear()
                    print(text, flush=True)
                continue
            done, total, what = int(step[1]), int(step[2]), step[3]
            if compiled := OBJECT.fullmatch(what):
                files, what = files + 1, UNIT.sub(lambda unit: unit[1].replace("-", "/"), compiled[1])
                times.append(time.monotonic())
            left = ""
            if times and done < total:
                left = ", " + in_words(seconds_left(len(times) - 1, times[-1] - times[0], total - done, cpus))
            line.show(f"[{done}/{total}] {what}{left}", always=files == 1)
    code = process.wait()
    line.clear()
    took = f"{time.monotonic() - begin:.0f} s"
    if code:
        print(f"the build failed after {took}; all it printed is in {log}", flush=True)
    else:
        print(f"built in {took}" + (f", {files} files compiled" if files else ", nothing to compile"), flush=True)
    return code


def main() -> int:
    log, *command = sys.argv[1:]
    try:
        return run(command, Path(log))
    except KeyboardInterrupt:  # the command got it too
        return 130


if __name__ == "__main__":
    sys.exit(main())
