"""Autograd: backward, grad, leaves, objects of the graph."""

from __future__ import annotations

import re
from typing import Any

import deepseek
import numpy as np
import pytest

F64 = deepseek.float64


def leaf(*values: float) -> Any:
    return deepseek.tensor(list(values), dtype=F64, requires_grad=True)


def close(tensor: Any, *values: float) -> None:
    np.testing.assert_allclose(tensor.detach().numpy(), np.array(values), rtol=1e-12)


# --- backward and grad ------------------------------------------------------------------------------------------------
def test_backward_accumulates_into_leaves_only() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    y.sum().backward()
    close(x.grad, 2, 4)
    (x * 3).sum().backward()
    close(x.grad, 5, 7)
    assert x.is_leaf and not y.is_leaf and x.grad_fn is None and not x.grad.requires_grad
    assert x.grad is x.grad


def test_reading_grad_of_a_non_leaf_warns() -> None:
    y = leaf(1.0) * 2
    with pytest.warns(UserWarning, match="retain_grad|non-leaf"):
        assert y.grad is None


def test_backward_needs_a_scalar_or_a_gradient() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="scalar"):
        (x * 2).backward()
    (x * 2).backward(deepseek.tensor([1.0, 10.0], dtype=F64))
    close(x.grad, 2, 20)
    with pytest.raises(RuntimeError, match="shape|size"):
        (x * 2).backward(deepseek.ones(3, dtype=F64))


def test_backward_without_a_graph() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        deepseek.ones(()).backward()


def test_backward_twice() -> None:
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time|retain_graph"):
        y.backward()
    x.grad = None
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    close(x.grad, 8)


def test_backward_twice_is_fine_when_nothing_was_saved() -> None:
    x = leaf(2.0)
    y = (x + 1).sum()
    y.backward()
    y.backward()
    close(x.grad, 2)


def test_grad_leaves_dot_grad_alone() -> None:
    x, z = leaf(1.0, 2.0), leaf(3.0, 4.0)
    gx, gz = deepseek.autograd.grad((x * z).sum(), (x, z))
    close(gx, 3, 4)
    close(gz, 1, 2)
    assert x.grad is None and z.grad is None


def test_grad_of_an_intermediate() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    (g,) = deepseek.autograd.grad((y * y).sum(), y)
    close(g, 6, 12)


def test_grad_unused() -> None:
    x, unused = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="allow_unused|not have been used|unused"):
        deepseek.autograd.grad((x * 2).sum(), (x, unused))
    gx, gu = deepseek.autograd.grad((x * 2).sum(), (x, unused), allow_unused=True)
    assert gu is None
    close(gx, 2)
    _, zeros = deepseek.autograd.grad((x * 2).sum(), (x, unused), materialize_grads=True)
    close(zeros, 0)


def test_grad_of_several_outputs_with_weights() -> None:
    x = leaf(1.0, 2.0)
    a, b = x * x, x * 3
    (g,) = deepseek.autograd.grad([a, b], [x], [deepseek.ones(2, dtype=F64), deepseek.tensor([1.0, 2.0], dtype=F64)])
    close(g, 2 + 3, 4 + 6)


def test_create_graph_gives_higher_derivatives() -> None:
    x = leaf(2.0)
    y = (x**4).sum()
    for want in (32.0, 48.0, 48.0, 24.0):
        (y,) = deepseek.autograd.grad(y, x, create_graph=True)
        close(y, want)
        y = y.sum()


def test_materialized_zeros_belong_to_the_graph_that_is_asked_for() -> None:
    x, unused = leaf(2.0), leaf(1.0)
    for create_graph in (False, True):
        _, zeros = deepseek.autograd.grad((x * x).sum(), (x, unused), create_graph=create_graph, materialize_grads=True)
        assert zeros.requires_grad is create_graph


def test_a_constant_derivative_is_no_part_of_the_graph() -> None:
    for f in (lambda x: x.sort()[0], lambda x: x.topk(2)[0], lambda x: x.max(-1)[0], lambda x: x * 2):
        x = leaf(3.0, 1.0, 2.0)
        (g,) = deepseek.autograd.grad(f(x).sum(), x, create_graph=True)
        assert not g.requires_grad


