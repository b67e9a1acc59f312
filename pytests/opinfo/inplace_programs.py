"""Programs that write in place to what they compute: functions of a (3, 4) float64 tensor, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek

F64 = deepseek.float64

PROGRAMS: dict[str, Callable[[Any], Any]] = {}


def program(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a (3, 4) input that writes in place to what it computes and returns what depends on it."""
    PROGRAMS[f.__name__] = f
    return f


@program
def scale_a_column(x: Any) -> Any:
    y = x * 2
    y[:, 0] *= 3
    return y * y


@program
def assign_a_row(x: Any) -> Any:
    y = x * 2
    y[1] = x[0] * x[2]
    return y * y


@program
def assign_a_constant(x: Any) -> Any:
    y = x * 2
    y[0] = 5.0
    return y * y


@program
def assign_steps_of_a_recurrence(x: Any) -> Any:
    out = deepseek.zeros(3, 4, dtype=F64)
    h = x[:, 0]
    for t in range(4):
        h = h * x[:, t] + 1
        out[:, t] = h
    return out * out


@program
def write_through_a_flat_view(x: Any) -> Any:
    y = x * 2
    y.view(-1).add_(x.view(-1) * x.view(-1))
    return y * y


@program
def view_made_before_the_write_sees_it(x: Any) -> Any:
    y = x * 2
    v = y[0]
    y.mul_(x)
    return v * v


@program
def base_sees_a_write_through_a_view(x: Any) -> Any:
    y = x * 2
    v = y[0]
    v.mul_(x[1])
    return y * y


@program
def two_views_one_write(x: Any) -> Any:
    y = x * 2
    a, b = y[0], y[:, 1]
    a.mul_(3)
    return a.sum() * b.sum() + b * b.sum()


@program
def overlapping_views_written_in_turn(x: Any) -> Any:
    y = x * 2
    a, b = y[:2], y[1:]
    a.mul_(x[:2])
    b.mul_(x[1:])
    a.add_(1)
    return y * y


@program
def view_of_a_view(x: Any) -> Any:
    y = x * 2
    y[1:].t()[2].mul_(x[1:, 0])
    return y * y


@program
def transposed_write(x: Any) -> Any:
    y = x * 2
    y.t().copy_(x.t() * x.t())
    return y * y


@program
def write_to_the_diagonal(x: Any) -> Any:
    y = x * 2
    y.diagonal().mul_(x[0, :3])
    return y * y


@program
def write_to_an_expanded_source(x: Any) -> Any:
    y = x * 2
    y.copy_(x[0].expand(3, 4))
    return y * y


@program
def masked_assignment(x: Any) -> Any:
    y = x * 2
    y[deepseek.tensor([[True, False, True, False]] * 3)] = 1.5
    return y * y


@program
def masked_fill_in_place(x: Any) -> Any:
    y = x * x
    y.masked_fill_(deepseek.tensor([True, False, False, True]), 0.5)
    return y * x


@program
def integer_array_assignment(x: Any) -> Any:
    y = x * 2
    y[deepseek.tensor([2, 0])] = x[:2] * x[1:]
    return y * y


@program
def index_put_accumulate(x: Any) -> Any:
    y = x * 2
    y.index_put_((deepseek.tensor([0, 0, 1]),), x * x, accumulate=True)
    return y * y


@program
def scatter_add_in_place(x: Any) -> Any:
    y = x * 2
    y.scatter_add_(0, deepseek.tensor([[0, 1, 2, 0], [0, 0, 0, 0]]), x[:2] * x[1:])
    return y * y


@program
def index_add_in_place(x: Any) -> Any:
    y = x * 2
    y.index_add_(0, deepseek.tensor([1, 1]), x[:2] * x[1:])
    return y * y


@program
def write_into_a_fresh_buffer(x: Any) -> Any:
    buffer = deepseek.zeros(3, 4, dtype=F64)
    buffer.copy_(x)
    buffer.mul_(x)
    return buffer * buffer


