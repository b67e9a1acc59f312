"""No public function, method, attribute or operator ends the process, whatever it is given."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cases import cases


@pytest.mark.nosan  # limits the address space
@pytest.mark.timeout(0)
def test_hostile_arguments_end_in_python_exceptions():
    numbers = cases(1500)
    script = Path(__file__).with_name("hostile_calls.py")
    run = subprocess.run(
        [sys.executable, str(script), str(numbers.start), str(numbers.stop)], capture_output=True, text=True
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    failures = [line for line in lines if "case" in line]
    assert not failures, "\n".join(f"case {f['case']}: {f['how']}: {f['what']}\n{f['stderr']}" for f in failures)
    assert run.returncode == 0 and lines[-1] == {"done": numbers.stop}, run.stderr
