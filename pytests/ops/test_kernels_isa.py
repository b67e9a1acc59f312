"""Fast kernels against float64 on every instruction set this machine can be held to, and proof that they ran.

`DEEPSEEK_ISA` caps what a process may use, so each level is one child process over the table in `isa_cases.py`.
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
from isa_cases import CASES, TOLERANCE, Case
from opinfo.core import FLOATS

HERE = Path(__file__).resolve().parent
NATIVE = str(_C.build_info()["isa"])  # "avx512+vnni+bf16"
# Value of DEEPSEEK_ISA -> the features it leaves. This process's own ("" caps nothing) leaves what it has.
LEVELS = {"avx2": "avx2", "avx512": "avx512", os.environ.get("DEEPSEEK_ISA", ""): NATIVE}
each_level = pytest.mark.parametrize("level", LEVELS, ids=lambda level: level or "native")


def test_asking_for_the_build_does_not_change_what_kernels_run():
    script = """
from deepseek import _C
import deepseek
def targets():
    _C.reset_kernel_counts()
    deepseek.ones(40, 40) @ deepseek.ones(40, 40)
    return sorted({key.partition("/")[2] for key, count in _C.kernel_counts().items() if count and "/" in key})
before = targets()
assert before == ["AVX2"], before
assert _C.build_info()["simd_targets"] == "AVX2"
assert targets() == before, targets()
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "DEEPSEEK_ISA": "avx2"}, check=True)


