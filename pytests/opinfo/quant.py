"""Quantized weights: codes and scales of a matrix, its values, and products with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from deepseek import _C
from deepseek.quantization._formats import FORMATS, format_named

from .core import A, E, I, S, T, assert_close, op, to_numpy

SHAPE = r"must be"
# Of every format: what a code c with the zero point z stands for, in scales, and into how many steps the largest value
# is cut.
MEANING = {
    "int8": (lambda c, z: c, 254),
    "int4": (lambda c, z: c - 8, 8),
    "int4_zero": (lambda c, z: c - z, 14),
    "fp8": (lambda c, z: c, 16),
}
RNG = np.random.default_rng(3)


def numpy_of(x: Any) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else to_numpy(x)


def values(codes: Any, scales: Any, zeros: Any, name: str, block: int, columns: int) -> np.ndarray:
    """The matrix, or stack of matrices, in float64."""
    c, s, form = numpy_of(codes), numpy_of(scales), format_named(name)
    if c.ndim == 3:
        z = numpy_of(zeros) if form.has_zeros else [None] * len(c)
        return np.array([values(*part, name, block, columns) for part in zip(c, s, z, strict=True)]).reshape(
            *c.shape[:2], columns
        )
    if form.per_byte == 2:
        c = np.stack([c & 15, c >> 4], -1).reshape(c.shape[0], 2 * c.shape[1])[:, :columns]
    every = block or max(columns, 1)
    at = np.arange(columns) // every
    rows = np.arange(c.shape[0]) // form.rows
    zero = numpy_of(zeros).astype(float)[:, at] if form.has_zeros else 0
    return s[rows][:, at] * MEANING[name][0](c.astype(float), zero)


def check_quantize(result: Any, w: Any, name: str = "int4", block: int = 32) -> None:
    codes, scales, zeros = result
    w = to_numpy(w)
    back = values(codes, scales, zeros, name, block, w.shape[-1])
    most = np.abs(w).max(initial=0)
    assert back.shape == w.shape and (np.abs(back - w) <= 1.01 * most / MEANING[name][1]).all()


def check_dequantize(
    result: Any, codes: Any, scales: Any, zeros: Any, name: str, block: int, columns: int, *, dtype: Any = None
) -> None:
    kind = str(result.dtype).split(".")[-1]
    assert_close(result, values(codes, scales, zeros, name, block, columns), kind)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def check_fused_qlinear(
    result: Any, x: Any, codes: Any, scales: Any, zeros: Any, bias: Any, residual: Any, name: str, block: int,
    activation: str,
) -> None:  # fmt: skip
    """Rows of x in steps of max |x| / 127, times the values."""
    a = to_numpy(x)
    step = np.abs(a).max(-1, keepdims=True, initial=0) / 127
    if format_named(name).whole_numbers:
        a = np.rint(a / np.where(step > 0, step, 1)) * step
    want = a @ values(codes, scales, zeros, name, block, a.shape[-1]).T
    kind = str(result.dtype).split(".")[-1]
    kind = "float32" if kind == "float64" else kind
    got = to_numpy(result)
    want = want if bias is None else want + to_numpy(bias)
    # A value of x between two steps may be taken for either: float32 rounds before.
    slack = 0.01 * np.abs(step).max(initial=0) * np.abs(want).max(initial=0) + {"bfloat16": 1e-2}.get(kind, 2e-3)
    slack = slack * (1 + np.abs(want))  # slopes of activations are at most 1.13
    want = ACTIVATIONS[activation](want) + (0 if residual is None else to_numpy(residual))
    assert got.shape == want.shape and (np.abs(got - want) <= 1.2 * slack).all()


def check_qlinear(result: Any, x: Any, codes: Any, scales: Any, zeros: Any, bias: Any, name: str, block: int) -> None:
    check_fused_qlinear(result, x, codes, scales, zeros, bias, None, name, block, "none")


FOUR = ("int4", 32)


def nibbles(*shape: int) -> Any:
    """Codes of rows; the half byte behind an odd row is zero."""
    *lead, k = shape
    codes = RNG.integers(0, 256, (*lead, (k + 1) // 2))
    codes[..., -1:] &= 15 if k % 2 else 255
    return A(codes, dtype="uint8")


def scales(*shape: int) -> Any:
    return T(*shape, lo=0.01, hi=0.1, grad=False, dtype="float32")


def small(*shape: int) -> Any:
    return T(*shape, lo=0.001, hi=0.01, grad=False, dtype="float32")


CASES = [(name, block) for name in FORMATS for block in format_named(name).blocks]
WHOLE = [case for case in CASES if format_named(case[0]).whole_numbers]


def parts(name: str, block: int, *shape: int, scale: Any = scales) -> tuple[Any, Any, Any]:
    """Any codes of [n, k], or [e, n, k], with scales and zero points; for formats whose codes are whole numbers."""
    *lead, k = shape
    form, sides = format_named(name), (*lead, -(-k // (block or max(k, 1))))
    codes = nibbles(*shape) if form.per_byte == 2 else I(*shape, lo=-128, hi=128, dtype="int8")
    return codes, scale(*sides), I(*sides, hi=16, dtype="uint8") if form.has_zeros else None


op(
    "_quantize", None, S(T(3, 70), "int8", block=0), S(T(3, 70), "int8"), S(T(3, 70), "int8", 64), S(T(3, 70)),
    *[S(T(5, 130), *f) for f in CASES], *[S(T(3, 5, 130), *f) for f in CASES], S(T(0, 5, 70), "int4", 32),
    *[S(T(0, 3), *f) for f in CASES], S(T(3, 0), "int8", 32),
    check=check_quantize, grad=False, out="int8", scalar=False,
    errors=[
        E(ValueError, f"or '{list(FORMATS)[-1]}', got 'int3'", T(3, 4), "int3", 32),
        E(ValueError, "takes blocks of 32, 64 or 128, got 7", T(3, 4), "int4", 7),
        E(RuntimeError, r"matrix \[N, K\]", T(3), "int8", 0),
        E(RuntimeError, r"stack of them \[E, N, K\]", T(2, 2, 3, 4), "int8", 0),
        E(NotImplementedError, "int64", A([[1, 2]]), "int8", 0),
    ],
    big=[S(T(300, 401), *f) for f in CASES],
    no_rows="a result's dtype depends on the format, and tiles of fp8 share scales over rows",
)  # fmt: skip
DEQUANTIZED = [
    S(nibbles(5, 70), scales(5, 3), None, "int4", 32, 70), S(nibbles(5, 71), scales(5, 3), None, "int4", 32, 71),
    S(nibbles(4, 66), scales(4, 2), I(4, 2, hi=16, dtype="uint8"), "int4_zero", 64, 66),
    S(I(3, 9, lo=-128, hi=128, dtype="int8"), scales(3, 1), None, "int8", 0, 9),
    S(I(3, 70, lo=-128, hi=128, dtype="int8"), scales(3, 3), None, "int8", 32, 70),
    S(I(0, 9, dtype="int8"), scales(0, 1), None, "int8", 0, 9),
    S(nibbles(2, 5, 71), scales(2, 5, 3), None, "int4", 32, 71),
    S(I(2, 3, 9, lo=-128, hi=128, dtype="int8"), scales(2, 3, 1), None, "int8", 0, 9),
    *[S(*parts(*case, 4, 131), *case, 131) for case in WHOLE],
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


def product(name: str, block: int, n: int, k: int, *lead: int, bias: bool = True, scale: Any = scales) -> Any:
    """x [*lead, k] times [n, k]."""
    return S(T(*lead, k), *parts(name, block, n, k, scale=scale), T(n) if bias else None, name, block=block).but(
        grad=False, gradgrad=False
    )


ZEROS = I(5, 3, hi=16, dtype="uint8")
for linear_name in ("_qlinear", "_quantized_linear"):
    op(
        linear_name, None,
        product("int4", 32, 5, 70, 3), product("int4", 32, 5, 70, 2, 4, bias=False),
        product("int4_zero", 64, 17, 71, 4), product("int8", 0, 6, 9, 4), product("int8", 32, 6, 70),
        product("int4", 128, 3, 1, 2), *[product(*case, 7, 131, 3, scale=small) for case in WHOLE],
        S(T(0, 70), nibbles(5, 70), scales(5, 3), None, T(5), *FOUR),
        S(T(3, 70), nibbles(0, 70), scales(0, 3), None, None, *FOUR),
        S(T(3, 0), I(4, 0, dtype="int8"), scales(4, 0), None, T(4), "int8", 32),
        check=check_qlinear, scalar=False, noncontig=True,
        errors=[
            E(RuntimeError, "do not hold rows of 80 values", T(2, 80), nibbles(5, 70), scales(5, 3), None, None, *FOUR),
            E(RuntimeError, "bias must be", T(2, 70), nibbles(5, 70), scales(5, 3), None, T(4), *FOUR),
            E(RuntimeError, "has no zero points", T(2, 70), nibbles(5, 70), scales(5, 3), ZEROS, None, *FOUR),
            E(RuntimeError, "must be one matrix", T(2, 70), nibbles(2, 5, 70), scales(2, 5, 3), None, None, *FOUR),
            E(NotImplementedError, "int64", I(2, 70), nibbles(5, 70), scales(5, 3), None, None, *FOUR),
            E(ValueError, "takes blocks", T(2, 70), nibbles(5, 70), scales(5, 3), None, None, "int4", 33),
        ],
        big=[product("int4", 32, 150, 301, 37)],
        rows=[product(name, FORMATS[name], 19, 301, 37) for name, _ in WHOLE],
    )  # fmt: skip


def followed(sample: Any, *lead: int, activation: str = "none") -> Any:
    """With an activation, and a residual of the result's shape where `lead` is given."""
    x, codes, scale, zero, bias, name = sample.args
    residual = T(*lead, codes.shape[0], grad=False) if lead else None
    return S(x, codes, scale, zero, bias, residual, name, activation=activation, **sample.kwargs).but(
        grad=False, gradgrad=False
    )


