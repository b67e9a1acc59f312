"""Modes that switch recording on and off: no_grad, enable_grad, set_grad_enabled, inference_mode."""

from __future__ import annotations

import threading
from typing import Any

import deepseek
import numpy as np
import pytest

F64 = deepseek.float64


def leaf(*values: float) -> Any:
    return deepseek.tensor(list(values), dtype=F64, requires_grad=True)


def close(tensor: Any, *values: float) -> None:
    np.testing.assert_allclose(tensor.detach().numpy(), np.array(values), rtol=1e-12)


def test_no_grad_and_enable_grad() -> None:
    x = leaf(1.0)
    assert deepseek.is_grad_enabled()
    with deepseek.no_grad():
        assert not deepseek.is_grad_enabled() and not (x * 2).requires_grad
        with deepseek.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_no_grad_restores_after_an_exception() -> None:
    with pytest.raises(KeyError), deepseek.no_grad():
        raise KeyError
    assert deepseek.is_grad_enabled()


@pytest.mark.parametrize(
    "decorate", [lambda f: deepseek.no_grad()(f), lambda f: deepseek.no_grad(f), lambda f: deepseek.inference_mode()(f)]
)
def test_modes_as_decorators(decorate: Any) -> None:
    @decorate
    def f(x: Any, *, scale: int) -> Any:
        """A doc."""
        return x * scale

    assert not f(leaf(1.0), scale=2).requires_grad
    assert f.__name__ == "f" and f.__doc__ == "A doc."


def test_modes_around_generators() -> None:
    @deepseek.no_grad()
    def steps(x: Any) -> Any:
        yield (x * 2).requires_grad
        yield (x * 3).requires_grad

    found = []
    for flag in steps(leaf(1.0)):
        found.append((flag, deepseek.is_grad_enabled()))
    assert found == [(False, True), (False, True)]


def test_set_grad_enabled() -> None:
    x = leaf(1.0)
    with deepseek.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    deepseek.set_grad_enabled(False)
    try:
        assert not (x * 2).requires_grad
    finally:
        deepseek.set_grad_enabled(True)


def test_inference_mode() -> None:
    x = leaf(1.0, 2.0)
    with deepseek.inference_mode():
        assert deepseek.is_inference_mode_enabled()
        y = x * 2
        assert y.is_inference() and not y.requires_grad
        y.add_(1)
    assert not deepseek.is_inference_mode_enabled()
    with pytest.raises(RuntimeError, match="[Ii]nference"):
        y.add_(1)
    with pytest.raises(RuntimeError, match="[Ii]nference"):
        x * y
    assert (y.clone() * x).requires_grad


def test_enable_grad_inside_inference_mode_records_nothing() -> None:
    x = leaf(1.0, 2.0)
    with deepseek.inference_mode(), deepseek.enable_grad():
        assert deepseek.is_grad_enabled()
        y = x * 2
        x.add_(1)
    assert y.is_inference() and not y.requires_grad
    close(x, 2, 3)


def test_an_inference_tensor_does_not_become_a_leaf_that_requires_grad() -> None:
    with deepseek.inference_mode():
        y = deepseek.ones(2)
        assert y.clone().requires_grad_().requires_grad
    with pytest.raises(RuntimeError, match="outside InferenceMode"):
        y.requires_grad_()
    assert not y.requires_grad


def test_views_made_in_inference_mode_know_their_base() -> None:
    y = leaf(1.0, 2.0) * 2
    with deepseek.inference_mode():
        v = y[:1]
        w = v.unsqueeze(0)
        assert deepseek.zeros(2)[:1]._base is None
    for view in (v, w):
        assert view._base is y and view.requires_grad and not view.is_inference()
        with pytest.raises(RuntimeError, match="inference mode"):
            view.mul_(leaf(3.0))  # y would get a wrong gradient


def test_fused_ops_are_differentiated_in_inference_mode() -> None:
    x = leaf(1.0, 2.0)
    loss = deepseek.nn.functional.rms_norm(x, (2,)).sum()
    with deepseek.inference_mode():
        (found,) = deepseek.autograd.grad(loss, x, retain_graph=True)
    (want,) = deepseek.autograd.grad(loss, x)
    close(found, *want.tolist())


def test_modes_belong_to_their_thread() -> None:
    seen = []
    with deepseek.no_grad():
        worker = threading.Thread(target=lambda: seen.append(deepseek.is_grad_enabled()))
        worker.start()
        worker.join()
    assert seen == [True]