def test_create_graph_false_gives_constants() -> None:
    x = leaf(2.0)
    (g,) = deepseek.autograd.grad((x * x).sum(), x)
    assert not g.requires_grad


def test_gradient_penalty() -> None:
    w, x = leaf(1.5, -0.5), leaf(0.3, 0.7)
    loss = deepseek.tanh((w * x).sum())
    (g,) = deepseek.autograd.grad(loss, x, create_graph=True)
    (g * g).sum().backward()

    def penalty(v: np.ndarray) -> float:
        return float(((v * (1 - np.tanh((v * [0.3, 0.7]).sum()) ** 2)) ** 2).sum())

    at, step = np.array([1.5, -0.5]), 1e-6
    want = [(penalty(at + step * e) - penalty(at - step * e)) / (2 * step) for e in np.eye(2)]
    np.testing.assert_allclose(w.grad.numpy(), want, rtol=1e-7)


def test_backward_with_inputs() -> None:
    x, z = leaf(1.0), leaf(2.0)
    (x * z).sum().backward(inputs=[x])
    close(x.grad, 2)
    assert z.grad is None


def test_backward_with_inputs_that_are_no_leaves() -> None:
    x = leaf(1.0)
    y = x * 2
    with pytest.raises(RuntimeError, match="scalar"):
        deepseek.cat([y, y]).backward(inputs=[y])
    assert not y.retains_grad  # a refused call leaves nothing behind
    (y * 3).sum().backward(inputs=[y])
    close(y.grad, 3)
    assert y.retains_grad and x.grad is None


def test_the_same_tensor_used_several_times() -> None:
    x = leaf(3.0)
    (x * x * x + x).sum().backward()
    close(x.grad, 28)
    x.grad = None
    deepseek.cat([x, x, x]).sum().backward()
    close(x.grad, 3)


def test_broadcast_gradients_are_summed_to_shape() -> None:
    a = deepseek.ones(3, 1, dtype=F64, requires_grad=True)
    b = deepseek.ones(1, 4, dtype=F64, requires_grad=True)
    c = deepseek.ones((), dtype=F64, requires_grad=True)
    (a * b * c).sum().backward()
    assert a.grad.tolist() == [[4.0]] * 3 and b.grad.tolist() == [[3.0] * 4] and c.grad.item() == 12.0


def test_mixed_dtypes_give_gradients_in_the_input_dtype() -> None:
    a = deepseek.ones(2, requires_grad=True)
    b = deepseek.ones(2, dtype=F64, requires_grad=True)
    (a * b).sum().backward()
    assert a.grad.dtype == deepseek.float32 and b.grad.dtype == F64


def test_gradients_of_an_unused_output() -> None:
    x = leaf(3.0, 1.0, 2.0)
    values, _ = deepseek.sort(x)
    values[0].backward()
    close(x.grad, 0, 1, 0)
    x.grad = None
    _first, second, _third = x.unbind(0)
    second.backward()
    close(x.grad, 0, 1, 0)


def test_diamond_visits_each_node_once() -> None:
    x = leaf(1.0)
    calls = []
    y = x * 2
    y.register_hook(lambda g: calls.append(g.item()))
    (y * 3 + y * 4).sum().backward()
    assert calls == [7.0]


def test_backward_many_tensors() -> None:
    x = leaf(1.0, 2.0)
    deepseek.autograd.backward([x.sum(), (x * x).sum()])
    close(x.grad, 3, 5)


# --- leaves -----------------------------------------------------------------------------------------------------------
def test_requires_grad_rules() -> None:
    with pytest.raises(RuntimeError, match="floating|Only Tensors"):
        deepseek.ones(2, dtype=deepseek.int64).requires_grad_()
    with pytest.raises(RuntimeError, match="floating|Only Tensors"):
        deepseek.tensor([1, 2], requires_grad=True)
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="leaf"):
        y.requires_grad = False
    assert not leaf(1.0).requires_grad_(False).requires_grad


