"""Whoever adds a dtype, or another kind of something, is told by the compiler where it matters."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SOURCES = sorted(p for p in CSRC.rglob("*") if p.suffix in (".cc", ".h", ".inc", ".def"))


def switches(text: str) -> list[str]:
    """What is in each switch of a source."""
    found = []
    for start in re.finditer(r"\bswitch \(.*\) \{", text):
        depth, at = 1, start.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        found.append(text[start.end() : at])
    return found


def takes_unknown_ones(body: str) -> bool:
    """Whether it is over an enum and has a default, which -Wswitch takes for an answer to every case."""
    return bool(re.search(r"\bcase (\w+::)+k\w+", body) and re.search(r"\bdefault:", body))


def test_the_rule_sees_what_it_forbids() -> None:
    wrong = "switch (t) {\n  case DType::kBool:\n    return {1};\n  default:\n    return {2};\n}\nint after() {}"
    (body,) = switches(wrong)
    assert takes_unknown_ones(body) and "after" not in body
    assert not takes_unknown_ones(switches(wrong.replace("default:", "case DType::kInt8:"))[0])
    assert not takes_unknown_ones(switches("switch (c) { case 'a': return 1; default: return 2; }")[0])


@pytest.mark.parametrize("path", [p for p in SOURCES if "switch (" in p.read_text()], ids=lambda p: p.name)
def test_switches_over_enums_have_no_default(path: Path) -> None:
    for body in switches(path.read_text()):
        assert not takes_unknown_ones(body), f"{path.relative_to(ROOT)}: name every case instead of default:\n{body}"


def test_a_switch_that_misses_a_case_does_not_compile(tmp_path: Path) -> None:
    # One target has the warnings, and all that compiles our sources has it.
    cmake = (ROOT / "CMakeLists.txt").read_text()
    options = re.findall(r"target_compile_options\((\w+) .*-Wall.*\)", cmake)
    assert options == ["deepseek_settings"] and "-Wall -Wextra -Werror=switch" in cmake
    assert "-Wall" not in (ROOT / "tests" / "CMakeLists.txt").read_text()
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler")
    names = re.findall(r"X\([\w ]+, (k\w+), \"", (CSRC / "base" / "dtype.h").read_text())
    assert {"kBool", "kFloat64"} < set(names)

    def compiles(cases: list[str]) -> bool:
        source = tmp_path / "a.cc"
        lines = "".join(f"case deepseek::DType::{name}: return 1;\n" for name in cases)
        source.write_text(
            f'#include "base/dtype.h"\nint f(deepseek::DType t) {{\nswitch (t) {{\n{lines}}}\nreturn 0; }}'
        )
        command = [
            compiler,
            "-std=c++20",
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Werror=switch",
            f"-I{CSRC}",
            str(source),
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert compiles(names)
    assert not compiles(names[:-1])
