"""What `import deepseek` costs beside `import torch`: time over a bare interpreter, resident memory."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from _harness import against_goal, machine, print_verdict, significant, torch_python, torch_version, write_pages

MOST_MS, MOST_MB = 50.0, 40.0
RESIDENT = "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')))"
# Installers compile modules; a copy that is imported from its sources must not be compiled at every start.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def run(python: str, code: str) -> tuple[float, float]:
    """Seconds and resident MB of a process that runs `code`."""
    begin = time.perf_counter()
    done = subprocess.run(
        [python, "-c", f"{code}\n{RESIDENT}"], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    return time.perf_counter() - begin, int(done.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15, help="processes of each kind")
    parser.add_argument("--write", action="store_true", help="write the table of docs/performance.md")
    options = parser.parse_args()
    turns, peer, here = options.turns, torch_python(), machine(1)
    programs = {"bare": (sys.executable, "pass"), "deepseek": (sys.executable, "import deepseek")}
    if peer:
        programs |= {"torch": (peer, "import torch")}
    for program in programs.values():
        run(*program)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(turns):
        for name, program in programs.items():
            samples[name].append(run(*program))
    seconds = {name: statistics.median(s for s, _ in taken) for name, taken in samples.items()}
    resident = {name: statistics.median(m for _, m in taken) for name, taken in samples.items()}
    mine = seconds["deepseek"] - seconds["bare"]
    limit = {"benchmark": "import", "case": "import", "deepseek_us": significant(mine * 1e6)}
    memory = {"benchmark": "import", "case": "resident memory", "deepseek_MB": significant(resident["deepseek"])}
    rows: list[dict[str, Any]] = [
        limit | {"goal": MOST_MS, "unit": " ms", "met": mine * 1e3 <= MOST_MS},
        memory | {"goal": MOST_MB, "unit": " MB", "met": resident["deepseek"] <= MOST_MB},
    ]
    if peer:
        theirs = seconds["torch"] - seconds["bare"]
        rows[0] |= {"torch_us": significant(theirs * 1e6)}
        rows[1] |= {"torch_MB": significant(resident["torch"])}
        rows.append({"benchmark": "import", "case": "import beside torch", **against_goal(theirs / mine, 20.0)})
    for row in rows:
        print(json.dumps(row), flush=True)
    print_verdict("import", rows)
    if options.write:
        write_pages("import", here | {"torch": torch_version(peer)}, rows, ())


if __name__ == "__main__":
    main()