def test_grad_assignment_is_checked() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="size|shape"):
        x.grad = deepseek.ones(3, dtype=F64)
    with pytest.raises(RuntimeError, match="dtype|type"):
        x.grad = deepseek.ones(2)
    with pytest.raises(TypeError):
        x.grad = 3
    x.grad = deepseek.ones(2, dtype=F64)
    (x * 2).sum().backward()
    close(x.grad, 3, 3)


def test_detach_shares_memory_and_drops_history() -> None:
    x = leaf(1.0, 2.0)
    d = (x * 2).detach()
    assert not d.requires_grad and d.is_leaf and d.grad_fn is None
    y = x.detach()
    y[0] = 7.0
    assert x[0].item() == 7.0
    (x * x.detach()).sum().backward()
    close(x.grad, 7, 2)


def test_a_leaf_switched_off_after_the_forward_pass_gets_no_gradient() -> None:
    for switch_off in (lambda t: t.requires_grad_(False), lambda t: t.detach_()):
        x, w = leaf(1.0), leaf(2.0)
        y = x * w
        switch_off(x)
        y.sum().backward()
        assert x.grad is None
        close(w.grad, 1)


def test_a_leaf_that_became_a_result_gets_no_gradient_of_its_old_value() -> None:
    x, w = leaf(1.0), leaf(2.0)
    y = x * 2
    x.detach_()
    x.add_(w)
    with pytest.raises(RuntimeError, match="graph interior"):
        y.sum().backward()
    assert x.grad_fn is not None


def test_requires_grad_of_a_result() -> None:
    y = leaf(1.0) * 2
    assert y.requires_grad_() is y and not y.is_leaf
    y.requires_grad = True
    with pytest.raises(RuntimeError, match="leaf"):
        y.requires_grad_(False)


def test_dot_grad_is_never_the_given_gradient_itself() -> None:
    for create_graph in (False, True):
        x = leaf(1.0, 2.0)
        x.backward(x, create_graph=create_graph)
        assert x.grad is not x and x.grad.data_ptr() != x.data_ptr()
        x.backward(deepseek.ones(2, dtype=F64))
        close(x, 1, 2)
        close(x.grad, 2, 3)


def test_a_plain_backward_adds_in_place_to_a_gradient_with_a_graph() -> None:
    x = leaf(1.0, 2.0)
    (x * x).sum().backward(create_graph=True)
    first = x.grad
    (x * x).sum().backward()
    assert x.grad is first and first.requires_grad
    close(first, 4, 8)


def test_a_view_does_not_lead_where_its_detached_base_came_from() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    v = y[:1]
    y.detach_()
    y.fill_(7.0)
    v.sum().backward()
    close(v, 7)
    assert x.grad is None


# --- graph objects ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("x + x", "AddBackward"),
        ("x * x", "MulBackward"),
        ("x.exp()", "ExpBackward"),
        ("x.sum()", "SumBackward"),
        ("x.softmax(0)", "SoftmaxBackward"),
        ("x.view(2, 1)", "ViewBackward"),
        ("x[0]", "SelectBackward"),
        ("x @ x", "(Dot|Matmul)Backward"),
        ("x.mean()", "MeanBackward"),
    ],
)
def test_grad_fn_names(text: str, name: str) -> None:
    fn = eval(text, {"x": leaf(1.0, 2.0)}).grad_fn
    assert re.match(name, fn.name()), fn.name()
    assert re.search(name, repr(fn))


def test_next_functions_walk_the_graph() -> None:
    x = leaf(1.0)
    fn = (x * 2 + 1).grad_fn
    names = []
    while fn is not None:
        names.append(fn.name())
        fn = fn.next_functions[0][0] if fn.next_functions else None
    assert names[0].startswith("Add") and names[1].startswith("Mul") and "AccumulateGrad" in names[2]


def test_grad_fn_of_an_integer_result_is_none() -> None:
    x = leaf(3.0, 1.0)
    assert x.argmax().grad_fn is None and (x > 0).grad_fn is None and x.long().grad_fn is None
