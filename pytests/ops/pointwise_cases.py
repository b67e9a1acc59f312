"""How far pointwise ops are from the references of `opinfo`, in units of the last place. `test_pointwise.py` runs this
file as a program for each instruction set: it prints the worst of each op and dtype as JSON.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepseek
import numpy as np
from deepseek import _C
from opinfo import REGISTRY
from opinfo.core import FLOATS, INTS

ROWS = Path(__file__).resolve().parents[2] / "csrc" / "kernels" / "pointwise"


@dataclass(frozen=True)
class Range:
    """Where a row is checked, and how near it has to be: beyond `ulps`, or the same share of `floor` numbers of size 1,
    for functions that lose relative accuracy near their zeros."""

    ulps: float = 8.0
    lo: float = -2.0
    hi: float = 2.0
    special: bool = False  # also zeros, infinities, NaN, tiny and huge values
    floor: float = 0.0
    integers: tuple[int, int] = (-(2**63), 2**63 - 1)  # wrapped to the dtype
    divides: bool = False  # the second integer is not 0


def _ranges(special: bool, ulps: float, names: str, lo: float = -8.0, hi: float = 8.0, **more: Any) -> dict[str, Range]:
    return {name: Range(ulps, lo, hi, special, **more) for name in names.split()}


# A row that is not named here takes the range above.
RANGES = {
    **_ranges(True, 2, "exp", -80, 80),
    **_ranges(True, 4, "exp2", -100, 100),
    **_ranges(True, 4, "expm1 sinh cosh", -20, 20),
    **_ranges(True, 4, "log log2 log10", 0, 100),
    **_ranges(True, 4, "log1p", -1, 100),
    **_ranges(True, 0.5, "sqrt", 0, 1e6),
    **_ranges(True, 1.5, "rsqrt", 0, 1e6),
    **_ranges(True, 4, "sin cos tan", -100, 100, floor=0.5),
    **_ranges(True, 4, "asin acos atanh", -1, 1),
    **_ranges(True, 4, "acosh", 1, 50),
    **_ranges(True, 4, "atan tanh asinh sigmoid logsigmoid atan2 hypot"),
    **_ranges(True, 4, "erf erfc", -4, 4),
    **_ranges(False, 5, "silu"),
    **_ranges(False, 6, "_gelu_erf _gelu_tanh", floor=8),
    **_ranges(True, 0, "relu neg abs floor ceil round trunc frac isnan isinf isfinite isposinf isneginf logical_not"),
    **_ranges(False, 0, "sign signbit"),
    **_ranges(True, 0.5, "reciprocal square add sub mul div"),
    **_ranges(True, 0, "maximum minimum fmax fmin copysign _clamp_min _clamp_max where"),
    **_ranges(True, 0, "eq ne lt le gt ge logical_and logical_or logical_xor"),
    **_ranges(True, 0, "_div_trunc fmod", integers=(-1000, 1000), divides=True),
    **_ranges(False, 0, "floor_divide", integers=(-1000, 1000), divides=True),
    **_ranges(False, 0.5, "remainder", integers=(-1000, 1000), divides=True),
    **_ranges(True, 4, "pow", 0, 8, integers=(0, 100)),
    **_ranges(True, 4, "logaddexp", floor=2),
    **_ranges(False, 4, "_tanh_backward", -1, 1, floor=4),
    **_ranges(False, 4, "_sigmoid_backward", 0, 1, floor=4),
    **_ranges(False, 8, "_silu_backward _gelu_erf_backward", floor=16),
    **_ranges(False, 8, "_gelu_tanh_backward", floor=32),
    **_ranges(False, 6, "swiglu"),
    **_ranges(False, 8, "_swiglu_backward", floor=128),
    **_ranges(False, 0.5, "_leaky_relu"),
    **_ranges(False, 5, "_elu"),
    **_ranges(False, 5, "_softplus", 0.1, 8),
    **_ranges(False, 1, "_add_scaled _addcmul", floor=64),
    **_ranges(False, 2, "lerp", floor=128),
    **_ranges(False, 0, "_clamp"),
    **_ranges(False, 0, "bitwise_left_shift bitwise_right_shift", integers=(0, 7)),
}
SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 1e30, 0.5, -0.5, 2.5, 3.0)


def rows() -> list[str]:
    """The names of all rows."""
    text = "".join(file.read_text(encoding="utf-8") for file in sorted(ROWS.rglob("*.def")))
    return re.findall(r"^DS_POINTWISE(?:_SCALED)?\(\w+, (\w+),", text, re.MULTILINE)


def range_of(name: str) -> Range:
    return RANGES.get(name, Range())


def _kinds(name: str) -> list[str]:
    """Of the op's tensors: "float" where they take the dtype under test, or "bool"."""
    tensors = [a for a in _C.op_table()[name].arguments if a[1].startswith("Tensor")]
    first = next(REGISTRY[name].samples[0].specs())
    return [first.kind if i == 0 and first.kind == "bool" and name == "where" else "float" for i in range(len(tensors))]