op(
    "_quantized_linear_fused", None,
    followed(product("int4", 32, 5, 70, 3), activation="relu"),
    followed(product("int8", 0, 5, 70, 2, 4, bias=False), 2, 4, activation="silu"),
    followed(product("int8", 32, 6, 70), activation="gelu"),
    followed(product("int4_zero", 64, 17, 71, 4), 4, activation="gelu_tanh"), followed(product("int8", 0, 6, 9, 4), 4),
    S(T(0, 70), nibbles(5, 70), scales(5, 3), None, None, T(0, 5, grad=False), *FOUR, "relu"),
    *[followed(product("int8", 0, 9, 40, 4), 4, activation=name) for name in _C._activations()],
    check=check_fused_qlinear, scalar=False, noncontig=False, floats=("float32",), low=("bfloat16",),
    errors=[
        E(ValueError, "or 'tanh', got 'elu'", T(2, 70), nibbles(5, 70), scales(5, 3), None, None, None, *FOUR, "elu"),
        E(NotImplementedError, "float32 or bfloat16", T(2, 70, dtype="float64"), nibbles(5, 70), scales(5, 3), None,
          None, None, *FOUR, "relu"),
        E(RuntimeError, "residual must be", T(2, 70), nibbles(5, 70), scales(5, 3), None, None, T(5), *FOUR, "relu"),
        E(RuntimeError, "bias must be", T(2, 70), nibbles(5, 70), scales(5, 3), None, T(4), None, *FOUR, "relu"),
    ],
    big=[followed(product("int4", 32, 150, 301, 37), activation="gelu")],
    rows=[followed(product("int4", 32, 19, 301, 37), 37, activation="silu")],
)  # fmt: skip


