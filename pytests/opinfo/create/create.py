"""Tensors from nothing or from another tensor's shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import DT, INTS_BOOL, A, E, S, T, op

MAKE: dict[str, Any] = {
    **{"grad": False, "floats": ("float32",), "low": (), "stream": True, "out": "float32"},
    "no_rows": "filled, whatever the input holds",
}
NEGATIVE = E(RuntimeError, "negative", [-1, 2])


def typed(f: Any) -> Any:
    return lambda *args, dtype=None: f(*args).astype(dtype or np.float32)


op("zeros", typed(np.zeros), S([3, 4]), S([]), S([0, 3]), **MAKE, errors=[NEGATIVE])
op("ones", typed(np.ones), S([3, 4]), S([]), S([0, 3]), **MAKE, errors=[NEGATIVE])
op(
    "full",
    typed(np.full),
    S([3, 4], 1.5),
    S([], -2.0),
    S([0, 3], 1.0),
    S([2], math.inf),
    S([2], math.nan),
    **MAKE,
    errors=[E(RuntimeError, "negative", [-1], 0.0)],
)


def check_empty(result: Any, size: Any, **kwargs: Any) -> None:
    assert tuple(result.shape) == tuple(size) and result.is_contiguous()


op("empty", None, S([3, 4]), S([]), S([0, 3]), check=check_empty, random=True, **MAKE, errors=[NEGATIVE])


def arange(start: float, end: Any = None, step: float = 1, *, dtype: Any = None) -> np.ndarray:
    start, end = (0, start) if end is None else (start, end)
    n = max(0, math.ceil((end - start) / step))
    integral = all(isinstance(v, int) for v in (start, end, step))
    return (start + step * np.arange(n)).astype(dtype or (np.int64 if integral else np.float32))


op(
    "arange",
    arange,
    S(5),
    S(2, 7),
    S(1, 10, 3),
    S(5, 0, -2),
    S(0),
    S(0.5, 3.0, 0.5),
    S(0, 1, 0.3),
    S(0, 5, dtype=DT("float64")),
    S(3, dtype=DT("int32")),
    **{**MAKE, "out": None},
    errors=[
        E((RuntimeError, ValueError), "step|zero", 0, 5, 0),
        E((RuntimeError, ValueError), "step|bound|sign|infinite", 5, 0, 1),
    ],
)
op(
    "linspace",
    typed(np.linspace),
    S(0, 1, 5),
    S(-2.0, 3.0, 7),
    S(1, 1, 3),
    S(0, 1, 1),
    S(0, 1, 0),
    S(3, -3, 4),
    **MAKE,
    errors=[E((RuntimeError, ValueError), "steps|negative", 0, 1, -1)],
)
op(
    "logspace",
    lambda start, end, steps, base=10.0, dtype=np.float32: (
        base ** np.linspace(*((start, end) if np.dtype(dtype).kind == "f" else (int(start), int(end))), steps)
    ).astype(dtype),
    S(0, 1, 5),
    S(-2.0, 3.0, 7),
    S(0, 3, 4, 2),
    S(0, 3, steps=4, base=0.5),
    S(1, 1, 1),
    S(0, 1, 0),
    S(0, 2, 3, dtype=DT("float64")),
    S(0.9, 3.5, 4, 2.0, dtype=DT("int64")),
    **MAKE,
    errors=[
        E((RuntimeError, ValueError), "steps|negative", 0, 1, -1),
        E(RuntimeError, "overflow", float("nan"), 2, 2, dtype=DT("int32")),
        E(RuntimeError, "overflow", 0, 1e300, 2, dtype=DT("int64")),
    ],
)
op(
    "scalar_tensor",
    lambda s, dtype=np.float32: np.array(s, dtype),
    S(3),
    S(-2.5),
    S(True),
    S(math.nan),
    S(3, dtype=DT("int32")),
    **MAKE,
    errors=[E(TypeError, "must be number, not str", "3")],
)
op(
    "eye",
    lambda n, m=None, dtype=None: np.eye(n, m, dtype=dtype or np.float32),
    S(3),
    S(2, 4),
    S(4, 2),
    S(0),
    S(3, 0),
    **MAKE,
    errors=[E((RuntimeError, ValueError), "negative|n", -1)],
)

LIKE: dict[str, Any] = {"grad": False, "ints": INTS_BOOL}
op("zeros_like", np.zeros_like, S(T(3, 4)), S(T()), S(T(0, 3)), S(T(3), dtype=DT("int32")), **{**LIKE, "out": None})
op("ones_like", np.ones_like, S(T(3, 4)), S(T()), S(T(0, 3)), S(T(3), dtype=DT("int32")), **{**LIKE, "out": None})
op(
    "full_like",
    lambda x, value, dtype=None: np.full_like(x, value, dtype=dtype),
    S(T(3, 4), 2),
    S(T(), 1),
    S(T(0, 3), 1),
    S(T(3), 1.5).but(ints=False),
    grad=False,
    ints=INTS_BOOL,
)
op("empty_like", None, S(T(3, 4)), S(T()), S(T(0, 3)), check=lambda r, x: check_empty(r, x.shape), random=True, **LIKE)
op(
    "fill",
    lambda x, value: np.full_like(x, value),
    S(T(3, 4), T()),
    S(T(), 2.0),
    S(T(0, 3), 1),
    S(T(3), A(4.0)),
    ints=INTS_BOOL,
)
op("zero", np.zeros_like, S(T(3, 4)), S(T()), S(T(0, 3)), ints=INTS_BOOL)
