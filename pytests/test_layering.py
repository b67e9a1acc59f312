"""The layers of csrc/: a lower layer never includes a higher one, and third-party headers stay in their folder."""

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[1] / "csrc"

# Folders on one line are siblings and do not include each other.
LAYERS = [
    ["base"],
    ["runtime"],
    ["kernels"],
    ["core"],
    ["ops"],
    ["autograd", "jit", "quant", "dist", "io", "optim"],
    ["serve"],
    ["api"],
    ["python"],
]
RANK = {folder: rank for rank, folders in enumerate(LAYERS) for folder in folders}

# Header pattern -> the only folder that may include it.
HOMES = {
    r"hwy/": "kernels",
    r"(cblas|lapacke?|f77blas|openblas_config)(\.h|$)": "kernels",
    r"(oneapi/)?dnnl": "kernels",
    r"(Python\.h|pybind11/|numpy/)": "python",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def violations(root: Path) -> list[str]:
    """Every include under `root` that breaks a rule, as "file: reason"."""
    found = []
    for path in sorted(p for p in root.rglob("*") if p.suffix in {".h", ".cc", ".def", ".inc"}):
        name = path.relative_to(root).as_posix()
        folder = name.split("/")[0]
        if folder not in RANK:
            found.append(f"{name}: {folder!r} is not a layer")
            continue
        for bracket, header in INCLUDE.findall(path.read_text(encoding="utf-8")):
            reason = third_party_reason(folder, header) or (bracket == '"' and layer_reason(folder, header))
            if reason:
                found.append(f"{name}: {reason}")
    return found


def third_party_reason(folder: str, header: str) -> str:
    for pattern, home in HOMES.items():
        if re.match(pattern, header) and folder != home:
            return f"only {home}/ may include <{header}>"
    return ""


def layer_reason(folder: str, header: str) -> str:
    target = header.split("/")[0]
    if any(re.match(pattern, header) for pattern in HOMES):
        return ""
    if target not in RANK:
        return f'"{header}" is not written relative to csrc'
    if RANK[target] > RANK[folder]:
        return f'"{header}" lies above {folder}/'
    if RANK[target] == RANK[folder] and target != folder:
        return f'"{header}" is a sibling of {folder}/'
    return ""


def test_layers_of_csrc():
    assert [p.name for p in CSRC.glob("*.*")] == [], "sources belong in a layer's folder"
    assert list(CSRC.rglob("*.h")), "no headers found: the check would pass on nothing"
    assert violations(CSRC) == []


@pytest.mark.parametrize(
    ("file", "include", "reason"),
    [
        ("base/a.h", '#include "core/tensor.h"', "lies above base/"),
        ("kernels/a.cc", '#include "core/tensor.h"', "lies above kernels/"),
        ("ops/a.cc", '  #  include "autograd/engine.h"', "lies above ops/"),
        ("io/a.cc", '#include "quant/packed.h"', "is a sibling of io/"),
        ("ops/a.cc", '#include "tensor.h"', "is not written relative to csrc"),
        ("ops/a.cc", "#include <hwy/highway.h>", "only kernels/"),
        ("ops/a.cc", '#include "hwy/highway.h"', "only kernels/"),
        ("core/a.h", "#include <cblas.h>", "only kernels/"),
        ("runtime/a.cc", "#include <dnnl.hpp>", "only kernels/"),
        ("runtime/a.cc", '#include "oneapi/dnnl/dnnl.h"', "only kernels/"),
        ("core/a.h", "#include <Python.h>", "only python/"),
        ("serve/a.cc", "#include <pybind11/pybind11.h>", "only python/"),
        ("extra/a.cc", "", "is not a layer"),
    ],
)
def test_each_rule_catches_its_violation(tmp_path, file, include, reason):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(include + "\n")
    (found,) = violations(tmp_path)
    assert reason in found


def test_allowed_includes_pass(tmp_path):
    for file, include in [
        ("kernels/a.cc", '#include <hwy/highway.h>\n#include <cblas.h>\n#include "base/view.h"'),
        ("kernels/b.cc", '#include "hwy/foreach_target.h"\n#include "kernels/a.h"'),
        ("python/a.cc", '#include <Python.h>\n#include "serve/server.h"'),
        ("ops/a.cc", "#include <vector>\n// comment: Python.h"),
    ]:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(include + "\n")
    assert violations(tmp_path) == []
