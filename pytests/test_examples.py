"""The programs of examples/ run, print what their first lines promise, and say what is missing in one sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
needs_digits = pytest.mark.skipif(find_spec("sklearn") is None, reason="the digits come with scikit-learn")


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def output_of(program: str, *arguments: object) -> str:
    done = run(program, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stderr, done.stderr[-2000:]
    return done.stdout


def test_every_example_says_how_to_run_it_and_fits_on_a_page() -> None:
    programs = sorted(p for p in EXAMPLES.glob("*.py") if not p.name.startswith("_"))
    assert [p.name for p in programs] == ["digits.py", "finetune.py", "gpt.py", "vae.py"]
    for program in programs:
        text = program.read_text(encoding="utf-8")
        assert f"python examples/{program.name}" in text.split('"""')[1], program.name
        assert text.count("\n") <= 110, program.name


@needs_digits
def test_digits() -> None:
    text = output_of("digits.py", "--steps", 400)
    match = re.search(r"([\d.]+)% of 300 held-out digits are right", text)
    assert match and float(match[1]) > 93, text


@needs_digits
def test_vae() -> None:
    text = output_of("vae.py", "--steps", 300)
    match = re.search(r"step +300  drawing ([\d.]+)", text)
    assert match and float(match[1]) < 26, text  # 44 before training
    assert len(text.split("invented:\n")[1].splitlines()) == 8


@pytest.mark.nosan  # minutes under a sanitizer, longer than it waits
def test_gpt_and_finetune(tmp_path: Path) -> None:
    checkpoint = tmp_path / "gpt.ds"
    text = output_of("gpt.py", "--steps", 60, "--out", checkpoint)
    match = re.search(r"step +60  loss ([\d.]+)", text)
    assert match and float(match[1]) < 3.5, text  # 4.6 before training
    text = output_of("finetune.py", checkpoint, "--steps", 30)
    before, after = (float(x) for x in re.findall(r"(?:before|after): ([\d.]+) on code", text))
    assert after < before, text
    assert re.search(r"training ([\d,]+) of ([\d,]+) parameters", text)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    done = run("finetune.py", tmp_path / "none.ds")
    assert done.returncode != 0 and "none.ds" in done.stderr


def test_missing_digits_name_the_package() -> None:
    blocked = (
        "import sys; sys.modules['sklearn'] = sys.modules['sklearn.datasets'] = None; import _digits; _digits.load()"
    )
    done = subprocess.run([sys.executable, "-c", blocked], cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "pip install scikit-learn" in done.stderr and "Traceback" not in done.stderr
