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
# The folders of kernels/, in the same way. No file lies in kernels/ itself.
KERNEL_LAYERS = [
    ["simd"],
    ["loops"],
    ["pointwise", "reduce", "index", "random"],
    ["gemm"],
    ["nn", "quant", "optim"],
    ["attention", "moe"],
    ["sparse_attention"],
]


def ranks(layers: list[list[str]]) -> dict[str, int]:
    return {folder: rank for rank, folders in enumerate(layers) for folder in folders}


RANK = ranks(LAYERS)
INNER = {"kernels": ranks(KERNEL_LAYERS)}  # layers that have layers

# Header pattern -> the only folder that may include it. pybind11.h costs a file seconds, and so does our header on it.
HOMES = {
    r"hwy/": "kernels",
    r"(cblas|lapacke?|f77blas|openblas_config)(\.h|$)": "kernels",
    r"(oneapi/)?dnnl": "kernels",
    r"(Python\.h|numpy/)": "python",
    r"(pybind11/|python/bind/)": "python/bind",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def violations(root: Path) -> list[str]:
    """Every include under `root` that breaks a rule, as "file: reason"."""
    found = []
    for path in sorted(p for p in root.rglob("*") if p.suffix in {".h", ".cc", ".def", ".inc"}):
        name = path.relative_to(root).as_posix()
        reason = place_reason(name)
        if reason:
            found.append(f"{name}: {reason}")
            continue
        for bracket, header in INCLUDE.findall(path.read_text(encoding="utf-8")):
            reason = third_party_reason(name, header) or (bracket == '"' and layer_reason(name, header))
            if reason:
                found.append(f"{name}: {reason}")
    return found


def place_reason(name: str) -> str:
    layer, _, rest = name.partition("/")
    if layer not in RANK:
        return f"{layer!r} is not a layer"
    inner = rest.split("/")[0]
    if layer in INNER and inner not in INNER[layer]:
        return f"{inner!r} is not a folder of {layer}/"
    return ""


def third_party_reason(name: str, header: str) -> str:
    for pattern, home in HOMES.items():
        if re.match(pattern, header) and not name.startswith(f"{home}/"):
            return f"only {home}/ may include <{header}>"
    return ""


def layer_reason(name: str, header: str) -> str:
    if any(re.match(pattern, header) for pattern in HOMES):
        return ""
    layer, inner, *_ = name.split("/")
    target, *below = header.split("/")
    if target not in RANK or not below or place_reason(header):
        return f'"{header}" is not written relative to csrc'
    if target == layer and layer in INNER:
        return order_reason(INNER[layer], inner, below[0], header)
    return order_reason(RANK, layer, target, header)


def order_reason(rank: dict[str, int], folder: str, target: str, header: str) -> str:
    if rank[target] > rank[folder]:
        return f'"{header}" lies above {folder}/'
    if rank[target] == rank[folder] and target != folder:
        return f'"{header}" is a sibling of {folder}/'
    return ""


def test_layers_of_csrc():
    assert [p.name for p in CSRC.glob("*.*")] == [], "sources belong in a layer's folder"
    assert list(CSRC.rglob("*.h")), "no headers found: the check would pass on nothing"
    assert violations(CSRC) == []


@pytest.mark.parametrize("tree", ["csrc", "pytests/opinfo"])
def test_folders_fit_on_one_screen(tree):
    """Past the 24 lines of a terminal a folder is divided by purpose, as `kernels/attention/` is."""
    root = CSRC.parent / tree
    files = [path.parent.relative_to(root).as_posix() for path in root.rglob("*.*") if "__pycache__" not in path.parts]
    assert len(files) > 20, "not all files found: the check would pass on nothing"
    assert {folder: files.count(folder) for folder in files if files.count(folder) > 24} == {}


def test_cpp_tests_mirror_csrc():
    """x_test.cc lies in the folder of tests/ whose name is that of the code it tests."""
    tests = CSRC.parent / "tests"
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("*_test.cc")}
    assert "kernels/simd" in folders, "not all tests found: the check would pass on nothing"
    assert [f for f in sorted(folders) if f == "." or not list((CSRC / f).glob("*.h"))] == []


def test_few_files_pay_for_pybind11():
    assert len(list((CSRC / "python" / "bind").glob("*.cc"))) <= 8


@pytest.mark.parametrize(
    ("file", "include", "reason"),
    [
        ("base/a.h", '#include "core/tensor.h"', "lies above base/"),
        ("kernels/nn/a.cc", '#include "core/tensor.h"', "lies above kernels/"),
        ("kernels/gemm/a.cc", '#include "kernels/nn/norm.h"', "lies above gemm/"),
        ("kernels/simd/a-inl.h", '#include "kernels/loops/copy.h"', "lies above simd/"),
        ("kernels/moe/a.h", '#include "kernels/attention/attention.h"', "is a sibling of moe/"),
        ("kernels/index/a.cc", '#include "kernels/reduce/reduce.h"', "is a sibling of index/"),
        ("kernels/a.cc", "", "is not a folder of kernels/"),
        ("kernels/extra/a.cc", "", "is not a folder of kernels/"),
        ("kernels/nn/a.cc", '#include "kernels/a.h"', "is not written relative to csrc"),
        ("ops/a.cc", '#include "kernels/a.h"', "is not written relative to csrc"),
        ("ops/a.cc", '#include "kernels"', "is not written relative to csrc"),
        ("ops/a.cc", '  #  include "autograd/engine.h"', "lies above ops/"),
        ("io/a.cc", '#include "quant/packed.h"', "is a sibling of io/"),
        ("ops/a.cc", '#include "tensor.h"', "is not written relative to csrc"),
        ("ops/a.cc", "#include <hwy/highway.h>", "only kernels/"),
        ("ops/a.cc", '#include "hwy/highway.h"', "only kernels/"),
        ("core/a.h", "#include <cblas.h>", "only kernels/"),
        ("runtime/a.cc", "#include <dnnl.hpp>", "only kernels/"),
        ("runtime/a.cc", '#include "oneapi/dnnl/dnnl.h"', "only kernels/"),
        ("core/a.h", "#include <Python.h>", "only python/"),
        ("serve/a.cc", "#include <pybind11/pybind11.h>", "only python/bind/"),
        ("python/a.cc", "#include <pybind11/pybind11.h>", "only python/bind/"),
        ("python/a.h", '#include "pybind11/stl.h"', "only python/bind/"),
        ("python/jit/a.cc", '#include "python/bind/bind.h"', "only python/bind/"),
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
        ("kernels/nn/a.cc", '#include <hwy/highway.h>\n#include <cblas.h>\n#include "base/view.h"'),
        ("kernels/nn/b.cc", '#include "hwy/foreach_target.h"\n#include "kernels/nn/a.h"\n#include "kernels/gemm/a.h"'),
        ("ops/b.cc", '#include "kernels/sparse_attention/a.h"'),
        ("python/a.cc", '#include <Python.h>\n#include "serve/server.h"'),
        ("ops/a.cc", "#include <vector>\n// comment: Python.h"),
    ]:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(include + "\n")
    assert violations(tmp_path) == []
