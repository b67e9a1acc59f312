"""Quantized weights: codes and scales of a matrix, its values, and products with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .core import A, E, I, S, T, assert_close, op, to_numpy

OFFSET = {"int8": 0, "int4": 8, "fp8": 0}
RNG = np.random.default_rng(3)


def values(codes: Any, scales: Any, zeros: Any, name: str, block: int, columns: int) -> np.ndarray:
    """The matrix in float64."""
    c, s = to_numpy(codes), to_numpy(scales)
    if name.startswith("int4"):
        c = np.stack([c & 15, c >> 4], -1).reshape(c.shape[0], 2 * c.shape[1])[:, :columns]
    every = block or max(columns, 1)
    at = np.arange(columns) // every
    rows = np.arange(c.shape[0]) // (128 if name == "fp8" else 1)
    zero = to_numpy(zeros).astype(float)[:, at] if name == "int4_zero" else OFFSET[name]
    return s[rows][:, at] * (c.astype(float) - zero)


def check_quantize(result: Any, w: Any, name: str = "int4", block: int = 32) -> None:
    codes, scales, zeros = result
    w = to_numpy(w)
    back = values(codes, scales, zeros, name, block, w.shape[1])
    most = np.abs(w).max(initial=0)
    steps = {"int8": 254, "int4": 8, "int4_zero": 14, "fp8": 16}[name]
    assert back.shape == w.shape and (np.abs(back - w) <= 1.01 * most / steps).all()


def check_dequantize(
    result: Any, codes: Any, scales: Any, zeros: Any, name: str, block: int, columns: int, *, dtype: Any = None
) -> None:
    kind = str(result.dtype).split(".")[-1]
    assert_close(result, values(codes, scales, zeros, name, block, columns), kind)


def check_qlinear(result: Any, x: Any, codes: Any, scales: Any, zeros: Any, bias: Any, name: str, block: int) -> None:
    """Rows of x in steps of max |x| / 127, times the values."""
    a = to_numpy(x)
    step = np.abs(a).max(-1, keepdims=True, initial=0) / 127
    if name != "fp8":
        a = np.rint(a / np.where(step > 0, step, 1)) * step
    want = a @ values(codes, scales, zeros, name, block, a.shape[-1]).T
    kind = str(result.dtype).split(".")[-1]
    kind = "float32" if kind == "float64" else kind
    got = to_numpy(result)
    want = want if bias is None else want + to_numpy(bias)
    # A value of x between two steps may be taken for either: float32 rounds before.
    slack = 0.01 * np.abs(step).max(initial=0) * np.abs(want).max(initial=0) + {"bfloat16": 1e-2}.get(kind, 2e-3)
    assert got.shape == want.shape and (np.abs(got - want) <= slack * (1 + np.abs(want))).all()


FOUR = ("int4", 32)


def nibbles(n: int, k: int) -> Any:
    """Codes of rows of k; the half byte behind an odd row is zero."""
    codes = RNG.integers(0, 256, (n, (k + 1) // 2))
    codes[:, -1:] &= 15 if k % 2 else 255
    return A(codes, dtype="uint8")


def scales(*shape: int) -> Any:
    return T(*shape, lo=0.01, hi=0.1, grad=False, dtype="float32")


FORMATS = [("int4", 32), ("int4", 64), ("int4_zero", 32), ("int4_zero", 128), ("int8", 0), ("int8", 32), ("fp8", 128)]
op(
    "_quantize", None, S(T(3, 70), "int8", block=0), S(T(3, 70), "int8"), S(T(3, 70), "int8", 64), S(T(3, 70)),
    *[S(T(5, 130), *f) for f in FORMATS],
    *[S(T(0, 3), *f) for f in FORMATS], S(T(3, 0), "int8", 32),
    check=check_quantize, grad=False, out="int8", scalar=False,
    errors=[
        E(ValueError, "'int4_zero' or 'fp8', got 'int3'", T(3, 4), "int3", 32),
        E(ValueError, "takes blocks of 32, 64 or 128, got 7", T(3, 4), "int4", 7),
        E(RuntimeError, r"matrix \[N, K\]", T(3), "int8", 0),
        E(NotImplementedError, "int64", A([[1, 2]]), "int8", 0),
    ],
    big=[S(T(300, 401), *f) for f in FORMATS],
    no_rows="a result's dtype depends on the format, and tiles of fp8 share scales over rows",
)  # fmt: skip
DEQUANTIZED = [
    S(nibbles(5, 70), scales(5, 3), None, "int4", 32, 70), S(nibbles(5, 71), scales(5, 3), None, "int4", 32, 71),
    S(nibbles(4, 66), scales(4, 2), I(4, 2, hi=16, dtype="uint8"), "int4_zero", 64, 66),
    S(I(3, 9, lo=-128, hi=128, dtype="int8"), scales(3, 1), None, "int8", 0, 9),
    S(I(3, 70, lo=-128, hi=128, dtype="int8"), scales(3, 3), None, "int8", 32, 70),
    S(I(0, 9, dtype="int8"), scales(0, 1), None, "int8", 0, 9),
]  # fmt: skip
op(
    "_dequantize", None, *DEQUANTIZED,
    check=check_dequantize, grad=False, out="float32", scalar=False, low=(),
    errors=[
        E(RuntimeError, "do not hold rows of 80 values", nibbles(5, 70), scales(5, 3), None, "int4", 32, 80),
        E(RuntimeError, r"float32 of shape \[5, 3\]", nibbles(5, 70), scales(5, 2), None, "int4", 32, 70),
        E(RuntimeError, "needs zeros", nibbles(5, 70), scales(5, 3), None, "int4_zero", 32, 70),
        E(RuntimeError, "codes of format 'int4' are", I(5, 35, dtype="int8"), scales(5, 3), None, "int4", 32, 70),
    ],
    big=[S(nibbles(300, 401), scales(300, 13), None, "int4", 32, 401)],
    no_rows="codes, scales and zero points have rows, but the dtype under test is none of theirs",
)  # fmt: skip


def product(name: str, block: int, n: int, k: int, *lead: int, bias: bool = True) -> Any:
    """x [*lead, k] times [n, k]."""
    every = block or k
    sides = (n, -(-k // every))
    codes = I(n, k, lo=-128, hi=128, dtype="int8") if name == "int8" else nibbles(n, k)
    zero = I(*sides, hi=16, dtype="uint8") if name == "int4_zero" else None
    return S(T(*lead, k), codes, scales(*sides), zero, T(n) if bias else None, name, block=block).but(
        grad=False, gradgrad=False
    )


ZEROS = I(5, 3, hi=16, dtype="uint8")
op(
    "_qlinear", None,
    product("int4", 32, 5, 70, 3), product("int4", 32, 5, 70, 2, 4, bias=False),
    product("int4_zero", 64, 17, 71, 4), product("int8", 0, 6, 9, 4), product("int8", 32, 6, 70),
    product("int4", 128, 3, 1, 2),
    S(T(0, 70), nibbles(5, 70), scales(5, 3), None, T(5), *FOUR),
    S(T(3, 70), nibbles(0, 70), scales(0, 3), None, None, *FOUR),
    S(T(3, 0), I(4, 0, dtype="int8"), scales(4, 0), None, T(4), "int8", 32),
    check=check_qlinear, scalar=False, noncontig=True,
    errors=[
        E(RuntimeError, "do not hold rows of 80 values", T(2, 80), nibbles(5, 70), scales(5, 3), None, None, *FOUR),
        E(RuntimeError, "bias must be", T(2, 70), nibbles(5, 70), scales(5, 3), None, T(4), *FOUR),
        E(RuntimeError, "has no zero points", T(2, 70), nibbles(5, 70), scales(5, 3), ZEROS, None, *FOUR),
        E(NotImplementedError, "int64", I(2, 70), nibbles(5, 70), scales(5, 3), None, None, *FOUR),
        E(ValueError, "takes blocks", T(2, 70), nibbles(5, 70), scales(5, 3), None, None, "int4", 33),
    ],
    big=[product("int4", 32, 150, 301, 37)],
    rows=[product("int4", 32, 19, 301, 37), product("int8", 0, 19, 70, 37), product("int4_zero", 32, 33, 128, 23)],
)  # fmt: skip
