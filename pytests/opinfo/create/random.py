"""Random ops. The sample's numbers are judged by shape, range and moments; the same seed must give the same bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import A, E, I, S, T, op

NO_INPUT = "element i of a draw is a function of (seed, i)"
MAKE: dict[str, Any] = {
    "grad": False,
    "floats": ("float32",),
    "low": (),
    "stream": True,
    "random": True,
    "out": None,
    "no_rows": NO_INPUT,
}
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


def check_randint(r: Any, *args: Any) -> None:
    low, high, size = args if len(args) == 3 else (0, *args)
    x = r.numpy()
    assert x.shape == tuple(size) and x.dtype == np.int64 and ((x >= low) & (x < high)).all()
    moments(x.astype(float), (low + high - 1) / 2, math.sqrt(((high - low) ** 2 - 1) / 12))


def check_randperm(r: Any, n: int) -> None:
    x = r.numpy()
    assert x.dtype == np.int64 and sorted(x.tolist()) == list(range(n))
    if n >= 100:
        assert (x == np.arange(n)).mean() < 0.2


def check_bernoulli(r: Any, p: Any, number: float | None = None) -> None:
    """Of a tensor of probabilities, or of one number for a tensor's size."""
    x, p = r.double().numpy(), p.double().numpy()
    if number is not None:
        p = np.full(p.shape, number)
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


def check_normal(r: Any, mean: Any, std: Any = 1.0, size: Any = None) -> None:
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
    S(7, [3000]),
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
    big=[S(70001)],
)
op(
    "bernoulli",
    None,
    S(T(50, 40, lo=0, hi=1)),
    S(A([0.0, 1.0])),
    S(T(lo=0, hi=1)),
    S(T(0, 3)),
    S(T(50, 40), 0.3),
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
    big=[S(T(50, 300, lo=0, hi=1), 20), S(T(50, 300, lo=0, hi=1), 400, True)],
)
op(
    "normal",
    None,
    S(0.5, 2.0, [2000]),
    S(0.0, 1.0, [0]),
    S(T(50, 40), T(50, 40, lo=0.5, hi=2)),
    S(T(50, 40)),
    check=check_normal,
    errors=[E(RuntimeError, "std|negative|>=", 0.0, -1.0, [3])],
    **MAKE,
    big=[S(T(300, 401), T(300, 401, lo=0.5, hi=2))],
)


# --- of another tensor's size
LIKE: dict[str, Any] = {"random": True, "grad": False}
SIZES = [S(T(50, 40)), S(T()), S(T(0, 3))]
op("rand_like", None, *SIZES, check=lambda r, x: check_rand(r, x.shape), big=[S(T(300, 401))], **LIKE)
op("randn_like", None, *SIZES, check=lambda r, x: check_randn(r, x.shape), big=[S(T(300, 401))], **LIKE)


def check_integers(r: Any, x: Any, low: int, high: int) -> None:
    """Integers of [low, high) in x's size and dtype."""
    got = r.double().numpy()
    assert r.dtype == x.dtype and r.shape == x.shape
    assert (got == np.floor(got)).all() and ((got >= low) & (got < high)).all()
    moments(got.reshape(-1), (low + high - 1) / 2, math.sqrt(((high - low) ** 2 - 1) / 12))


def check_randint_like(r: Any, x: Any, *ends: int) -> None:
    check_integers(r, x, *(ends if len(ends) == 2 else (0, *ends)))


ENDS = E((RuntimeError, ValueError), "less|range|from|to", T(3), 5, 5)
op(
    "randint_like",
    None,
    S(T(50, 40), 9),
    S(T(50, 40), -3, 6),
    S(T(), 4),
    S(T(0, 3), 4),
    check=check_randint_like,
    ints=("int64", "int32", "int8"),
    errors=[ENDS],
    **LIKE,
    big=[S(T(300, 401), 1000)],
)

# --- fills: the value has nothing of the input's numbers, so its gradient is zero
FILL: dict[str, Any] = {"random": True, "gradgrad": False}
FULL_RANGE = {"torch.float64": 2**53, "torch.float32": 2**24, "torch.bfloat16": 2**8, "torch.float16": 2**11}


def check_random(r: Any, x: Any, *ends: Any) -> None:
    """random(): all exact non-negative integers of the dtype; random(to); random(from, to)."""
    if len(ends) == 2 and ends[1] is not None:
        return check_integers(r, x, *ends)
    if len(ends) == 1:
        return check_integers(r, x, 0, *ends)
    low = ends[0] if ends else 0
    last = FULL_RANGE[str(r.dtype).replace("deepseek", "torch")]
    got = r.double().numpy()
    assert (got == np.floor(got)).all() and ((got >= low) & (got <= last)).all()
    moments(got.reshape(-1), (low + last) / 2, (last - low) / math.sqrt(12))


op(
    "random",
    None,
    S(T(50, 40)),
    S(T(50, 40), 9),
    S(T(50, 40), -3, 6),
    S(T(50, 40), 3, None),
    S(T(), 4),
    S(T(0, 3)),
    check=check_random,
    errors=[ENDS, E(RuntimeError, "out of bounds|less|to", T(3, dtype="float16"), 70000)],
    **FILL,
    big=[S(T(300, 401))],
)


