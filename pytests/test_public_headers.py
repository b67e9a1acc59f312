"""The headers that C++ users get: one folder, one prefix, and whatever they include is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    folder = tmp_path_factory.mktemp("headers")
    generated = folder / "generated" / "base"
    generated.mkdir(parents=True)
    shutil.copy(ROOT / "csrc" / "cmake" / "version.h.in", generated / "version.h")
    script = folder / "run.cmake"
    script.write_text(
        f'set(FROM "{ROOT / "csrc"};{folder / "generated"}")\nset(TO "{folder / "include"}")\n'
        f'include("{ROOT / "csrc" / "cmake" / "PublicHeaders.cmake"}")\n',
        encoding="utf-8",
    )
    subprocess.run(["cmake", "-P", script], check=True)
    return folder / "include"


def test_every_include_is_there(headers: Path) -> None:
    missing = []
    for header in [*headers.rglob("*.h"), *headers.rglob("*.def")]:
        for name in INCLUDE.findall(header.read_text(encoding="utf-8")):
            if not name.startswith("hwy/") and not (headers / name).is_file():
                missing.append(f"{header.relative_to(headers)}: {name}")
    assert not missing


def test_the_one_header_needs_no_library_but_ours(headers: Path) -> None:
    """What deepseek.h reaches is ours: users need no Highway and no Python headers to compile."""
    seen, todo = set(), ["deepseek/deepseek.h"]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            assert name.startswith("deepseek/"), name
            todo += INCLUDE.findall((headers / name).read_text(encoding="utf-8"))
    assert {"deepseek/core/tensor.h", "deepseek/optim/optimizer.h", "deepseek/base/version.h"} <= seen
    assert not any(name.startswith("deepseek/python/") for name in seen)


def test_only_the_copy_differs_by_the_prefix(headers: Path) -> None:
    source = (ROOT / "csrc" / "io" / "safetensors.h").read_text(encoding="utf-8")
    copy = (headers / "deepseek" / "io" / "safetensors.h").read_text(encoding="utf-8")
    assert copy != source and copy.replace('#include "deepseek/', '#include "') == source
