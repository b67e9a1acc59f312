"""Wrong calls: the class PyTorch raises, a text that helps, and a process that goes on."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from types import BuiltinFunctionType
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.nn import functional as F
from deepseek.utils.data import TensorDataset

# (call with x = ones(3, 4), class, patterns that the text must hold in any order)
CASES: list[tuple[str, Any, list[str]]] = [
    # arguments
    ("deepseek.exp()", TypeError, ["exp"]),
    ("deepseek.exp(x, x)", TypeError, ["exp"]),
    ("deepseek.exp(1.0)", TypeError, ["exp", "Tensor", "float"]),
    ("deepseek.exp('a')", TypeError, ["exp", "str"]),
    ("deepseek.exp(None)", TypeError, ["exp", "None"]),
    ("deepseek.sum(x, nosuch=1)", TypeError, ["sum", "nosuch"]),
    ("deepseek.softmax(x)", TypeError, ["softmax", "dim"]),
    ("deepseek.softmax(x, 0, dim=0)", TypeError, ["softmax"]),
    ("deepseek.softmax(x, 'a')", TypeError, ["softmax"]),
    ("deepseek.softmax(x, 1.5)", TypeError, ["softmax"]),
    ("deepseek.reshape(x, 'ab')", TypeError, ["reshape"]),
    ("deepseek.cat(x)", TypeError, ["cat"]),
    ("deepseek.cat([x, 1])", TypeError, ["Tensor", "int"]),
    ("deepseek.zeros(2, dtype='float32')", TypeError, ["dtype"]),
    ("deepseek.zeros('a')", TypeError, ["zeros"]),
    ("deepseek.zeros(2.5)", TypeError, ["zeros"]),
    ("deepseek.zeros(2, dtype=deepseek.uint8).fill_(300)", RuntimeError, ["300", "uint8", "overflow"]),
    ("deepseek.zeros(2, dtype=deepseek.int8).clamp(-200, 3)", RuntimeError, ["-200", "int8"]),
    ("deepseek.zeros(2, dtype=deepseek.int32).masked_fill(deepseek.ones(2) > 0, 2**40)", RuntimeError, ["int32"]),
    ("deepseek.zeros(2, dtype=deepseek.uint8).__setitem__(0, -300)", RuntimeError, ["-300", "uint8"]),
    ("deepseek.where(x > 0, x.to(deepseek.int16), 70000)", RuntimeError, ["70000", "int16"]),
    ("deepseek.add(x.to(deepseek.int8), x.to(deepseek.int8), alpha=128)", RuntimeError, ["128", "int8"]),
    ("x.to(deepseek.float16).fill_(70000)", RuntimeError, ["70000", "float16"]),
    ("x.to(deepseek.int8) ** 200", RuntimeError, ["200", "int8"]),
    ("x.view(1.5)", TypeError, ["view"]),
    ("x.add()", TypeError, ["add"]),
    ("x.sum(dim='a')", TypeError, ["sum"]),
    ("x.nosuchmethod()", AttributeError, ["nosuchmethod"]),
    ("deepseek.nosuchfunction(x)", AttributeError, ["nosuchfunction"]),
    ("x.shape.foo", AttributeError, ["foo"]),
    ("deepseek.manual_seed('a')", (TypeError, ValueError, RuntimeError), []),
    # shapes: the text shows the sizes received
    ("x + deepseek.ones(3, 5)", RuntimeError, ["4", "5"]),
    ("x @ x", RuntimeError, ["3x4|3, 4"]),
    ("x.view(5)", RuntimeError, ["5", "12"]),
    ("x.reshape(7, -1)", RuntimeError, ["7", "12"]),
    ("x.expand(3, 5)", RuntimeError, ["5", "4"]),
    ("x.t().view(12)", RuntimeError, ["reshape", "stride|contiguous"]),
    ("x.sum(2)", IndexError, ["2", r"-2|\[-2, 1\]"]),
    ("x.sum(-3)", IndexError, ["-3"]),
    ("x.select(0, 3)", IndexError, ["3"]),
    ("x.narrow(0, 2, 2)", RuntimeError, ["2", "3"]),
    ("x.squeeze(4)", IndexError, ["4"]),
    ("x.permute(0)", RuntimeError, ["permute|dim"]),
    ("deepseek.stack([x, deepseek.ones(2)])", RuntimeError, ["3, 4", "2"]),
    ("deepseek.cat([x, deepseek.ones(3)])", RuntimeError, ["dim"]),
    ("x.split(0)", RuntimeError, ["split|0"]),
    ("x.repeat(2)", RuntimeError, ["repeat"]),
    ("deepseek.zeros(-1)", RuntimeError, ["negative", "-1"]),
    ("deepseek.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1)", (RuntimeError, ValueError), ["8"]),
    # dtypes
    ("x.gather(0, x)", RuntimeError, ["int64|index"]),
    ("x & x", RuntimeError, ["float|and"]),
    ("deepseek.ones(2, dtype=deepseek.int64).mean()", RuntimeError, ["int64|Long", "float"]),
    ("x @ x.t().double()", RuntimeError, ["float32|float", "float64|double"]),
    ("x.masked_fill(x, 1.0)", RuntimeError, ["bool"]),
    ("deepseek.ones(2, dtype=deepseek.int32).add_(1.5)", RuntimeError, ["int|Int"]),
    ("deepseek.ones(2, dtype=deepseek.int32).div_(2)", RuntimeError, ["int|Int"]),
    ("deepseek.ones(2, dtype=deepseek.int64) // 0", RuntimeError, ["(?i)zero"]),
    ("deepseek.ones(2, dtype=deepseek.int64) % 0", RuntimeError, ["(?i)zero"]),
    ("deepseek.arange(3, dtype=deepseek.int64).requires_grad_()", RuntimeError, ["float"]),
    # values
    ("deepseek.full((2,), 'a')", TypeError, ["full"]),
    ("deepseek.tensor(300, dtype=deepseek.uint8)", (RuntimeError, OverflowError), ["uint8|overflow|value"]),
    ("deepseek.nn.functional.dropout(x, p=2.0)", ValueError, ["2"]),
    ("deepseek.arange(0, 5, 0)", RuntimeError, ["step|zero"]),
    ("deepseek.multinomial(deepseek.tensor([0.5, 0.5]), 3)", RuntimeError, ["3|sample"]),
    ("deepseek.einsum('ij,jk', x)", (RuntimeError, ValueError), ["operand"]),
    ("deepseek.set_num_threads(0)", (RuntimeError, ValueError), ["0|positive"]),
    ("x.topk(5)", RuntimeError, ["k|range"]),
]


def evaluate(call: str) -> Any:
    return eval(call, {"deepseek": deepseek, "x": deepseek.ones(3, 4)})


@pytest.mark.parametrize(("call", "error", "words"), CASES, ids=[case[0] for case in CASES])
def test_wrong_call(call: str, error: Any, words: list[str]) -> None:
    with pytest.raises(error) as caught:
        evaluate(call)
    text = str(caught.value)
    missing = [word for word in words if not re.search(word, text)]
    assert not missing, f"{missing} not in {text!r}"


def test_type_errors_show_the_signature() -> None:
    with pytest.raises(TypeError) as caught:
        deepseek.softmax(deepseek.ones(2), nosuch=1)
    assert "dim" in str(caught.value) and "input" in str(caught.value)


@pytest.mark.parametrize("size", [(2**40,), (2**31, 2**31), (2**62, 4), (2**21, 2**21, 2**21), (2**63 - 1, 2)])
def test_too_much_memory(size: tuple[int, ...]) -> None:
    """An impossible size is an error before a page is touched, and the next op works."""
    with pytest.raises((MemoryError, RuntimeError), match="(?i)memory|overflow|size"):
        deepseek.empty(size)
    with pytest.raises((MemoryError, RuntimeError), match="(?i)memory|overflow|size"):
        deepseek.zeros(1).expand(size).contiguous()
    assert deepseek.ones(3).sum().item() == 3.0


def test_out_of_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="(?i)byte|memory"):
        deepseek.empty(2**45, dtype=deepseek.uint8)
    with pytest.raises(MemoryError):
        deepseek.ones(2**16, 1) @ deepseek.ones(1, 2**30).expand(2**14, 2**30)[:1]
    assert deepseek.ones(3).sum().item() == 3.0


def test_an_error_leaves_no_half_written_tensor() -> None:
    x = deepseek.zeros(3)
    for f in (
        lambda: x.add_(deepseek.ones(4)),
        lambda: x.copy_(deepseek.ones(2)),
        lambda: x.index_put_((deepseek.tensor([0, 7]),), deepseek.tensor(1.0)),
        lambda: x.scatter_(0, deepseek.tensor([1, 9]), 1.0),
        lambda: x.index_add_(0, deepseek.tensor([0, 9]), deepseek.ones(2)),
    ):
        with pytest.raises((RuntimeError, IndexError)):
            f()
    assert x.tolist() == [0.0, 0.0, 0.0]


def test_errors_inside_backward_name_the_op() -> None:
    x = deepseek.ones(2, requires_grad=True)
    y = x.exp()
    with deepseek.no_grad():
        y.add_(1)
    with pytest.raises(RuntimeError, match="(?i)exp"):
        y.sum().backward()


def test_a_dtype_that_an_op_does_not_take_is_named() -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match="(?i)softmax.*(int64|long)|(int64|long).*softmax"):
        deepseek.arange(3).softmax(0)


def test_every_op_refuses_no_arguments_politely() -> None:
    """No op crashes on an empty call; those that need arguments raise TypeError and name themselves."""
    for name, row in deepseek._C.op_table().items():
        required = [
            p
            for p in row.schema.split("(", 1)[1].rsplit(")", 1)[0].split(",")
            if p.strip() and "=" not in p and p.strip() != "*"
        ]
        if required and not required[0].strip().startswith("Tensor[]"):
            with pytest.raises(TypeError, match=re.escape(name.lstrip("_").split("_")[0])):
                deepseek._C.op_call(name)


def test_every_op_refuses_a_wrong_keyword() -> None:
    for name in deepseek._C.op_table():
        with pytest.raises(TypeError):
            deepseek._C.op_call(name, no_such_argument=1)


SCHEMA_SPELLING = re.compile(r"\\w\\?|\\w\\[\\]|\\bScalar\\b|\\]\\*")


def test_types_are_named_as_python_knows_them() -> None:
    """Neither errors nor docstrings show the spelling of the op table: `dtype?`, `int[]*`, `Scalar`."""
    seen = 0
    for name, row in deepseek._C.op_table().items():
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), {}),
            ((), {"no_such_argument": 1}),
            ((object(),) * 20, {}),
        ]
        for i, (argument, *_) in enumerate(row.arguments):
            before = (deepseek.ones(2, 2),) * i
            calls += [((*before, object()), {}), ((*before,), {argument: object()})]
        for args, kwargs in calls:
            try:
                deepseek._C.op_call(name, *args, **kwargs)
            except Exception as error:
                seen += 1
                assert not SCHEMA_SPELLING.search(str(error)), f"{name}: {error}"
        public = getattr(deepseek, name.partition(".")[0], None)
        assert not SCHEMA_SPELLING.search(getattr(public, "__doc__", None) or ""), name
    assert seen > 1000


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: x.sum(dtype="f"), "sum(): argument 'dtype' must be dtype or None, not str"),
        (lambda x: x.sum("a"), "sum(): argument 'dim' must be int, tuple of ints or None, not str"),
        (lambda x: x.view("a"), "view(): argument 'size' must be int or tuple of ints, not str"),
        (lambda x: deepseek.exp(1.0), "exp(): argument 'input' must be Tensor, not float"),
        (lambda x: deepseek.cat(3), "cat(): argument 'tensors' must be tuple of Tensors, not int"),
        (lambda x: x.softmax("a"), "softmax(): argument 'dim' must be int, not str"),
        (lambda x: deepseek.full((2,), "a"), "full(): argument 'fill_value' must be number, not str"),
        (lambda x: deepseek.add(x, "a"), "add(): argument 'other' must be Tensor or number, not str"),
        (lambda x: x.pow("a"), "must be Tensor or number, not str"),
        (lambda x: x.masked_fill(x > 0, "a"), "argument 'value' must be Tensor or number, not str"),
        (lambda x: x.add_("a"), "add_(): argument 'other' must be Tensor or number, not str"),
        (lambda x: x.fill_("a"), "fill_(): argument 'value' must be "),
        (lambda x: deepseek.where(x > 0, "a", x), "must be Tensor or number, not str"),
        (lambda x: deepseek.zeros((2, "a")), "must be int or tuple of ints, but found element of type str at pos 1"),
        (lambda x: deepseek.zeros(2, "a"), "must be tuple of ints, but found element of type str at pos 1"),
        (lambda x: deepseek.zeros((2, True)), "but found element of type bool at pos 1"),
        (lambda x: deepseek.zeros((2, 2**70)), "but found element of type int that does not fit in 64 bits at pos 1"),
        (lambda x: x.sum(2**70), "not int that does not fit in 64 bits"),
        (lambda x: x.sum(dim=[0, "a"]), "must be int, tuple of ints or None, but found element of type str at pos 1"),
        (lambda x: deepseek.nn.Linear(2.5, 2), "but found element of type float at pos 1"),
        (lambda x: deepseek.nn.Embedding("a", 2), "but found element of type str at pos 0"),
        (lambda x: F.layer_norm(x, "a"), "argument 'normalized_shape' must be int or tuple of ints, not str"),
        (lambda x: deepseek.add(x, np.ones(2)), "not numpy.ndarray; deepseek.as_tensor() makes a Tensor of it"),
        (lambda x: deepseek.add(x, int), "not type"),
        (lambda x: deepseek.exp(Fraction(1)), "not fractions.Fraction"),
        (lambda x: deepseek.add(x, Ellipsis), "not ellipsis"),
        (lambda x: deepseek.exp(x.dtype), "must be Tensor, not dtype"),
        (lambda x: deepseek.allclose(x, 1), "allclose(): argument 'other' must be Tensor, not int"),
        (lambda x: deepseek.rand(2, generator=1), "rand(): argument 'generator' must be Generator or None, not int"),
        (lambda x: F.mse_loss(x, "a"), "mse_loss(): argument 'target' must be Tensor, not str"),
        (lambda x: F.pad(x, 2), "pad(): argument 'pad' must be tuple of ints, not int"),
        (lambda x: x.copy_(np.ones(2)), "got numpy.ndarray; deepseek.as_tensor() makes a Tensor of it"),
        (lambda x: TensorDataset([1, 2]), "TensorDataset(): argument 'tensors' must be Tensor, not list"),
        (
            lambda x: x.exp(1, 2),
            "exp(): takes 1 positional arguments but 3 were given; the signature is exp(input: Tensor) -> Tensor",
        ),
        (
            lambda x: deepseek.cumsum(x, 0, nosuch=1),
            "cumsum(): got an unexpected keyword argument 'nosuch'; the signature is "
            "cumsum(input: Tensor, dim: int, *, dtype: dtype | None = None) -> Tensor",
        ),
    ],
)
def test_what_a_wrong_type_is_told(call: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        call(deepseek.ones(2, 2))
    assert text in str(caught.value)


@pytest.mark.parametrize("value", ["a", 1.5, None, deepseek.ones(2)])
def test_functions_bound_by_pybind11_say_it_in_the_same_words(value: Any) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError) as caught:
        deepseek.set_num_threads(value)
    text = f"set_num_threads() does not take ({kind}); the signature is set_num_threads(int: int) -> None"
    assert str(caught.value) == text
    with pytest.raises(TypeError, match=r"does not take \(int 1099511627776\)"):
        deepseek.set_num_threads(2**40)
    context = deepseek._C.DisableTorchFunctionSubclass
    with pytest.raises(TypeError, match=rf"__enter__\(\) does not take \({context.__name__}, {kind}\); the sig"):
        context().__enter__(value)
    with pytest.raises(TypeError, match=rf"__init__\(\) does not take \({context.__name__}, nosuch={kind}\)"):
        context(nosuch=value)


def test_no_public_function_shows_the_words_of_pybind11() -> None:
    seen = 0
    for name in dir(deepseek._C):
        function = getattr(deepseek._C, name)
        if not isinstance(function, BuiltinFunctionType):
            continue
        try:
            function(*["a"] * 9)
        except Exception as error:
            seen += 1
            assert not re.search("incompatible|Invoked with|SupportsInt", str(error)), f"{name}: {error}"
    assert seen > 50


def test_an_unknown_op_is_named() -> None:
    with pytest.raises((KeyError, AttributeError, RuntimeError), match="no_such_op"):
        deepseek._C.op_call("no_such_op")