@functools.cache
def results(level: str) -> dict[str, Any]:
    if level == "avx512" and not NATIVE.startswith("avx512"):
        pytest.skip(f"this machine has {NATIVE}, not avx512")
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])  # isa_cases needs opinfo
    env = {**os.environ, "DEEPSEEK_ISA": level, "DEEPSEEK_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, str(HERE / "isa_cases.py")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["isa"] == LEVELS[level]
    return dict(found["cases"])


def has_bf16_dot(level: str) -> bool:
    return LEVELS[level].endswith("+bf16")


def has_vnni(level: str) -> bool:
    return "+vnni" in LEVELS[level]


def target(level: str) -> str:
    return "AVX3" if LEVELS[level].startswith("avx512") else "AVX2"


def alternatives(route: str, dtype: str, level: str) -> list[str]:
    """The counters of which one must have moved; a product's and a pointwise op's depend on dtype and level."""
    dot = dtype == "bfloat16" and has_bf16_dot(level)
    families = {
        "matmul": ["matmul.bfloat16_dot_rows", "matmul.bfloat16_dot_few_rows", "matmul.bfloat16_dot_many_rows"]
        if dot
        else [f"matmul.{dtype}" if dtype in FLOATS else f"matmul.{dtype}_as_float32"],
        "dot_rows": ["matmul.bfloat16_dot_rows"]
        if dot
        else ["matmul.few_rows_packed", "matmul.many_rows"]
        if dtype == "float64"
        else ["matmul.dot_rows"],
        "qgemm": ["qgemm.vnni" if has_vnni(level) else "qgemm.avx2"],
        "matmul.int8": ["matmul.int8_vnni" if has_vnni(level) else "matmul.int8_avx2"],
        "grouped": ["grouped.bfloat16_dot"]
        if dot
        else [f"grouped.{dtype}" if dtype in FLOATS else f"grouped.{dtype}_as_float32"],
        "4x4": ["matmul.4x4"]
        if dtype == "float32"
        else ["matmul.few_rows", "matmul.few_rows_packed", "matmul.bfloat16_dot_few_rows"],
        "few_rows": ["matmul.bfloat16_dot_few_rows"] if dot else ["matmul.few_rows", "matmul.few_rows_packed"],
        "many_rows": ["matmul.bfloat16_dot_many_rows"] if dot else ["matmul.many_rows"],
        "attention": ["attention.plain", "matmul.float64"]
        if dtype == "float64"
        else ["attention.bfloat16_dot" if dot else "attention.float"],
        "attention_int8": ["attention.plain"]
        if dtype == "float64"
        else ["attention.int8_vnni" if has_vnni(level) else "attention.int8_pairs"],
        "attention_backward": ["attention.plain", "matmul.float64"]
        if dtype == "float64"
        else ["attention.backward_bfloat16_dot" if dot else "attention.backward_float"],
        "block_sparse": ["attention.plain", "matmul.float64"]
        if dtype == "float64"
        else ["block_sparse.bfloat16_dot" if dot else "block_sparse.float"],
        "block_sparse_backward": ["attention.plain", "matmul.float64"]
        if dtype == "float64"
        else ["block_sparse.backward_bfloat16_dot" if dot else "block_sparse.backward_float"],
        "token_sparse": ["attention.plain"]
        if dtype == "float64"
        else ["token_sparse.bfloat16_dot" if dot else "token_sparse.float"],
        "token_sparse_backward": ["attention.plain", "matmul.float64"]
        if dtype == "float64"
        else ["token_sparse.backward_bfloat16_dot" if dot else "token_sparse.backward_float"],
        "select_blocks": ["select_blocks.plain"]
        if dtype == "float64"
        else ["select_blocks.bfloat16_dot" if dot else "select_blocks.float"],
        "index_scores": ["index_scores.plain"]
        if dtype == "float64"
        else ["index_scores.bfloat16_dot" if dot else "index_scores.float"],
        "index_scores_int8": ["index_scores.vnni" if has_vnni(level) else "index_scores.int16"],
        "one_chunk": ["reduce.one_chunk" if dtype in FLOATS else "reduce.rows"],
        "lines": ["softmax.forward_lines"],
        "columns": ["softmax.forward_columns"],
        "spread": ["pointwise.spread" if dtype in FLOATS else "pointwise.blocks"],
        "pointwise": ["pointwise.direct" if dtype in FLOATS else "pointwise.small_floats"],
    }
    return families.get(route, [route])


def without_target(routes: dict[str, int], level: str) -> set[str]:
    other = "/AVX2" if target(level) == "AVX3" else "/AVX3"
    assert not [key for key in routes if key.endswith(other)], "a kernel of another instruction set ran"
    return {key.split("/")[0] for key in routes}


def wants_gradients(case: Case) -> bool:
    row = _C.op_table().get(case.name)
    return any(spec.grad for spec in case.sample.specs()) and (row is None or row.composite or row.differentiable)


@each_level
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_kernel_equals_float64(level: str, case: Case, dtype: str) -> None:
    found = results(level)[f"{case} [{dtype}]"]
    assert found["error"] <= TOLERANCE[dtype] * case.tol
    assert found["gradients"] == wants_gradients(case)
    ran = without_target(found["routes"], level)
    for route in case.routes:
        allowed = alternatives(route, dtype, level)
        assert ran & set(allowed), f"none of {allowed} ran, but {sorted(ran)}"


@each_level
def test_every_route_runs(level: str) -> None:
    """A route that no case takes is one that could go unused, and unchecked, unseen."""
    ran = {key for found in results(level).values() for key in found["routes"]}
    mine = [key for key in _C.kernel_counts() if "/" not in key or key.endswith(target(level))]
    unused = [key for key in mine if key not in ran]
    # bfloat16 products are dot products, or read as float32 where the CPU has none.
    idle = (
        "bfloat16_as_float32" if has_bf16_dot(level) else "bfloat16_dot",
        *(
            ("qgemm.avx2", "matmul.int8_avx2", "index_scores.int16", "attention.int8_pairs")
            if has_vnni(level)
            else ("qgemm.vnni", "matmul.int8_vnni", "index_scores.vnni", "attention.int8_vnni")
        ),
    )
    assert [key for key in unused if not any(part in key for part in idle)] == []
    assert not [key for key in ran if any(part in key for part in idle)]


def test_every_fused_op_has_a_case() -> None:
    """Derivatives that are ops of their own run in the gradient of the op they belong to."""
    fused = {name.removesuffix("_backward") for name, row in _C.op_table().items() if row.has_composite}
    assert fused <= {case.name for case in CASES}


def test_counters_start_over() -> None:
    _C.reset_kernel_counts()
    assert set(_C.kernel_counts().values()) == {0}
