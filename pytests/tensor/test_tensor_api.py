"""The Tensor object: printing, sizes, numbers in and out, operators; methods and functions agree."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import deepseek
import numpy as np
import pytest
from opinfo.printed import FORMAT, REPR

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
NAMES = {name: getattr(deepseek, name) for name in DTYPES}
NAMES |= {name: getattr(deepseek, name) for name in ("tensor", "zeros", "ones", "arange", "empty")} | {"float": float}


def dtype(name: str) -> Any:
    return getattr(deepseek, name)


# --- printing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("expression", "text"), REPR, ids=[case[0] for case in REPR])
def test_repr(expression: str, text: str) -> None:
    value = eval(expression, dict(NAMES))
    assert repr(value) == text
    assert str(value) == text


@pytest.mark.parametrize(("expression", "spec", "text"), FORMAT)
def test_format(expression: str, spec: str, text: str) -> None:
    assert format(eval(expression, dict(NAMES)), spec) == text


def test_format_of_many_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match="format"):
        format(deepseek.tensor([1.0, 2.0]), ".3f")


def test_set_printoptions() -> None:
    try:
        deepseek.set_printoptions(precision=2)
        assert repr(deepseek.tensor([1.23456])) == "tensor([1.23])"
        deepseek.set_printoptions(threshold=4, edgeitems=1)
        assert repr(deepseek.arange(10)) == "tensor([0,  ..., 9])"
    finally:
        deepseek.set_printoptions(profile="default")


def test_dtype_object() -> None:
    assert repr(deepseek.float32) == str(deepseek.float32) == "deepseek.float32"
    assert (
        deepseek.float is deepseek.float32 and deepseek.double is deepseek.float64 and deepseek.long is deepseek.int64
    )
    assert deepseek.half is deepseek.float16 and deepseek.int is deepseek.int32
    assert (
        deepseek.float32.is_floating_point and not deepseek.int64.is_floating_point and deepseek.bfloat16.itemsize == 2
    )
    assert {deepseek.float32: 1}[deepseek.float32] == 1 and deepseek.float32 != deepseek.float64
    assert (
        pickle.loads(pickle.dumps(deepseek.bfloat16)) is deepseek.bfloat16
        and copy.deepcopy(deepseek.int8) is deepseek.int8
    )


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
def test_finfo(name: str) -> None:
    want = {
        "float32": (2.0**-23, 3.4028234663852886e38, 1.1754943508222875e-38),
        "float64": (2.0**-52, 1.7976931348623157e308, 2.2250738585072014e-308),
        "float16": (2.0**-10, 65504.0, 6.103515625e-05),
        "bfloat16": (2.0**-7, 3.3895313892515355e38, 1.1754943508222875e-38),
    }[name]
    info = deepseek.finfo(dtype(name))
    assert (info.eps, info.max, info.tiny) == want and info.min == -info.max


def test_iinfo() -> None:
    assert (
        deepseek.iinfo(deepseek.int8).min,
        deepseek.iinfo(deepseek.uint8).max,
        deepseek.iinfo(deepseek.int64).max,
    ) == (-128, 255, 2**63 - 1)


# --- shape and size ---------------------------------------------------------------------------------------------------
def test_sizes() -> None:
    x = deepseek.zeros(2, 3, 4)
    assert (
        x.shape == (2, 3, 4)
        and x.size() == (2, 3, 4)
        and x.size(-1) == 4
        and x.dim() == x.ndim == 3
        and x.numel() == 24
    )
    assert x.stride() == (12, 4, 1) and x.stride(1) == 4 and x.element_size() == 4 and x.nbytes == 96
    assert x.storage_offset() == 0 and x[1].storage_offset() == 12
    assert isinstance(x.shape, tuple) and x.shape.numel() == 24 and str(x.shape) == "deepseek.Size([2, 3, 4])"
    batch, *rest = x.shape
    assert batch == 2 and rest == [3, 4]
    assert x.T.shape == (4, 3, 2) and x.mT.shape == (2, 4, 3)


def test_is_contiguous() -> None:
    x = deepseek.zeros(3, 4)
    assert (
        x.is_contiguous() and not x.t().is_contiguous() and x.t().contiguous().is_contiguous() and x.contiguous() is x
    )
    assert deepseek.zeros(3, 1).t().is_contiguous() and deepseek.zeros(0, 3).t().is_contiguous()


@pytest.mark.parametrize(
    "call",
    [
        "x.view(4, 3)",
        "x.view((4, 3))",
        "x.view([4, 3])",
        "x.reshape(4, 3)",
        "x.reshape((4, -1))",
        "x.permute(1, 0)",
        "x.permute((1, 0))",
        "x.transpose(0, 1)",
        "x.transpose(dim0=0, dim1=1)",
        "x.t()",
        "x.T",
        "x.expand(4, 3, 4)[0].t()",
        "x.repeat(2, 2)[:3, :4].t()",
        "deepseek.reshape(x, (4, 3))",
        "deepseek.permute(x, (1, 0))",
        "deepseek.transpose(x, 0, 1)",
        "x.flatten().view(4, 3)",
        "x.movedim(0, 1)",
    ],
)
def test_sizes_as_numbers_or_a_sequence(call: str) -> None:
    assert eval(call, {"x": deepseek.zeros(3, 4), "deepseek": deepseek}).shape == (4, 3)


@pytest.mark.parametrize(
    "make",
    [
        "zeros(2, 3)",
        "zeros((2, 3))",
        "zeros([2, 3])",
        "zeros(size=(2, 3))",
        "ones(2, 3)",
        "empty(2, 3)",
        "full((2, 3), 1.0)",
        "rand(2, 3)",
        "randn(2, 3)",
        "randn((2, 3))",
        "randint(5, (2, 3))",
        "randint(0, 5, (2, 3))",
        "zeros(deepseek.Size([2, 3]))",
        "zeros_like(ones(2, 3))",
        "eye(2, 3)",
        "tensor([[1, 2, 3], [4, 5, 6]])",
    ],
)
def test_creation_sizes(make: str) -> None:
    names = {
        name: getattr(deepseek, name)
        for name in ("zeros", "ones", "empty", "full", "rand", "randn", "randint", "zeros_like", "eye", "tensor")
    }
    assert eval(make, {**names, "deepseek": deepseek}).shape == (2, 3)


@pytest.mark.parametrize("name", ["new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"])
def test_new_methods_keep_the_dtype(name: str) -> None:
    x = deepseek.ones(2, dtype=deepseek.float64)
    args = {"new_full": ((3,), 2.0), "new_tensor": ([1.0, 2.0, 3.0],)}.get(name, ((3,),))
    assert (
        getattr(x, name)(*args).dtype == deepseek.float64
        and getattr(x, name)(*args, dtype=deepseek.int32).dtype == deepseek.int32
    )
    assert getattr(x, name)(*args).shape == (3,)


# --- numbers ----------------------------------------------------------------------------------------------------------
def test_numbers_out() -> None:
    assert (
        deepseek.tensor(2.5).item() == 2.5
        and type(deepseek.tensor(2).item()) is int
        and type(deepseek.tensor(True).item()) is bool
    )
    assert (
        float(deepseek.tensor([2.5])) == 2.5
        and int(deepseek.tensor(2.9)) == 2
        and bool(deepseek.tensor([[0.1]])) is True
        and complex(deepseek.tensor(2.0)) == 2 + 0j
    )
    assert (
        deepseek.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
        and deepseek.tensor(1.5).tolist() == 1.5
        and deepseek.zeros(0, 2).tolist() == []
    )
    assert (
        math.sqrt(deepseek.tensor(9.0)) == 3.0
        and round(deepseek.tensor(2.567).item(), 1) == 2.6
        and list(range(deepseek.tensor(3))) == [0, 1, 2]
    )
    assert deepseek.tensor(2**62 + 1).item() == 2**62 + 1


def test_truth_of_several_numbers_is_ambiguous() -> None:
    for f in (bool, lambda x: x and 1):
        with pytest.raises(RuntimeError, match="ambiguous"):
            f(deepseek.tensor([1.0, 2.0]))
    with pytest.raises(RuntimeError, match="(?i)one element|single|scalar"):
        deepseek.tensor([1.0, 2.0]).item()
    with pytest.raises(TypeError, match="integer|index"):
        [1, 2][deepseek.tensor(1.0)]


def test_tensor_from_nested_data() -> None:
    assert deepseek.tensor([[1, 2.5], [True, 4]]).tolist() == [[1.0, 2.5], [1.0, 4.0]]
    assert (
        deepseek.tensor([deepseek.tensor(1.0), 2.0]).tolist() == [1.0, 2.0]
        and deepseek.tensor((np.float32(1.5), np.float32(2))).dtype == deepseek.float32
    )
    assert deepseek.tensor(range(3)).tolist() == [0, 1, 2] and deepseek.tensor(np.int32(7)).dtype == deepseek.int32
    with pytest.raises(ValueError, match="expected sequence|length|ragged"):
        deepseek.tensor([[1, 2], [3]])
    for bad in ("text", None, object(), [None], {}):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            deepseek.tensor(bad)
    with pytest.raises((RuntimeError, OverflowError, ValueError), match="(?i)overflow|range|large"):
        deepseek.tensor(2**70)


def test_tensor_copies_and_as_tensor_does_not() -> None:
    a = np.zeros(3)
    x = deepseek.tensor(a)
    x[0] = 1
    assert a[0] == 0
    y = deepseek.as_tensor(a)
    y[0] = 2
    assert a[0] == 2 and deepseek.as_tensor(y) is y and deepseek.as_tensor([1, 2]).tolist() == [1, 2]


# --- operators --------------------------------------------------------------------------------------------------------
BINARY = [
    "x + y",
    "x - y",
    "x * y",
    "x / y",
    "x // y",
    "x % y",
    "x ** y",
    "x == y",
    "x != y",
    "x < y",
    "x <= y",
    "x > y",
    "x >= y",
    "x + 2",
    "2 + x",
    "x - 2",
    "2 - x",
    "x * 2",
    "2 * x",
    "x / 2",
    "2 / x",
    "x // 2",
    "2 // x",
    "x % 2",
    "5 % x",
    "x ** 2",
    "2 ** x",
    "2 < x",
    "2 >= x",
    "2 == x",
    "-x",
    "+x",
    "abs(x)",
    "x @ y",
]


@pytest.mark.parametrize("text", BINARY)
def test_operators(text: str) -> None:
    a, b = np.array([3.0, 1.5, 2.0]), np.array([2.0, 1.5, 4.0])
    got = eval(text, {"x": deepseek.from_numpy(a.copy()), "y": deepseek.from_numpy(b.copy())})
    np.testing.assert_allclose(got.numpy(), eval(text, {"x": a, "y": b}), rtol=1e-12)


@pytest.mark.parametrize(
    "text", ["x & y", "x | y", "x ^ y", "~x", "x << 1", "x >> 1", "x & 6", "6 & x", "x ^ 1", "1 | x"]
)
def test_integer_operators(text: str) -> None:
    a, b = np.array([3, 12, 7]), np.array([6, 10, 1])
    got = eval(text, {"x": deepseek.from_numpy(a.copy()), "y": deepseek.from_numpy(b.copy())})
    np.testing.assert_array_equal(got.numpy(), eval(text, {"x": a, "y": b}))


@pytest.mark.parametrize("other", ["text", None, object(), {}])
def test_operators_refuse_other_types(other: Any) -> None:
    x = deepseek.ones(2)
    for f in (lambda: x + other, lambda: other * x, lambda: x @ other, lambda: x < other):
        with pytest.raises(TypeError):
            f()


def test_operators_defer_to_other_classes() -> None:
    class Mine:
        def __radd__(self, other: Any) -> str:
            return "mine"

        def __rmatmul__(self, other: Any) -> str:
            return "matrix"

    assert deepseek.ones(2) + Mine() == "mine" and deepseek.ones(2) @ Mine() == "matrix"


def test_equality_with_anything_else() -> None:
    x = deepseek.ones(2)
    assert (x == None) is False and (x != None) is True  # noqa: E711
    assert x in [x] and hash(x) == hash(x) and len({x, x, deepseek.ones(2)}) == 2


# --- methods and functions agree --------------------------------------------------------------------------------------
def test_every_public_op_is_reachable() -> None:
    """Every op of the table that does not begin with _ is a function of the package, of nn.functional, or a method."""
    places = (deepseek, deepseek.nn.functional, deepseek.Tensor)
    names = {
        full.split(".")[0]
        for full, row in deepseek._C.op_table().items()
        if not full.startswith("_") and not row.hidden
    }
    lost = [name for name in names if not any(hasattr(p, name) for p in places)]
    assert not lost


@pytest.mark.parametrize("name", ["exp", "sum", "softmax", "matmul", "reshape", "gather", "where", "topk"])
def test_docstrings_come_from_the_table(name: str) -> None:
    row = deepseek._C.op_table()[name]
    assert row.doc.strip().splitlines()[0] in getattr(deepseek, name).__doc__


@pytest.mark.parametrize(
    ("f", "m"),
    [
        ("deepseek.sum(x, dim=1, keepdim=True)", "x.sum(1, keepdim=True)"),
        ("deepseek.softmax(x, dim=-1)", "x.softmax(-1)"),
        ("deepseek.add(x, x, alpha=2)", "x.add(x, alpha=2)"),
        ("deepseek.clamp(x, min=0)", "x.clamp(min=0)"),
        ("deepseek.cat([x, x])", "deepseek.concat((x, x))"),
        ("deepseek.max(x, 1).values", "x.max(dim=1)[0]"),
        ("deepseek.sort(x, descending=True).indices", "x.argsort(descending=True)"),
        ("deepseek.mean(x, (0, 1))", "x.mean()"),
        ("deepseek.std(x, 0)", "x.var(0).sqrt()"),
        ("deepseek.topk(x, 1).values", "x.amax(-1, keepdim=True)"),
        ("deepseek.var(x, dim=1, correction=0)", "x.var(1, unbiased=False)"),
        ("deepseek.nn.functional.relu(x)", "x.clamp_min(0)"),
        ("deepseek.true_divide(x, 2)", "x.div(2)"),
        ("deepseek.multiply(x, 3)", "x.mul(3)"),
        ("deepseek.subtract(x, 3)", "x.sub(3)"),
    ],
)
def test_spellings_agree(f: str, m: str) -> None:
    names = {"deepseek": deepseek, "x": deepseek.tensor([[0.5, -1.0, 2.0], [3.0, 0.0, -2.0]])}
    a, b = eval(f, names), eval(m, names)
    assert deepseek.equal(a, b) or deepseek.allclose(a, b)


def test_equal_and_allclose() -> None:
    assert deepseek.equal(deepseek.ones(2), deepseek.ones(2)) and not deepseek.equal(deepseek.ones(2), deepseek.ones(3))
    assert deepseek.allclose(deepseek.ones(2), deepseek.ones(2) + 1e-7) and not deepseek.allclose(
        deepseek.ones(2), deepseek.zeros(2)
    )
    nan = deepseek.tensor([math.nan])
    assert not deepseek.allclose(nan, nan) and deepseek.allclose(nan, nan, equal_nan=True)
    assert deepseek.isclose(deepseek.tensor([1.0, 2.0]), deepseek.tensor([1.0, 2.1])).tolist() == [True, False]


def test_named_results() -> None:
    r = deepseek.tensor([[1.0, 3.0, 2.0]]).max(dim=1)
    values, indices = r
    assert r.values.tolist() == values.tolist() == [3.0] and r.indices.tolist() == indices.tolist() == [1]
    assert "max" in repr(r) and "values=" in repr(r)


def test_generator_and_seed() -> None:
    deepseek.manual_seed(3)
    a = deepseek.randn(5)
    deepseek.manual_seed(3)
    assert deepseek.equal(a, deepseek.randn(5)) and deepseek.initial_seed() == 3
    state = deepseek.get_rng_state()
    b = deepseek.randn(5)
    deepseek.set_rng_state(state)
    assert deepseek.equal(b, deepseek.randn(5))
    g1, g2 = (deepseek.Generator().manual_seed(11) for _ in range(2))
    assert deepseek.equal(deepseek.rand(4, generator=g1), deepseek.rand(4, generator=g2))
    assert not deepseek.equal(deepseek.rand(4, generator=g1), deepseek.rand(4))