# --- mixtures of experts
def check_qmoe(result: Any, x: Any, *args: Any, block: int, down_format: str, down_block: int, **more: Any) -> None:
    """One token and one of its experts at a time; rows in steps of their largest number / 127."""
    *parts, ids, weights, name = args
    most = np.inf if more["swiglu_limit"] is None else more["swiglu_limit"]

    def rounded(row: np.ndarray) -> np.ndarray:
        step = np.abs(row).max(initial=0) / 127
        return row if step == 0 or not format_named(name).whole_numbers else np.rint(row / step) * step

    a, chosen, factors = to_numpy(x), to_numpy(ids), to_numpy(weights)
    hidden = parts[0].shape[1]
    gate, up = (values(*parts[i : i + 3], name, block, a.shape[1]) for i in (0, 3))
    down = values(*parts[6:9], down_format, down_block, hidden)
    want = np.zeros_like(a)
    for t, k in np.ndindex(chosen.shape):
        e, row = chosen[t, k], rounded(a[t])
        if e < 0:
            continue
        g, u = np.minimum(gate[e] @ row, most), np.clip(up[e] @ row, -most, most)
        want[t] += factors[t, k] * (down[e] @ rounded(g / (1 + np.exp(-g)) * u))
    got = to_numpy(result)
    # A value between two steps may be taken for either: what is summed was rounded before.
    slack = (0.03 if str(result.dtype).split(".")[-1] in ("bfloat16", "float16") else 0.01) * np.abs(want).max(
        initial=0
    )
    assert got.shape == want.shape and (np.abs(got - want) <= slack).all()


