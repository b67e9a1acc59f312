"""Every op and function of the test database on objects of a subclass of Tensor: results are of that class."""

from __future__ import annotations

import warnings
from typing import Any

import deepseek
import pytest
from opinfo import OpInfo
from opinfo.core import fill, leaves, tree_map
from opinfo.running import KNOWN, run


class Named(deepseek.Tensor):
    """Says nothing about ops."""


@pytest.mark.parametrize("info", [pytest.param(info, id=info.name) for info in KNOWN if info.samples])
def test_results_are_of_the_class(info: OpInfo) -> None:
    for index in range(len(info.samples)):
        args, kwargs = fill(info, index, (*info.floats, *info.ints)[0]).tensors()
        if not list(leaves((args, kwargs), deepseek.Tensor)):
            continue
        args, kwargs = tree_map(lambda t: t.as_subclass(Named), (args, kwargs), deepseek.Tensor)
        given = {id(t) for t in leaves((args, kwargs), deepseek.Tensor)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = run(info, args, kwargs)
        for t in leaves(result, deepseek.Tensor):
            assert id(t) in given or type(t) is Named, f"{info.name}{info.samples[index]}: {type(t)}"


def test_views_share_and_gradients_arrive() -> None:
    x = deepseek.ones(2, 2, requires_grad=True)
    y = x.as_subclass(Named)
    y[0].mul(3).sum().backward()
    assert type(y[0]) is Named and x.grad.tolist() == [[3.0, 3.0], [0.0, 0.0]] and type(x.grad) is deepseek.Tensor


def test_attributes_do_not_follow() -> None:
    x: Any = deepseek.ones(2).as_subclass(Named)
    x.note = "mine"
    assert not hasattr(x * 2, "note") and x.add_(1).note == "mine"
