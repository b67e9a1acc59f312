"""What a build shows of itself, and which commands compile the GoogleTests."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / ".ci" / "progress.py"
NINJA = """\
Using pip 26.0
  [0/2] Re-checking globbed directories...
  [1/4] Building CXX object CMakeFiles/deepseek_objects.dir/csrc/ops/index/sort.cc.o
  csrc/ops/index/sort.cc:7:1: warning: unused
  [2/4] Building CXX object tests/CMakeFiles/deepseek_tests.dir/sort_test.cc.o
  [3/4] Building CXX object CMakeFiles/_C.dir/Unity/unity_csrc-python-jit_cxx.cxx.o
"""
GOOD = "  [4/4] Linking CXX shared module _C.so\nSuccessfully installed\n"
BAD = "  FAILED: _C.so\n  /usr/bin/ld: undefined\n"

spec = importlib.util.spec_from_file_location("build_progress", SCRIPT)
assert spec is not None and spec.loader is not None
progress = importlib.util.module_from_spec(spec)
spec.loader.exec_module(progress)


def show(folder: Path, text: str, code: int) -> subprocess.CompletedProcess[str]:
    (folder / "text").write_text(text)
    command = ["sh", "-c", f"cat {folder / 'text'}; exit {code}"]
    return subprocess.run(
        [sys.executable, SCRIPT, folder / "a" / "log", *command], capture_output=True, text=True, check=False
    )


def test_a_build_shows_its_steps_and_warnings_and_keeps_all_in_a_file(tmp_path):
    done = show(tmp_path, NINJA + GOOD, 0)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and not done.stderr
    assert lines[1].startswith("[1/4] csrc/ops/index/sort.cc, about ") and lines[1].endswith(" left")
    assert lines[2] == "csrc/ops/index/sort.cc:7:1: warning: unused"
    assert lines[3:] == ["built in 0 s, 3 files compiled"]  # the next line would come after ten seconds
    assert (tmp_path / "a" / "log").read_text() == NINJA + GOOD
    assert show(tmp_path, "x\n", 0).stdout.endswith("nothing to compile\n")


def test_a_folder_compiled_as_one_is_named_by_its_path(tmp_path):
    unit = "[1/2] Building CXX object CMakeFiles/_C.dir/Unity/unity_csrc-python-jit_cxx.cxx.o\n"
    assert show(tmp_path, unit, 0).stdout.splitlines()[1].startswith("[1/2] csrc/python/jit, about ")


def test_a_failed_build_shows_why(tmp_path):
    done = show(tmp_path, NINJA + BAD, 3)
    assert done.returncode == 3
    assert "FAILED: _C.so\n/usr/bin/ld: undefined\nthe build failed after 0 s" in done.stdout


def test_the_estimate_is_of_experience_and_of_the_latest_files():
    before = progress.seconds_left(0, 0.0, 150, 2)
    assert before == pytest.approx(150 * progress.CPU_SECONDS_A_FILE / 2)
    assert progress.seconds_left(20, 0.2, 50, 2) < 0.2 * before  # the compiler cache has them
    slow = [progress.seconds_left(min(done, 20), 6.0 * min(done, 20), 150 - done, 2) for done in range(151)]
    assert max(slow) < 900 and slow[-1] == 0 and slow[100] == pytest.approx(50 * 6, rel=0.3)
    assert all(a > b for a, b in itertools.pairwise(slow[40:]))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "5 seconds"), (33, "35 seconds"), (62, "1 minute"), (100, "2 minutes"), (790, "13 minutes")],
)
def test_it_is_told_in_words(seconds, words):
    assert progress.in_words(seconds) == f"about {words} left"


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("target", ["build", "demo", "picture", "examples", "notebooks", "bench", "test-avx2", "slow"])
def test_what_runs_no_googletest_compiles_none(target):
    assert builds(target) == ["_C"]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_the_googletests_are_compiled_for_what_runs_them():
    assert builds("test") == builds("build-tests") == ["everything"]


def builds(target: str) -> list[str]:
    """What `make target` builds, of each time it does."""
    command = ["make", "-n", "-o", ".venv/ready", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    installs = [line for line in done.stdout.replace("\\\n", " ").splitlines() if line.rstrip().endswith(" -e .")]
    assert all("-Ccmake.define.DEEPSEEK_TESTS=ON" in line for line in installs)  # or each would configure anew
    return ["_C" if "-Cbuild.targets=_C " in line else "everything" for line in installs]
