"""Initialisers and parameter helpers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.nn import init
from deepseek.testing import assert_close

F64 = deepseek.float64


@pytest.mark.parametrize(
    ("fill", "mean", "std", "bound"),
    [
        (lambda t: init.uniform_(t, -1, 3), 1.0, 4 / math.sqrt(12), 3.0),
        (lambda t: init.normal_(t, 2.0, 0.5), 2.0, 0.5, None),
        (lambda t: init.xavier_uniform_(t, 2.0), 0.0, 2 * math.sqrt(2 / 500), 2 * math.sqrt(6 / 500)),
        (init.xavier_normal_, 0.0, math.sqrt(2 / 500), None),
        (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), 0.0, math.sqrt(2 / 200), math.sqrt(6 / 200)),
        (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="linear"), 0.0, math.sqrt(1 / 300), None),
        (lambda t: init.trunc_normal_(t, 0.0, 1.0, -2.0, 2.0), 0.0, 0.8796, 2.0),
        (lambda t: init.trunc_normal_(t, 0.0, 1.0, 1.0, 3.0), 1.51005, 0.41648, 3.0),  # a tail: the other proposal
    ],
)
def test_random_initialisers(fill: Callable[..., Any], mean: float, std: float, bound: float | None) -> None:
    deepseek.manual_seed(0)
    t = nn.Parameter(deepseek.empty(300, 200))
    assert fill(t) is t and t.requires_grad and t.is_leaf
    values = t.detach().numpy()
    assert abs(values.mean() - mean) < 0.02 * std + 1e-12 and abs(values.std() - std) < 0.02 * std
    if bound is not None:
        assert values.max() <= bound * (1 + 1e-6) and values.max() > bound - 0.1 * std


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (70, 70), (100, 33), (4, 3, 5), (1, 7), (0, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    t = nn.Parameter(deepseek.empty(*shape, dtype=deepseek.float64))
    assert init.orthogonal_(t, gain=3.0) is t and t.requires_grad
    m = t.detach().numpy().reshape(shape[0], math.prod(shape[1:]))
    small = m if shape[0] <= m.shape[1] else m.T
    np.testing.assert_allclose(small @ small.T, 9 * np.eye(len(small)), atol=1e-12)


def test_orthogonal_takes_generators_and_has_no_preferred_direction() -> None:
    def draw(seed: int) -> deepseek.Tensor:
        return init.orthogonal_(deepseek.empty(3, 3), generator=deepseek.Generator().manual_seed(seed))

    assert deepseek.equal(draw(3), draw(3))
    mean = deepseek.stack([draw(seed) for seed in range(400)]).mean(0)
    assert mean.abs().max().item() < 0.15  # signs on the diagonal too
    with pytest.raises(ValueError, match="2 or more dimensions"):
        init.orthogonal_(deepseek.empty(3))


def test_initialisers_take_generators_and_refuse() -> None:
    def draw() -> deepseek.Tensor:
        return init.trunc_normal_(deepseek.empty(50), generator=deepseek.Generator().manual_seed(3))

    assert deepseek.equal(draw(), draw())
    assert init.eye_(deepseek.empty(2, 3)).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert init.constant_(deepseek.empty(2), 3).tolist() == [3.0, 3.0] and init.zeros_(deepseek.ones(1)).item() == 0
    assert init.calculate_gain("leaky_relu", 0.2) == math.sqrt(2 / 1.04) and init.calculate_gain("tanh") == 5 / 3
    assert init.trunc_normal_(deepseek.empty(40, dtype=deepseek.bfloat16), a=-0.5, b=0.5).abs().max().item() <= 0.5
    with pytest.raises(ValueError, match="Unsupported nonlinearity"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        init.xavier_uniform_(deepseek.empty(3))
    with pytest.raises(ValueError, match="Mode fan not supported"):
        init.kaiming_uniform_(deepseek.empty(3, 3), mode="fan")
    with pytest.raises(ValueError, match="a < b"):
        init.trunc_normal_(deepseek.empty(3), a=1, b=1)
    with pytest.warns(UserWarning, match="no-op"):
        init.kaiming_uniform_(deepseek.empty(0, 3))


def grads(*values: list[float]) -> list[deepseek.Tensor]:
    out = []
    for value in values:
        p = deepseek.zeros(len(value), requires_grad=True)
        p.grad = deepseek.tensor(value)
        out.append(p)
    return [*out, deepseek.zeros(1, requires_grad=True)]


@pytest.mark.parametrize(("kind", "norm"), [(2.0, 13.0), (math.inf, 12.0), (1.0, 19.0), (3.0, 1819 ** (1 / 3))])
def test_clip_grad_norm(kind: float, norm: float) -> None:
    params = grads([3.0, -4.0], [12.0])
    total = nn.utils.clip_grad_norm_(params, 1.0, kind)
    assert total.dim() == 0 and abs(total.item() - norm) < 1e-4
    clipped = np.concatenate([p.grad.numpy() for p in params[:2]])
    assert_close(deepseek.tensor(clipped), deepseek.tensor([3.0, -4.0, 12.0]) / norm, rtol=1e-5, atol=1e-6)
    untouched = grads([0.3, 0.4])
    assert abs(nn.utils.clip_grad_norm_((p for p in untouched), 1.0).item() - 0.5) < 1e-6
    assert untouched[0].grad.tolist() == deepseek.tensor([0.3, 0.4]).tolist()


@pytest.mark.parametrize("kind", (2.0, 1.0, math.inf, -math.inf, 3.0, 0.5, 0.0, -1.0))
@pytest.mark.parametrize("dtype", (deepseek.float32, deepseek.float64, deepseek.bfloat16, deepseek.float16))
def test_the_norm_has_the_gradients_dtype(dtype: deepseek.dtype, kind: float) -> None:
    values = [deepseek.tensor([3.0, 4.0], dtype=dtype), deepseek.tensor([1.0], dtype=dtype)]
    total = nn.utils.get_total_norm(values, kind)
    assert total.dtype is dtype and total.dim() == 0
    mixed = nn.utils.get_total_norm([*values, deepseek.zeros(1, dtype=deepseek.float64) + 1], kind)
    assert mixed.dtype is deepseek.float64
    p = nn.Parameter(values[0].clone())
    p.grad = values[0].clone()
    assert nn.utils.clip_grad_norm_([p], 1.0, kind).dtype is dtype and p.grad.dtype is dtype


def test_clip_edges() -> None:
    assert nn.utils.get_total_norm([deepseek.empty(0), deepseek.tensor([3.0])], math.inf).item() == 3.0
    assert nn.utils.get_total_norm([deepseek.empty(0)], math.inf).item() == 0.0
    assert math.isnan(nn.utils.get_total_norm([deepseek.tensor([math.nan]), deepseek.ones(1)], math.inf).item())
    with pytest.raises(RuntimeError, match="floating point"):
        nn.utils.get_total_norm([deepseek.tensor([3, 4])])
    assert nn.utils.clip_grad_norm_(deepseek.zeros(1, requires_grad=True), 1.0).item() == 0.0
    bad = grads([math.nan, 1.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(bad, 1.0, error_if_nonfinite=True)
    assert bad[0].grad[1].item() == 1.0, "nothing was changed"
    params = grads([3.0, -4.0])
    nn.utils.clip_grad_value_(params, 3.5)
    assert params[0].grad.tolist() == [3.0, -3.5]


def test_parameters_and_vector() -> None:
    net = nn.Linear(2, 3)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (9,)
    vector.sum().backward()
    assert net.weight.grad.tolist() == [[1.0, 1.0]] * 3
    nn.utils.vector_to_parameters(deepseek.arange(9, dtype=deepseek.float32), net.parameters())
    assert net.weight.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]] and net.bias.tolist() == [6.0, 7.0, 8.0]
    with pytest.raises(ValueError, match="vec has 8 elements, the parameters have 9"):
        nn.utils.vector_to_parameters(deepseek.ones(8), net.parameters())
    with pytest.raises(TypeError, match="Tensor"):
        nn.utils.vector_to_parameters([1.0], net.parameters())  # type: ignore[arg-type]