@program
def a_buffer_filled_row_by_row(x: Any) -> Any:
    buffer = deepseek.empty(3, 4, dtype=F64)
    for i in range(3):
        buffer[i].copy_(x[i] * x[(i + 1) % 3])
    return buffer * buffer


@program
def view_of_a_constant_that_becomes_recorded(x: Any) -> Any:
    buffer = deepseek.ones(3, 4, dtype=F64)
    v = buffer[1]
    buffer.mul_(x)
    return v * v + buffer[1] * v


@program
def rows_taken_before_the_base_is_written(x: Any) -> Any:
    y = x * 2
    rows = [y[i] for i in range(3)]
    y.add_(x * x)
    return rows[0] * rows[2]


@program
def several_writes_on_one_view(x: Any) -> Any:
    y = x * 2
    v = y[:, 1:3]
    v.add_(1)
    v.mul_(x[:, 1:3])
    v.sub_(x[:, :2])
    return y * y


@program
def in_place_activation(x: Any) -> Any:
    y = x * 3
    y.neg_()
    y.tanh_()
    return y * x


@program
def in_place_sigmoid_of_a_view(x: Any) -> Any:
    y = x * 3
    y[0].sigmoid_()
    return y * y


@program
def zero_then_accumulate(x: Any) -> Any:
    y = x * 2
    y.zero_()
    y.add_(x * x)
    return y * y


@program
def fill_a_slice(x: Any) -> Any:
    y = x * 2
    y[:, ::2].fill_(3.0)
    return y * y


@program
def fill_with_a_recorded_scalar(x: Any) -> Any:
    y = x * 2
    y[0].fill_(x[1, 1] * x[2, 2])
    return y * y


@program
def old_value_survives_in_a_clone(x: Any) -> Any:
    y = x * 2
    old = y.clone()
    y.mul_(x)
    return old * y


@program
def old_product_still_correct(x: Any) -> Any:
    y = x * 2
    z = y + 1  # saves nothing of y
    y.mul_(x)
    return z * y


@program
def augmented_operators(x: Any) -> Any:
    y = x * 2
    y += x
    y -= 1
    y *= x
    y /= 3
    y **= 2
    return y


@program
def augmented_slice_of_slice(x: Any) -> Any:
    y = x * 2
    y[1:][0] += x[0]
    y[:, 1:][:, 0] *= x[:, 3]
    return y * y


@program
def negative_step_free_select(x: Any) -> Any:
    y = x * 2
    y[-1, -2:] *= x[0, :2]
    y[..., -1] = y[..., 0] * 2
    return y * y


@program
def write_depends_on_itself(x: Any) -> Any:
    y = x * 2
    y[0] = y[1] + y[2]
    y[1] += y[0]
    return y * y


@program
def reshaped_view_and_base_both_written(x: Any) -> Any:
    y = x * 2
    v = y.view(2, 6)
    v[0].mul_(x.view(2, 6)[1])
    y[2].mul_(x[0])
    v.add_(1)
    return v * v


@program
def addcmul_and_lerp_in_place(x: Any) -> Any:
    y = x * 2
    y.addcmul_(x, x, value=0.5)
    y.lerp_(x * x, 0.3)
    return y * y


@program
def clamp_in_place(x: Any) -> Any:
    y = x * 2
    y.clamp_(-1.05, 1.05)
    return y * x


@program
def squeeze_and_unsqueeze_views(x: Any) -> Any:
    y = x * 2
    y.unsqueeze(0).squeeze(0).add_(x * x)
    y.unsqueeze(-1)[0].mul_(2)
    return y * y


@program
def detached_copy_is_not_followed(x: Any) -> Any:
    y = x * 2
    y.mul_(x.clone())
    return y * y.clone()


@program
def narrow_and_select(x: Any) -> Any:
    y = x * 2
    y.narrow(1, 1, 2).select(0, 1).mul_(x[0, :2])
    return y * y


@program
def permuted_view_assignment(x: Any) -> Any:
    y = (x * 2).view(3, 2, 2)
    y.permute(2, 0, 1)[0] = x.view(3, 2, 2)[:, 0] * x.view(3, 2, 2)[:, 1]
    return y * y
