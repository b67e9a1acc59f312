"""What ``help()``, ``inspect.signature`` and tab completion show, for every public function, class and method."""

from __future__ import annotations

import inspect
import io
import pydoc
import re
from typing import Any

import deepseek
import pytest
from deepseek import nn
from public_api import callables, methods

# Types as schemas of ops and pybind11 write them.
SCHEMA = re.compile(
    r"\b(Tensor|Scalar|Generator|device|dtype|int|float|bool|str)(\[\]|\?)|\bTensor (input|self|other)\b"
    r"|\barg0\b|\w: object\b|\w::\w|\btyping\.|<\w+ object"
)
HANDED_ON = {  # whatever is given goes to a function of the user's
    "deepseek.autograd.Function.apply",
    "deepseek.autograd.Function.forward",
    "deepseek.nn.Module.forward",
    "deepseek.GradScaler.step",
    "deepseek.utils.checkpoint.checkpoint",
    "deepseek.nn.Identity",  # any arguments, to stand in for any layer
}


def public() -> dict[str, Any]:
    """Each function, class and method under the first name it is found by."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, value in callables():
        if id(value) in seen:
            continue
        seen.add(id(value))
        found[name] = value
        if isinstance(value, type) and not issubclass(value, BaseException):
            for method, function in methods(value):
                if id(function) not in seen:
                    seen.add(id(function))
                    found[f"{name}.{method}"] = function
    return found


PUBLIC = public()


def test_there_is_much_to_go_over() -> None:
    assert len(PUBLIC) > 900


def test_every_signature_is_readable() -> None:
    wrong: dict[str, str] = {}
    for name, value in PUBLIC.items():
        if isinstance(value, type) and issubclass(value, BaseException):
            continue  # Python has none for exceptions
        try:
            signature = inspect.signature(value)
        except ValueError as error:
            wrong[name] = str(error)
            continue
        kinds = {p.kind for p in signature.parameters.values()}
        anything = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
        defaults = [p.default for p in signature.parameters.values() if p.default is not p.empty]
        if (anything and name not in HANDED_ON) or any("object at 0x" in repr(d) for d in defaults):
            wrong[name] = str(signature)
        if SCHEMA.search(str(signature)):
            wrong[name] = str(signature)
    assert not wrong


def test_every_documentation_is_a_sentence_of_plain_python() -> None:
    wrong = {}
    for name, value in PUBLIC.items():
        text = inspect.getdoc(value) or ""
        if len(text.split()) < 3 or SCHEMA.search(text):
            wrong[name] = text[:100]
    assert not wrong


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (
            deepseek.softmax,
            [
                "softmax(input, dim, dtype=None)",
                "softmax(input: Tensor, dim: int, dtype: dtype | None = None) -> Tensor",
            ],
        ),
        (
            deepseek.max,
            ["max(input, other=..., dim=..., keepdim=False)", "max(input: Tensor) -> Tensor", "(values, indices)"],
        ),
        (deepseek.Tensor.add_, ["add_(input, other, *, alpha=1)", "In place"]),
        (deepseek.Tensor.transpose_, ["dim0, dim1"]),
        (deepseek.where, ["condition: 'Tensor'", "nonzero(condition, as_tuple=True)"]),
        (deepseek.tensor, ["data: 'Any'", "dtype: 'dtype | None' = None", "requires_grad: 'bool' = False"]),
        (nn.Linear, ["in_features: 'int'", "bias: 'bool' = True"]),
    ],
)
def test_help(value: Any, lines: list[str]) -> None:
    text = io.StringIO()
    pydoc.Helper(output=text)(value)
    for line in lines:
        assert line in text.getvalue()


def test_a_class_without_a_constructor_of_its_own() -> None:
    class Mine(deepseek.Tensor):
        def __init__(self, size: int) -> None:
            pass

    assert str(inspect.signature(deepseek.Tensor)) == "(data=(), /)"
    assert str(inspect.signature(Mine)) == "(size: 'int') -> 'None'"
    assert list(inspect.signature(nn.Parameter).parameters) == ["data", "requires_grad"]
    assert list(inspect.signature(deepseek.Generator).parameters) == ["device"]


# --- completion and display -------------------------------------------------------------------------------------------
def test_completion_of_tensors_and_modules() -> None:
    x = deepseek.ones(2)
    x.mine = 1  # type: ignore[attr-defined]
    assert {"reshape", "grad", "dtype", "mine"} <= set(dir(x))
    model = nn.Sequential()
    model.first = nn.Linear(1, 1)
    model.register_buffer("scale", deepseek.ones(1))
    assert {"first", "scale", "parameters", "weight"} - set(dir(model)) == {"weight"}
    assert {"weight", "bias"} <= set(dir(model.first))


@pytest.mark.parametrize(
    "value",
    [
        deepseek, nn, deepseek.jit, deepseek.float32, deepseek.strided, deepseek.device("cpu"), deepseek.Generator(),
        deepseek.ones(2), nn.Parameter(deepseek.ones(1)), nn.Linear(1, 1), deepseek.FloatTensor, deepseek.Size([1]),
        deepseek.finfo(), deepseek.ones(1).untyped_storage(), deepseek.add, deepseek.Tensor.add, deepseek.no_grad(),
        deepseek.optim.SGD([deepseek.ones(1)], 0.1), deepseek.utils.data.DataLoader([1]),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_notebooks_can_show_and_inspect(value: Any) -> None:
    assert repr(value) and isinstance(dir(value), list)
    for probe in ("_repr_html_", "_repr_mimebundle_", "_ipython_display_", "_repr_pretty_", "__wrapped__"):
        assert getattr(value, probe, None) is None
    pydoc.render_doc(value)
