"""autocast against torch: every op of its table and their neighbours, in all pairs of dtypes, outside and inside."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import deepseek
import deepseek.nn.functional
import pytest
from autocast_table import TABLE, Call
from torch_bridge import DTYPES, back

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

FLOATS = ("float32", "bfloat16", "float16", "float64")
MODES = (None, "bfloat16", "float16")
# Calls that torch refuses and we do not: its check runs before the cast, or its promotion knows two dtypes only.
BROADER = {
    *("tensordot", "tensordot, one number", "tensordot, 1 x 1"),
    *("cat", "stack", "index_copy", "binary_cross_entropy", "mm, out="),
}
# Outside autocast the operands promote, in either order; torch has a dtype for each order.
PROMOTED = {"binary_cross_entropy_with_logits"}
# Results in a wider dtype than what torch rounds to in between.
ROUNDED = {
    *("bilinear", "bilinear with bias", "linear_cross_entropy", "linear_cross_entropy, none"),
    "cross_entropy, probabilities",
}
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def outcome(library: Any, call: Call, mode: str | None, a: str, b: str) -> Any:
    """The result, or the class of the error."""

    def maker(dtype: Any, *shape: int) -> Any:
        count = 1
        for n in shape:
            count *= n
        return ((library.arange(count, dtype=library.float64) * 0.37 + 0.11) % 1.0).reshape(shape).to(dtype)

    context = library.autocast("cpu", dtype=getattr(library, mode)) if mode else contextlib.nullcontext()
    try:
        with context:
            return call(library, library.nn.functional, maker, getattr(library, a), getattr(library, b))
    except Exception as error:
        return next(base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins")


def difference(ours: Any, theirs: Any, tolerance: float = 0.0) -> str:
    if isinstance(ours, str) or isinstance(theirs, str):
        return "" if ours == theirs else f"{describe(ours)} for torch's {describe(theirs)}"
    if DTYPES[theirs.dtype] is not ours.dtype or tuple(ours.shape) != tuple(theirs.shape):
        return f"{describe(ours)} for torch's {describe(theirs)}"
    x, y = back(ours).double(), theirs.double()
    tolerance = max(tolerance, TOLERANCE[theirs.dtype])
    return "" if torch.allclose(x, y, tolerance, tolerance) else f"{x.tolist()} for torch's {y.tolist()}"


def describe(value: Any) -> str:
    return value if isinstance(value, str) else f"{str(value.dtype).split('.')[-1]} {tuple(value.shape)}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TABLE)
def test_the_table(name: str, mode: str | None) -> None:
    wrong = []
    for a, b in itertools.product(FLOATS, FLOATS):
        ours, theirs = (outcome(library, TABLE[name], mode, a, b) for library in (deepseek, torch))
        coarsest = max(TOLERANCE[getattr(torch, dtype)] for dtype in (mode or a, a, b))
        text = difference(ours, theirs, coarsest if name in ROUNDED else 0.0)
        if theirs == "RuntimeError" and name in BROADER and not isinstance(ours, str):
            continue
        if name in PROMOTED and a != b and not isinstance(ours, str):
            continue
        if text:
            wrong.append(f"{a}, {b}: {text}")
    assert not wrong, "\n".join([f"{name} under {mode}", *wrong])