def floats(name: str, dtype: str) -> list[np.ndarray]:
    where, rng = range_of(name), np.random.default_rng(17)
    made = []
    for k, kind in enumerate(_kinds(name)):
        pairs = np.array([pair[k % 2] for pair in itertools.product(SPECIAL, repeat=2)]) if where.special else []
        array = np.concatenate([pairs, rng.uniform(where.lo, where.hi, 1000)]).astype(dtype)
        made.append(array != 0 if kind == "bool" else array)
    return made


def integers(name: str, dtype: str) -> list[np.ndarray]:
    where, rng = range_of(name), np.random.default_rng(3)
    made = []
    for k, kind in enumerate(_kinds(name)):
        array = rng.integers(*where.integers, 501, endpoint=True).astype(dtype)
        if where.divides and k == 1:
            array[array == 0] = 1
        made.append(array % 2 == 0 if kind == "bool" else array)
    return made


def distance(got: np.ndarray, expected: np.ndarray, floor: float) -> np.ndarray:
    """In units of the last place of what is expected."""
    if got.dtype.kind != "f":
        return np.where(got == expected, 0.0, np.inf)
    rounded = expected.astype(got.dtype)
    unit = np.spacing(np.maximum(np.abs(rounded), np.finfo(got.dtype).tiny)).astype(np.longdouble)
    off = np.abs(got.astype(np.longdouble) - expected) / np.maximum(unit, floor * np.finfo(got.dtype).eps)
    off = np.where((got == rounded) | (np.isnan(got) & np.isnan(rounded)), 0, off)
    return np.where(np.isnan(off), np.inf, off)


def worst(name: str, dtype: str) -> dict[str, Any]:
    inputs = integers(name, dtype) if dtype in INTS else floats(name, dtype)
    wide = [a.astype(np.longdouble) if a.dtype.kind == "f" else a for a in inputs]
    with np.errstate(all="ignore"):
        got = _C.op_call(name, *map(deepseek.from_numpy, inputs)).numpy()
        expected = np.asarray(REGISTRY[name].ref(*wide))  # type: ignore[misc]
        off = distance(got, expected, range_of(name).floor)
    at = int(off.argmax())
    return {"off": float(off[at]), "of": [str(a[at]) for a in inputs], "got": str(got[at]), "want": str(expected[at])}


def main() -> None:
    found = {}
    for name in rows():
        info = REGISTRY[name]
        for dtype in (*FLOATS, *INTS):
            if dtype in (*info.floats, *info.ints) and not (dtype in INTS and info.out == "float"):
                found[f"{name} [{dtype}]"] = worst(name, dtype)
    print(json.dumps({"isa": _C.build_info()["isa"], "cases": found}))


if __name__ == "__main__":
    main()
