"""In-place writes through aliases and views, with and without recording; version counters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from opinfo.inplace_programs import PROGRAMS

F64 = deepseek.float64


def numeric_gradient(program: Callable[[Any], Any], at: np.ndarray) -> np.ndarray:
    """Central differences of sum(program(x)) with nothing recorded."""
    out = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * 1e-6
            with deepseek.no_grad():
                out[place] += sign * program(deepseek.tensor(moved, dtype=F64)).sum().item() / 2e-6
    return out


AT = np.array([[0.7, -1.2, 0.4, 1.6], [-0.3, 0.9, 1.1, -0.8], [1.3, 0.2, -0.6, 0.5]])


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradient_through_writes(name: str) -> None:
    f = PROGRAMS[name]
    x = deepseek.tensor(AT, dtype=F64, requires_grad=True)
    out = f(x)
    with deepseek.no_grad():
        plain = f(deepseek.tensor(AT, dtype=F64))
    np.testing.assert_array_equal(out.detach().numpy(), plain.numpy(), err_msg="recording changed the values")
    np.testing.assert_array_equal(x.detach().numpy(), AT, err_msg="the input was written")
    (grad,) = deepseek.autograd.grad(out.sum(), x)
    np.testing.assert_allclose(grad.numpy(), numeric_gradient(f, AT), rtol=1e-6, atol=1e-7)


SECOND_ORDER = [
    "scale_a_column",
    "assign_a_row",
    "write_through_a_flat_view",
    "base_sees_a_write_through_a_view",
    "write_to_the_diagonal",
    "overlapping_views_written_in_turn",
    "augmented_operators",
    "view_made_before_the_write_sees_it",
]


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_derivative_through_writes(name: str) -> None:
    f = PROGRAMS[name]

    def gradient(x: Any) -> Any:
        x = x.detach().requires_grad_(True)
        with deepseek.enable_grad():
            return deepseek.autograd.grad(f(x).sum(), x)[0] ** 2

    x = deepseek.tensor(AT, dtype=F64, requires_grad=True)
    (g,) = deepseek.autograd.grad(f(x).sum(), x, create_graph=True)
    (gg,) = deepseek.autograd.grad((g**2).sum(), x)
    np.testing.assert_allclose(gg.numpy(), numeric_gradient(gradient, AT), rtol=1e-5, atol=1e-6)


# --- refusals ---------------------------------------------------------------------------------------------------------
def leaf(*values: float) -> Any:
    return deepseek.tensor(list(values), dtype=F64, requires_grad=True)


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.add_(1),
        lambda x: x.mul_(2),
        lambda x: x.zero_(),
        lambda x: x.__setitem__(0, 1.0),
        lambda x: x.copy_(x * 2),
    ],
)
def test_a_leaf_that_requires_grad_is_not_written(write: Callable[[Any], Any]) -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="leaf"):
        write(x)
    assert x.tolist() == [1.0, 2.0] and x._version == 0


@pytest.mark.parametrize("view", [lambda x: x[0], lambda x: x.view(2, 1), lambda x: x[:1], lambda x: x.unsqueeze(0)])
def test_a_view_of_such_a_leaf_is_not_written(view: Callable[[Any], Any]) -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="leaf"):
        view(x).add_(1)
    assert x.tolist() == [1.0, 2.0]


def test_a_view_of_a_leaf_that_was_switched_off_is_not_written() -> None:
    x = leaf(1.0, 2.0)
    view = x[:1]
    x.requires_grad_(False)
    with pytest.raises(RuntimeError, match="leaf"):
        view.add_(1)  # the view still has its gradient edge
    assert x.tolist() == [1.0, 2.0] and x.is_leaf


def test_a_leaf_is_written_under_no_grad() -> None:
    x = leaf(1.0, 2.0)
    with deepseek.no_grad():
        x.add_(1)
        x[0] = 9.0
    assert x.tolist() == [9.0, 3.0] and x.is_leaf and x.requires_grad
    (x * x).sum().backward()
    assert x.grad.tolist() == [18.0, 6.0]


SAVERS = {
    "mul": lambda y: y * y,
    "exp of the output": lambda y: y.exp(),
    "pow": lambda y: y**3,
    "sin": lambda y: y.sin(),
    "matmul": lambda y: y @ y,
    "tanh of the output": lambda y: y.tanh(),
    "log": lambda y: (y * y + 1).log(),
}


@pytest.mark.parametrize("name", ["mul", "pow", "sin", "matmul"])
def test_a_changed_saved_input_is_refused(name: str) -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    z = SAVERS[name](y)
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*version|version.*modified"):
        z.sum().backward()


@pytest.mark.parametrize("name", ["exp of the output", "tanh of the output"])
def test_a_changed_saved_output_is_refused(name: str) -> None:
    x = leaf(1.0, 2.0)
    z = SAVERS[name](x)
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_the_refusal_names_the_op_and_versions() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y.sin()
    y.add_(1)
    y.add_(1)
    with pytest.raises(RuntimeError) as caught:
        z.sum().backward()
    text = str(caught.value)
    assert "version 2" in text and "version 0" in text and re.search("sin|mul", text, re.IGNORECASE)


@pytest.mark.parametrize(
    "write",
    [
        lambda y: y[0].add_(1),
        lambda y: y.view(-1)[1].mul_(2),
        lambda y: y.detach().add_(1),
        lambda y: y.data.numpy() is None or y[1:].zero_(),
    ],
)
def test_a_write_through_any_alias_is_noticed(write: Callable[[Any], Any]) -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y.sin()
    write(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_a_product_of_rows_written_back_is_refused() -> None:
    y = leaf(1.0, 2.0, 3.0) * 2
    y[0] = y[1] * y[2]  # the product saved two elements of the storage it is written to
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_write_after_backward_is_fine() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.sin().sum().backward()
    y.add_(1)


def test_a_write_to_what_nobody_saved_is_fine() -> None:
    x = leaf(1.0, 2.0)
    y = x + 1
    z = y + 2
    y.mul_(0)
    (z * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    "write",
    [
        lambda t: t.copy_(deepseek.ones(3)),
        lambda t: t.copy_(deepseek.ones(1)),
        lambda t: t.copy_(t.detach()),
        lambda t: t[:].copy_(deepseek.ones(3)),
        lambda t: t.fill_(2),
        lambda t: t.ge_(deepseek.ones(3)),
    ],
)
def test_a_constant_written_over_a_result_leaves_zero_gradients(write: Callable[[Any], Any]) -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2
    write(y)
    assert y.requires_grad and not y.is_leaf and y._version == 1
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("shape", [(), (1,), (2,)])
@pytest.mark.parametrize("dtype", [deepseek.float32, F64])
def test_the_target_of_a_copy_has_a_gradient_of_its_own(shape: tuple[int, ...], dtype: Any) -> None:
    value = deepseek.ones(shape, dtype=dtype, requires_grad=True) * 2
    y = deepseek.zeros(2, dtype=F64)
    y.copy_(value)
    seen: list[Any] = []
    y.register_hook(lambda g: seen.append((g.tolist(), g.dtype)))
    weight = deepseek.tensor([1.0, 10.0], dtype=F64)
    dy, dvalue = deepseek.autograd.grad((y * weight).sum() + (value * 100).sum(), (y, value))
    assert dy.tolist() == [1.0, 10.0] and seen == [([1.0, 10.0], F64)]
    assert dvalue.dtype == dtype and dvalue.shape == shape
    assert dvalue.tolist() == ([101.0, 110.0] if shape == (2,) else deepseek.full(shape, 111.0).tolist())


def test_version_counter() -> None:
    x = deepseek.zeros(4)
    assert x._version == 0
    x.add_(1)
    x[0] = 2
    view = x[1:]
    assert x._version == view._version == 2
    view.mul_(2)
    assert x._version == x.detach()._version == 3
    assert x.clone()._version == 0
    with deepseek.no_grad():
        x.zero_()
    assert view._version == 4


def test_overlapping_memory_is_refused() -> None:
    with pytest.raises(RuntimeError, match="single memory location|expand|overlap"):
        deepseek.zeros(1, 3).expand(4, 3).add_(1)


def test_reading_and_writing_the_same_memory() -> None:
    x = deepseek.arange(5.0)
    x[1:] = x[:-1].clone()
    assert x.tolist() == [0.0, 0.0, 1.0, 2.0, 3.0]
    y = deepseek.arange(6.0).view(2, 3)
    y.copy_(y.clone().flip(0))
    assert y.tolist() == [[3.0, 4.0, 5.0], [0.0, 1.0, 2.0]]
    with pytest.raises(RuntimeError, match="overlap|memory"):
        z = deepseek.arange(5.0)
        z[1:].add_(z[:-1])


def test_in_place_broadcasts_only_the_other_side() -> None:
    x = deepseek.zeros(3, 4)
    x.add_(deepseek.arange(4.0))
    assert x[2].tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(RuntimeError, match="shape|size|broadcast"):
        deepseek.zeros(4).add_(deepseek.zeros(3, 4))


def test_unbind_and_split_views_are_not_written_while_recording() -> None:
    y = leaf(1.0, 2.0, 3.0, 4.0) * 2
    for part in (y.unbind(0)[0], y.split(2)[0], y.chunk(2)[0], y.split(2)[1][:1], y.unbind(0)[2].unsqueeze(0)):
        with pytest.raises(RuntimeError, match="multiple views|view"):
            part.mul_(2)


def test_a_view_made_under_no_grad_is_not_written_while_recording() -> None:
    y = leaf(1.0, 2.0) * 2
    with deepseek.no_grad():
        v = y[:1]
    for view in (v, v[:], v.unsqueeze(0)):
        with pytest.raises(RuntimeError, match="no_grad"):
            view.mul_(2)


def test_views_know_their_base() -> None:
    x = deepseek.zeros(3, 4)
    v = x[1:].t()
    assert v._base is x and v._is_view() and not x._is_view() and x._base is None
    assert x.clone()._base is None and v.data_ptr() == x.data_ptr() + 4 * 4


@pytest.mark.parametrize(
    ("make", "shares"),
    [
        (lambda x: x.view(4, 3), True),
        (lambda x: x.reshape(12), True),
        (lambda x: x.t().reshape(12), False),
        (lambda x: x[1], True),
        (lambda x: x[:, 1:3], True),
        (lambda x: x[[0, 1]], False),
        (lambda x: x.t(), True),
        (lambda x: x.expand(2, 3, 4), True),
        (lambda x: x.contiguous(), True),
        (lambda x: x.t().contiguous(), False),
        (lambda x: x.flatten(), True),
        (lambda x: x.unsqueeze(0), True),
        (lambda x: x.clone(), False),
        (lambda x: x.detach(), True),
        (lambda x: x.to(deepseek.float32), True),
        (lambda x: x.diagonal(), True),
        (lambda x: x.unfold(1, 2, 1), True),
        (lambda x: x.flip(0), False),
        (lambda x: x[None], True),
        (lambda x: x[..., 0], True),
        (lambda x: x.narrow(0, 0, 2), True),
        (lambda x: x.movedim(0, 1), True),
        (lambda x: x.squeeze(), True),
        (lambda x: x[x > -1], False),
        (lambda x: x.chunk(2)[1], True),
        (lambda x: x.as_strided((2, 2), (4, 1)), True),
        (lambda x: x.repeat(1, 1), False),
        (lambda x: x.unflatten(1, (2, 2)), True),
        (lambda x: x.data, True),
    ],
)
def test_what_shares_memory(make: Callable[[Any], Any], shares: bool) -> None:
    x = deepseek.zeros(3, 4)
    make(x).fill_(1) if not make(x).stride().count(0) else x.add_(1)
    y = make(deepseek.zeros(3, 4))
    assert y is not None
    x = deepseek.zeros(3, 4)
    v = make(x)
    x.add_(1)
    assert bool((v == 1).all()) is shares


def test_gradient_of_as_strided_beside_its_input() -> None:
    """It may read memory that the input does not show: that part of the gradient is nobody's."""
    x = deepseek.arange(20.0)[5:15].detach().requires_grad_()
    for offset, want in ((0, [0] * 10), (4, [1, 1, 1] + [0] * 7), (13, [0] * 8 + [1, 1])):
        y = x.as_strided((2, 2), (1, 2), offset)
        (grad,) = deepseek.autograd.grad(y.sum(), x)
        assert grad.tolist() == want
    base = deepseek.arange(20.0)[5:15].detach()
    with pytest.raises(RuntimeError, match="out of bounds|beside"):
        base.as_strided((2, 2), (1, 2), 0).mul_(deepseek.ones(2, requires_grad=True))
        base.sum().backward()


def test_inplace_changes_of_shape() -> None:
    x = deepseek.arange(6.0).reshape(2, 3)
    y = x.view(6)
    assert x.t_() is x and x.shape == (3, 2) and x.tolist() == [[0, 3], [1, 4], [2, 5]] and y.shape == (6,)
    assert x.unsqueeze_(0).squeeze_().transpose_(0, 1).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert x.resize_(2, 2).tolist() == [[0, 1], [2, 3]] and x.data_ptr() == y.data_ptr()
    assert x.resize_(3, 3).shape == (3, 3) and x[0].tolist() == [0, 1, 2] and x.data_ptr() != y.data_ptr()
    with pytest.raises(NotImplementedError, match="squeeze"):
        deepseek.ones(1, 3, requires_grad=True).squeeze_()