def check_uniform(r: Any, x: Any, low: float = 0, high: float = 1, **named: float) -> None:
    low, high = named.get("from", low), named.get("to", high)
    got = r.double().numpy()
    assert got.shape == tuple(x.shape) and ((got >= low) & (got <= high)).all()
    if r.element_size() > 2:
        assert (got < high).all() or low == high
        moments(got, (low + high) / 2, (high - low) / math.sqrt(12))


op(
    "uniform",
    None,
    S(T(50, 40)),
    S(T(50, 40), -2.0, 3.0),
    S(T(), 0.0, 1.0),
    S(T(0, 3)),
    S(T(50, 40), **{"from": 1.0, "to": 2.0}),
    check=check_uniform,
    big=[S(T(300, 401))],
    errors=[E(RuntimeError, "from|range", T(3), 2.0, 1.0)],
    **FILL,
)


def check_filled_normal(r: Any, x: Any, mean: float = 0, std: float = 1) -> None:
    got = r.double().numpy()
    assert got.shape == tuple(x.shape) and np.isfinite(got).all()
    if r.element_size() > 2:
        moments(got, mean, std)


NORMAL = [S(T(50, 40, grad=False)), S(T(50, 40, grad=False), 3.0, 0.5), S(T(grad=False)), S(T(0, 3, grad=False))]
NEGATIVE_STD = E(RuntimeError, "std", T(3, grad=False), 0.0, -1.0)
op(
    "_normal_fill",
    None,
    *[S(T(*sample.args[0].shape), *sample.args[1:]) for sample in NORMAL],
    check=check_filled_normal,
    big=[S(T(300, 401))],
    errors=[NEGATIVE_STD],
    **FILL,
)
IN_PLACE: dict[str, Any] = {"random": True, "grad": False, "writes": True, "noncontig": False}
op(
    "normal_",
    None,
    *NORMAL,
    check=check_filled_normal,
    errors=[NEGATIVE_STD],
    **IN_PLACE,
    big=[S(T(300, 401, grad=False))],
)


def check_exponential(r: Any, x: Any, lambd: float = 1) -> None:
    got = r.double().numpy()
    assert got.shape == tuple(x.shape) and (got >= 0).all() and np.isfinite(got).all()
    if r.element_size() > 2:
        moments(got, 1 / lambd, 1 / lambd)


op(
    "exponential",
    None,
    S(T(50, 40)),
    S(T(50, 40), 2.5),
    S(T()),
    S(T(0, 3)),
    check=check_exponential,
    big=[S(T(300, 401))],
    errors=[
        E(RuntimeError, "lambda", T(3), 0.0),
        E(RuntimeError, "floating", I(3), 1.0),
    ],
    **FILL,
)


def check_filled_bernoulli(r: Any, x: Any, p: Any = 0.5) -> None:
    p = p.double().numpy() if hasattr(p, "double") else p
    got, p = r.double().numpy(), np.broadcast_to(p, tuple(x.shape))
    assert r.dtype == x.dtype and got.shape == tuple(x.shape) and np.isin(got, (0.0, 1.0)).all()
    assert (got[p == 0] == 0).all() and (got[p == 1] == 1).all()
    if got.size >= 1000:
        assert abs(got.mean() - p.mean()) < 5 * 0.5 / math.sqrt(got.size)


P = T(40, lo=0, hi=1, grad=False)
op(
    "_bernoulli_fill",
    None,
    S(T(50, 40), P),
    S(T(50, 40), A(0.3, grad=False)),
    S(T(2), A([0.0, 1.0], grad=False)),
    S(T(), A(0.5, grad=False)),
    S(T(0, 3), A(0.5, grad=False)),
    check=check_filled_bernoulli,
    big=[S(T(300, 401), A(0.3, grad=False))],
    errors=[E(RuntimeError, "broadcast|shape|size", T(3), A([0.5, 0.5]))],
    **FILL,
)
op(
    "bernoulli_",
    None,
    S(T(50, 40, grad=False)),
    S(T(50, 40, grad=False), 0.3),
    S(T(50, 40, grad=False), P),
    S(T(grad=False), 0.5),
    S(T(0, 3, grad=False)),
    check=check_filled_bernoulli,
    errors=[E(RuntimeError, "0, 1|between|prob|p", T(3, grad=False), 1.5)],
    **IN_PLACE,
    big=[S(T(300, 401, grad=False))],
)


def check_mask(r: Any, x: Any, p: float) -> None:
    """0 or 1 / (1 - p), as often as p says."""
    got = r.double().numpy()
    assert r.dtype == x.dtype and got.shape == tuple(x.shape)
    scale = np.unique(got[got != 0])
    assert scale.size <= 1 and np.allclose(scale, 1 / (1 - p), rtol=1e-2 if r.element_size() == 2 else 1e-6)
    if got.size >= 1000:
        assert abs((got == 0).mean() - p) < 5 * 0.5 / math.sqrt(got.size)


op(
    "_dropout_mask",
    None,
    S(T(50, 40), 0.3),
    S(T(), 0.5),
    S(T(0, 3), 0.5),
    check=check_mask,
    random=True,
    grad=False,
    big=[S(T(300, 401), 0.3)],
    errors=[E(RuntimeError, "p must be", T(3), 1.0), E(RuntimeError, "floating", I(3), 0.5)],
)
