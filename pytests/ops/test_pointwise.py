"""What every row of pointwise.def computes, on every instruction set this machine can be held to: float32 and float64
in units of the last place, integers of all widths over their range, against the one reference in `opinfo`.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deepseek import _C
from pointwise_cases import RANGES, range_of, rows

HERE = Path(__file__).resolve().parent
NATIVE = str(_C.build_info()["isa"])
LEVELS = ["avx2", "avx512"] if NATIVE.startswith("avx512") else ["avx2"]


@functools.cache
def results(level: str) -> dict[str, Any]:
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])  # the cases need opinfo
    env = {**os.environ, "DEEPSEEK_ISA": level, "DEEPSEEK_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, str(HERE / "pointwise_cases.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["isa"] == level
    return dict(found["cases"])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", rows())
def test_row_is_near_its_reference(level: str, name: str) -> None:
    cases = {case: found for case, found in results(level).items() if case.startswith(f"{name} [")}
    assert cases
    ulps = range_of(name).ulps
    limit = 0 if ulps == 0 else ulps + 0.51  # the reference rounded, and the result
    for case, found in cases.items():
        assert found["off"] <= limit, f"{case}{found['of']} = {found['got']}, expected {found['want']}"


def test_every_range_is_of_a_row() -> None:
    assert set(RANGES) <= set(rows())
