"""What mypy --strict says about programs that use the package: files in typed/, and every public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import deepseek
import pytest
from public_api import modules, public_names

pytest.importorskip("mypy")
pytestmark = pytest.mark.nosan  # mypy does not load the module that a sanitized build makes

TYPED = Path(__file__).parent / "typed"
PACKAGE = Path(deepseek.__file__).parents[1]
MESSAGE = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): (?P<kind>error|note): (?P<text>.*?)(  \[(?P<code>[\w-]+)\])?$")
Found = dict[tuple[str, int], list[str]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """(file, line) -> what mypy says: codes of errors, texts of notes."""
    folder = tmp_path_factory.mktemp("typed")
    for path in TYPED.glob("*.py"):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    lines = [f"import {module.__name__}" for module in modules()]
    lines += [f"{module.__name__}.{name}" for module in modules() for name in public_names(module)]
    (folder / "names.py").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file="]
    command += ["--no-error-summary", "--cache-dir", str(Path.cwd() / ".mypy_cache"), *map(str, folder.glob("*.py"))]
    environment = os.environ | {"MYPYPATH": str(PACKAGE)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    said: Found = {}
    for text in done.stdout.splitlines():
        match = MESSAGE.match(text)
        assert match, text
        place = (Path(match["file"]).name, int(match["line"]))
        said.setdefault(place, []).append(match["code"] or match["text"])
    return said


def expected(name: str) -> dict[int, str]:
    """Line -> what its comment says."""
    lines = (TYPED / name).read_text(encoding="utf-8").splitlines()
    return {i: line.rpartition("  # ")[2] for i, line in enumerate(lines, 1) if "  # " in line}


def test_programs_are_accepted(found: Found) -> None:
    assert not {place: said for place, said in found.items() if place[0] == "accepted.py"}


def test_every_public_name_is_known(found: Found) -> None:
    assert not {place: said for place, said in found.items() if place[0] == "names.py"}


def test_mistakes_are_found(found: Found) -> None:
    said = {line: texts[0] for (name, line), texts in found.items() if name == "refused.py"}
    assert said == expected("refused.py")


def test_types_are_given(found: Found) -> None:
    prefix = re.compile(r"\b(deepseek|builtins|typing)(\.\w+)*\.(?=\w)")
    said = {}
    for (name, line), texts in found.items():
        if name == "revealed.py":
            said[line] = prefix.sub("", texts[0]).removeprefix('Revealed type is "').removesuffix('"')
    assert said == expected("revealed.py")
