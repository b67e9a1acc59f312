"""Random ops. The sample's numbers are judged by shape, range and moments; the same seed must give the same bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .core import A, E, S, T, op

MAKE: dict[str, Any] = {"grad": False, "floats": ("float32",), "low": (), "stream": True, "random": True, "out": None}
NEGATIVE = E(RuntimeError, "negative", [-1, 2])


def moments(values: np.ndarray, mean: float, std: float) -> None:
    """Mean and standard deviation within five standard errors."""
    n = values.size
    if n >= 1000:
        assert abs(values.mean() - mean) < 5 * std / math.sqrt(n)
        assert abs(values.std() - std) < 5 * std / math.sqrt(n)


def check_rand(r: Any, size: Any) -> None:
    x = r.double().numpy()
    assert x.shape == tuple(size) and ((x >= 0) & (x < 1)).all()
    moments(x, 0.5, math.sqrt(1 / 12))


def check_randn(r: Any, size: Any) -> None:
    x = r.double().numpy()
    assert x.shape == tuple(size) and np.isfinite(x).all()
    moments(x, 0.0, 1.0)
    if x.size >= 1000:
        assert abs((np.abs(x) < 1).mean() - 0.6827) < 5 * math.sqrt(0.22 / x.size)


def check_randint(r: Any, low: int, high: int, size: Any) -> None:
    x = r.numpy()
    assert x.shape == tuple(size) and x.dtype == np.int64 and ((x >= low) & (x < high)).all()
    moments(x.astype(float), (low + high - 1) / 2, math.sqrt(((high - low) ** 2 - 1) / 12))


def check_randperm(r: Any, n: int) -> None:
    x = r.numpy()
    assert x.dtype == np.int64 and sorted(x.tolist()) == list(range(n))
    if n >= 100:
        assert (x == np.arange(n)).mean() < 0.2


def check_bernoulli(r: Any, p: Any) -> None:
    x, p = r.double().numpy(), p.double().numpy()
    assert x.shape == p.shape and np.isin(x, (0.0, 1.0)).all()
    assert (x[p == 0] == 0).all() and (x[p == 1] == 1).all()
    if x.size >= 1000:
        assert abs(x.mean() - p.mean()) < 5 * 0.5 / math.sqrt(x.size)


def check_multinomial(r: Any, weights: Any, num_samples: int, replacement: bool = False) -> None:
    x, w = np.atleast_2d(r.numpy()), np.atleast_2d(weights.double().numpy())
    assert x.dtype == np.int64 and x.shape == (w.shape[0], num_samples)
    for row, probabilities in zip(x, w, strict=True):
        assert (probabilities[row] > 0).all()
        if not replacement:
            assert len(set(row.tolist())) == num_samples
        elif num_samples >= 1000:
            share = np.bincount(row, minlength=len(probabilities)) / num_samples
            np.testing.assert_allclose(
                share, probabilities / probabilities.sum(), atol=5 * 0.5 / math.sqrt(num_samples)
            )


def check_normal(r: Any, mean: Any, std: Any, size: Any = None) -> None:
    x = r.double().numpy()
    mean, std = (v.double().numpy() if hasattr(v, "double") else v for v in (mean, std))
    moments((x - mean) / std, 0.0, 1.0)


op(
    "rand",
    None,
    S([50, 40]),
    S([]),
    S([0, 3]),
    S([7]),
    check=check_rand,
    big=[S([300, 401])],
    errors=[NEGATIVE],
    **MAKE,
)
op(
    "randn",
    None,
    S([50, 40]),
    S([]),
    S([0, 3]),
    S([7]),
    check=check_randn,
    big=[S([300, 401])],
    errors=[NEGATIVE],
    **MAKE,
)
op(
    "randint",
    None,
    S(0, 10, [50, 40]),
    S(-5, 5, [3000]),
    S(3, 4, [5]),
    S(0, 2, []),
    S(0, 2, [0, 3]),
    check=check_randint,
    big=[S(0, 1000, [300, 401])],
    errors=[E((RuntimeError, ValueError), "low|high|range|from|to", 5, 5, [3])],
    **MAKE,
)
op(
    "randperm",
    None,
    S(7),
    S(1000),
    S(0),
    S(1),
    check=check_randperm,
    errors=[E((RuntimeError, ValueError), "negative|n", -1)],
    **MAKE,
)
op(
    "bernoulli",
    None,
    S(T(50, 40, lo=0, hi=1)),
    S(A([0.0, 1.0])),
    S(T(lo=0, hi=1)),
    S(T(0, 3)),
    check=check_bernoulli,
    random=True,
    grad=False,
    big=[S(T(300, 401, lo=0, hi=1))],
    errors=[E(RuntimeError, "0|1|prob", A([1.5]))],
)
op(
    "multinomial",
    None,
    S(A([0.1, 0.0, 0.7, 0.2]), 3),
    S(A([0.1, 0.0, 0.7, 0.2]), 4000, True),
    S(A([[1.0, 2.0], [3.0, 0.0]]), 1),
    check=check_multinomial,
    random=True,
    grad=False,
    out="int64",
    zero_size=False,
    scalar=False,
    low=(),
    errors=[
        E(RuntimeError, "sample|categor|without replacement|non-zero", A([0.5, 0.5]), 3),
        E(RuntimeError, "negative|prob|<|0", A([-0.5, 0.5]), 1),
        E(RuntimeError, "sum|zero|<= 0|invalid", A([0.0, 0.0]), 1),
    ],
)
op(
    "normal",
    None,
    S(0.5, 2.0, [2000]),
    S(0.0, 1.0, [0]),
    check=check_normal,
    errors=[E(RuntimeError, "std|negative|>=", 0.0, -1.0, [3])],
    **MAKE,
)