def mixture(
    name: str, block: int, tokens: int, dim: int, hidden: int, experts: int, slots: int,
    down: tuple[str, int] = ("", 0), limit: float | None = None, least: int = 0,
) -> Any:  # fmt: skip
    d = down if down[0] else (name, block)
    weights = [part for _ in range(2) for part in parts(name, block, experts, hidden, dim, scale=small)]
    weights += parts(*d, experts, dim, hidden, scale=small)
    ids = I(tokens, slots, lo=least, hi=experts)
    return S(
        T(tokens, dim), *weights, ids, T(tokens, slots), name, block=block, down_format=d[0], down_block=d[1],
        swiglu_limit=limit, wide=False,
    ).but(grad=False, gradgrad=False)  # fmt: skip


def mixture_error(error: type[BaseException], match: str, at: int, *values: Any, **named: Any) -> Any:
    """A call that is right but for the arguments from number `at` on, and the named ones."""
    right = mixture("int4", 32, 3, 70, 5, 2, 1)
    args = [*right.args[:at], *values, *right.args[at + len(values) :]]
    return E(error, match, *args, **(right.kwargs | named))


for moe_name in ("_qmoe", "_quantized_moe"):
    op(
        moe_name, None,
        mixture("int8", 0, 3, 40, 7, 3, 2), mixture("int8", 32, 5, 70, 17, 2, 1), mixture("int4", 32, 4, 71, 33, 3, 2),
        mixture("int4_zero", 64, 3, 130, 5, 2, 2), mixture("int4", 128, 2, 40, 9, 2, 1, ("int8", 0)),
        mixture("int8", 0, 0, 40, 7, 3, 2), mixture("int4", 32, 5, 71, 33, 3, 2, limit=0.1),
        mixture("int8", 0, 7, 40, 9, 3, 2, limit=0.05, least=-1), *[mixture(*case, 3, 70, 5, 2, 2) for case in WHOLE],
        check=check_qmoe, scalar=False, noncontig=True,
        errors=[
            mixture_error(RuntimeError, "do not hold rows of 80 values", 0, T(3, 80)),
            mixture_error(RuntimeError, SHAPE, 0, T(4, 70)),
            mixture_error(RuntimeError, "features", 0, T(2, 3, 70)),
            mixture_error(NotImplementedError, "int64", 0, I(3, 70)),
            mixture_error(RuntimeError, SHAPE, 1, nibbles(1, 5, 70), scales(1, 5, 3)),
            mixture_error(RuntimeError, "needs zeros", 12, "int4_zero"),
            mixture_error(ValueError, "fp8 goes with fp8", 0, down_format="fp8", down_block=128),
            mixture_error(IndexError, "range", 10, A([[2], [0], [0]])),
            mixture_error(ValueError, "swiglu_limit must be positive", 0, swiglu_limit=-1.0),
            mixture_error(RuntimeError, "floating", 11, I(3, 1)),
        ],
        big=[mixture("int4", 32, 37, 301, 150, 5, 2)],
        rows=[mixture("int4", 32, 37, 70, 33, 3, 2), mixture("int8", 0, 23, 40, 20, 3, 2)],
    )  # fmt: skip


# --- products of bytes
def by(*shape: int, dtype: str = "int8") -> Any:
    low = 0 if dtype == "uint8" else -128
    return I(*shape, lo=low, hi=low + 256, dtype=dtype)


op(
    "_int_mm", lambda a, b: a.astype(np.int64) @ b.astype(np.int64),
    S(by(3, 5), by(5, 4)), S(by(3, 5, dtype="uint8"), by(5, 4)), S(by(13, 70), by(70, 33)), S(by(0, 5), by(5, 4)),
    S(by(3, 0), by(0, 4)), S(by(3, 5), by(5, 0)),
    grad=False, scalar=False, out="int32", low=(),
    errors=[
        E(RuntimeError, "Expected self to be of dimension 2 but got 1", by(5), by(5, 4)),
        E(RuntimeError, "Expected mat2 to be of dimension 2 but got 1", by(3, 5), by(5)),
        E(RuntimeError, r"self.size\(1\) needs to match mat2.size\(0\) but got 5 and 4", by(3, 5), by(4, 4)),
        E(RuntimeError, "Expected self dtype to be int8 or uint8 but got int32", I(3, 5, dtype="int32"), by(5, 4)),
        E(RuntimeError, "Expected mat2 dtype to be of type int8 but got uint8", by(3, 5), by(5, 4, dtype="uint8")),
    ],
    big=[S(by(130, 257), by(257, 140)), S(by(130, 257, dtype="uint8"), by(257, 140))],
    no_rows="integers: sums are exact, in any order",
)  # fmt: skip
