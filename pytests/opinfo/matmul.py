"""Products of matrices and vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from deepseek import _C

from .core import A, E, S, T, op
from .pointwise.pointwise import erf, sigmoid

SHAPE = r"size|shape|mismatch|inconsistent|dim|expect|matrix|3D"
MM: dict[str, Any] = {"tol": 4.0, "low_tol": 2.0}
BIG = S(T(130, 257), T(257, 140))
LONG = S(T(70, 1100), T(1100, 90))  # k is cut into blocks of 512
FEW = S(T(5, 1100), T(1100, 300))  # too few rows to pack the second matrix

op(
    "matmul",
    np.matmul,
    S(T(3, 4), T(4, 2)),
    S(T(4), T(4)),
    S(T(3, 4), T(4)),
    S(T(4), T(4, 3)),
    S(T(2, 3, 4), T(4, 5)),
    S(T(2, 3, 4), T(2, 4, 2)),
    S(T(2, 1, 3, 4), T(3, 4, 2)),
    S(T(2, 3, 4), T(4)),
    S(T(4), T(2, 4, 3)),
    S(T(0, 3), T(3, 2)),
    S(T(2, 0), T(0, 3)),
    S(T(2, 0, 3), T(2, 3, 4)),
    S(A([[1.0, math.nan], [0.0, 1.0]]), A([[1.0, 0.0], [0.0, math.inf]])).but(grad=False),
    **MM,
    scalar=False,
    big=[BIG, LONG, FEW, S(T(3, 65, 70), T(3, 70, 66))],
    rows=[S(T(37, 96), T(96, 64)), S(T(9, 33), T(33)), LONG, S(T(300, 70), T(70, 50))],
    errors=[
        E(RuntimeError, SHAPE, T(3, 4), T(3, 4)),
        E(RuntimeError, "0-?D|scalar|at least 1|dim", T(), T(3)),
        E(RuntimeError, SHAPE, T(2, 3, 4), T(3, 4, 5)),
        E(RuntimeError, "dtype|type", T(2, 2, dtype="float32"), T(2, 2, dtype="float64")),
    ],
)
op(
    "mm",
    np.matmul,
    S(T(3, 4), T(4, 2)),
    S(T(1, 4), T(4, 1)),
    S(T(0, 3), T(3, 2)),
    S(T(2, 0), T(0, 3)),
    **MM,
    scalar=False,
    big=[BIG],
    rows=[S(T(37, 96), T(96, 64))],
    errors=[E(RuntimeError, SHAPE, T(3, 4), T(3, 4)), E(RuntimeError, SHAPE, T(4), T(4, 3))],
)
op(
    "bmm",
    np.matmul,
    S(T(2, 3, 4), T(2, 4, 5)),
    S(T(1, 2, 2), T(1, 2, 2)),
    S(T(0, 3, 4), T(0, 4, 2)),
    S(T(2, 3, 0), T(2, 0, 2)),
    **MM,
    scalar=False,
    big=[S(T(3, 65, 70), T(3, 70, 66))],
    errors=[E(RuntimeError, SHAPE, T(2, 3, 4), T(3, 4, 5)), E(RuntimeError, SHAPE, T(3, 4), T(4, 5))],
    rows=[S(T(17, 9, 70), T(17, 70, 33))],
)
op(
    "mv",
    np.matmul,
    S(T(3, 4), T(4)),
    S(T(0, 4), T(4)),
    S(T(3, 0), T(0)),
    **MM,
    scalar=False,
    big=[S(T(400, 301), T(301))],
    errors=[E(RuntimeError, SHAPE, T(3, 4), T(3))],
    rows=[S(T(37, 96), T(96))],
)
op(
    "dot",
    np.dot,
    S(T(4), T(4)),
    S(T(0), T(0)),
    S(T(1), T(1)),
    **MM,
    scalar=False,
    big=[S(T(100000), T(100000))],
    errors=[E(RuntimeError, SHAPE, T(3), T(4)), E(RuntimeError, "1D|1-D|dim", T(3, 1), T(3))],
    no_rows="one number",
)
op(
    "outer",
    np.outer,
    S(T(3), T(4)),
    S(T(0), T(4)),
    S(T(1), T(1)),
    **MM,
    scalar=False,
    big=[S(T(300), T(401))],
    errors=[E(RuntimeError, "1-?D|dim|vector", T(3, 1), T(3))],
    rows=[S(T(37), T(96))],
)


op(
    "inner",
    np.inner,
    S(T(3, 4), T(2, 4)),
    S(T(4), T(4)),
    S(T(1, 4), T(4)),
    S(T(2, 3, 4), T(4)),
    S(T(2, 3, 4), T(2, 1, 4)),
    S(T(3), T()),
    S(T(), T()),
    S(T(0, 3), T(2, 3)),
    S(T(2, 0), T(3, 0)),
    **MM,
    big=[S(T(130, 257), T(140, 257))],
    rows=[S(T(37, 96), T(64, 96))],
    errors=[
        E(RuntimeError, r"last dimension must match .* \[3, 4\] and \[3, 5\]", T(3, 4), T(3, 5)),
        E(RuntimeError, r"last dimension must match", T(3, 1), T(3, 5)),
    ],
)


def einsum(equation: str, *operands: Any) -> Any:
    ops = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    return np.einsum(equation, *ops)


op(
    "einsum",
    einsum,
    S("ij,jk->ik", [T(3, 4), T(4, 2)]),
    S("bij,bjk->bik", [T(2, 3, 4), T(2, 4, 2)]),
    S("ij->ji", [T(3, 4)]),
    S("ii->i", [T(3, 3)]),
    S("ii", [T(3, 3)]),
    S("i,j->ij", [T(3), T(4)]),
    S("bhqd,bhkd->bhqk", [T(1, 2, 3, 4), T(1, 2, 5, 4)]),
    S("...ij,...jk->...ik", [T(2, 3, 4), T(4, 2)]),
    S("ij,ij->", [T(3, 4), T(3, 4)]),
    S("ij,jk,kl->il", [T(2, 3), T(3, 2), T(2, 4)]),
    S("ij->", [T(3, 4)]),
    S("ij,jk", [T(0, 4), T(4, 2)]),
    S(",->", [T(), T()]),
    S("kji,lj->ikl", [T(2, 3, 4), T(5, 3)]),
    S("ba", [T(3, 4)]),  # implicit output is alphabetical
    S("...i,...i", [T(2, 1, 3), T(4, 3)]),  # ellipses broadcast
    S("...", [T(2, 3)]),
    S("iij,j->i", [T(3, 3, 4), T(4)]),
    S("ij,kl->i", [T(2, 3), T(2, 4)]),  # letters summed within one operand
    S("i,i,i->i", T(3), T(3), T(3)),
    S("ij , jk -> ki", T(2, 3), T(3, 2)),
    S("a...b,b->...a", [T(2, 3, 4), T(4)]),
    **MM,
    errors=[
        E((RuntimeError, ValueError), "size|dimension|subscript|operand", "ij,jk->ik", [T(3, 4), T(3, 4)]),
        E((RuntimeError, ValueError), "subscript|dim|operand|number", "ijk->i", [T(3, 4)]),
        E((RuntimeError, ValueError), "output|subscript", "ij->ik", [T(3, 4)]),
        E((RuntimeError, ValueError), "output|more than once|subscript", "ij->ii", [T(3, 3)]),
        E((RuntimeError, ValueError), "operand|subscript", "ij,jk->ik", [T(3, 4)]),
        E((RuntimeError, ValueError), "size|dimension|subscript|repeated", "ii->i", [T(3, 4)]),
        E((RuntimeError, ValueError), "letter|character|subscript|valid", "i1->i", [T(3, 4)]),
    ],
    rows=[S("ij,jk->ik", [T(37, 96), T(96, 64)]), S("bij,bjk->bik", [T(17, 9, 70), T(17, 70, 33)])],
)
op(
    "linear",
    lambda x, w, b=None: x @ w.T + (0 if b is None else b),
    S(T(3, 4), T(2, 4)),
    S(T(3, 4), T(2, 4), T(2)),
    S(T(4), T(2, 4), T(2)),
    S(T(2, 3, 4), T(5, 4), T(5)),
    S(T(0, 4), T(2, 4), T(2)),
    S(T(2, 0), T(3, 0), T(3)),
    **MM,
    scalar=False,
    big=[S(T(130, 257), T(140, 257), T(140)), S(T(5, 1100), T(300, 1100))],
    rows=[S(T(37, 96), T(64, 96), T(64)), S(T(67, 128), T(16, 128)), S(T(70, 1100), T(90, 1100))],
    errors=[E(RuntimeError, SHAPE, T(3, 4), T(2, 5)), E(RuntimeError, SHAPE + "|expand", T(3, 4), T(2, 4), T(3))],
)

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda y: y,
    "relu": lambda y: np.where(y < 0, 0, y),
    "gelu": lambda y: y * 0.5 * (1 + erf(y / np.sqrt(2))),
    "gelu_tanh": lambda y: 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))),
    "silu": lambda y: y * sigmoid(y),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
}


def linear_fused(
    x: Any, w: Any, b: Any = None, other: Any = None, *, activation: str = "none", combine: str = "none"
) -> Any:
    y = ACTIVATIONS[activation](x @ w.T + (0 if b is None else b))
    return {"none": lambda: y, "add": lambda: y + other, "mul": lambda: y * other}[combine.removeprefix("r")]()


op(
    "_linear_fused",
    linear_fused,
    S(T(3, 4), T(2, 4), T(2)),
    *[S(T(3, 4), T(2, 4), T(2), activation=name) for name in _C._activations()],
    S(T(2, 3, 4), T(5, 4), None, T(2, 3, 5), activation="silu", combine="mul"),
    S(T(2, 3, 4), T(5, 4), None, T(3, 1), combine="add"),
    S(T(2, 3, 4), T(5, 4), T(5), T(), combine="mul"),
    S(T(3, 4), T(5, 4), T(5), T(3, 5), combine="radd"),
    S(T(3, 4), T(5, 4), T(5), T(5), activation="relu", combine="rmul"),
    S(T(4), T(2, 4), T(2), T(2), activation="tanh", combine="add"),
    S(T(0, 4), T(2, 4), T(2), T(2), combine="add"),
    S(T(2, 0), T(3, 0), T(3), activation="sigmoid"),
    scalar=False,
    big=[S(T(130, 257), T(1100, 257), T(1100), T(130, 1100), activation="gelu", combine="add")],
    rows=[S(T(37, 96), T(640, 96), T(640), activation="gelu_tanh"), S(T(70, 1100), T(90, 1100), activation="silu")],
    errors=[
        E(RuntimeError, SHAPE, T(3, 4), T(2, 5)),
        E(RuntimeError, "2-D, got 1-D", T(3, 4), T(4)),
        E(ValueError, "must be 'none', 'relu'", T(3, 4), T(2, 4), activation="elu"),
        E(ValueError, "none, add, mul, radd or rmul", T(3, 4), T(2, 4), None, T(2), combine="sub"),
        E(RuntimeError, "other is given", T(3, 4), T(2, 4), combine="add"),
        E(RuntimeError, "other is given", T(3, 4), T(2, 4), None, T(2)),
        E(RuntimeError, "broadcasts to", T(3, 4), T(2, 4), None, T(5, 3, 2), combine="add"),
    ],
)


def addmm(x: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    product = alpha * np.matmul(a, b)
    return product + np.zeros_like(x) if beta == 0 else beta * x + product


op(
    "addmm",
    addmm,
    S(T(3, 2), T(3, 4), T(4, 2)),
    S(T(2), T(3, 4), T(4, 2), beta=0.5, alpha=2.0),
    S(T(), T(3, 4), T(4, 2)),
    S(T(2), T(0, 4), T(4, 2)),
    S(A([[math.nan]]), T(1, 2), T(2, 1), beta=0).but(grad=False),
    **MM,
    big=[S(T(140), T(130, 257), T(257, 140))],
    errors=[E(RuntimeError, SHAPE, T(3), T(3, 4), T(4, 2)), E(RuntimeError, SHAPE, T(2), T(3, 4), T(3, 2))],
    rows=[S(T(37, 64), T(37, 96), T(96, 64))],
)
op(
    "baddbmm",
    addmm,
    S(T(2, 3, 5), T(2, 3, 4), T(2, 4, 5)),
    S(T(1, 5), T(2, 3, 4), T(2, 4, 5), beta=0.5, alpha=2.0),
    S(T(0, 3, 5), T(0, 3, 4), T(0, 4, 5)),
    **MM,
    scalar=False,
    errors=[E(RuntimeError, SHAPE, T(2, 3, 5), T(2, 3, 4), T(3, 4, 5))],
)
op(
    "addmv",
    addmm,
    S(T(3), T(3, 4), T(4)),
    S(T(3), T(3, 4), T(4), beta=0.5, alpha=2.0),
    S(T(), T(3, 4), T(4)),
    S(T(0), T(0, 4), T(4)),
    **MM,
    big=[S(T(400), T(400, 301), T(301))],
    errors=[E(RuntimeError, SHAPE, T(3), T(3, 4), T(3))],
    rows=[S(T(37), T(37, 96), T(96))],
)
op(
    "_mm_float32",
    lambda a, b: (a.astype("float32") @ b.astype("float32")).astype("float32"),
    S(A([[1.0, 2.0], [0.5, -3.0]], dtype="float16"), A([[4.0, 0.25], [-1.0, 2.0]], dtype="float16")).but(grad=False),
    S(A([[1.5, 2.0, -1.0]], dtype="float16"), A([[4.0], [-1.0], [0.5]], dtype="float16")).but(grad=False),
    S(A(np.zeros((0, 3)), dtype="float16"), A(np.zeros((3, 2)), dtype="float16")).but(grad=False),
    low=(),
    scalar=False,
    rows=[S(T(37, 96, dtype="bfloat16"), T(96, 64, dtype="bfloat16"))],
    errors=[E(RuntimeError, "two matrices of bfloat16 or float16, got float32", T(3, 4), T(4, 3))],
)
op(
    "_batch_matmul",
    np.matmul,
    S(T(3, 4), T(4, 2)),
    S(T(2, 3, 4), T(2, 4, 5)),
    S(T(2, 1, 3, 4), T(1, 2, 4, 2)),
    S(T(0, 3, 4), T(0, 4, 2)),
    S(T(2, 3, 0), T(2, 0, 2)),
    **MM,
    scalar=False,
    big=[BIG, S(T(3, 65, 70), T(3, 70, 66))],
    rows=[S(T(37, 96), T(96, 64))],
    errors=[E(RuntimeError, SHAPE, T(3, 4), T(3, 4)), E(RuntimeError, SHAPE, T(2, 3, 4), T(3, 4, 5))],
)
