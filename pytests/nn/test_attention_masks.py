"""Masks at the limits of numbers, and queries that see nothing: on every path that attention takes."""

from __future__ import annotations

import math
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.nn import functional as F

DTYPES = ("float32", "float64", "bfloat16", "float16")


def leaves(dtype: str, *shapes: tuple[int, ...]) -> list[deepseek.Tensor]:
    rng = np.random.default_rng(0)
    return [deepseek.tensor(rng.normal(size=s)).to(getattr(deepseek, dtype)).requires_grad_() for s in shapes]


def lowest(dtype: str) -> float:
    return float(deepseek.finfo(getattr(deepseek, dtype)).min)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [2, 3, 4, 5])
@pytest.mark.parametrize("keys", [3, 700])
def test_a_row_of_the_lowest_numbers_is_uniform(dtype: str, dims: int, keys: int) -> None:
    lead = (1, 1, 2)[5 - dims :]
    q, k, v = leaves(dtype, (*lead, 2, 4), (*lead, keys, 4), (*lead, keys, 5))
    if dtype == "float16":  # which is not so low that scores vanish beside it
        k = deepseek.zeros_like(k).requires_grad_()
    out = F.scaled_dot_product_attention(q, k, v, deepseek.full((2, keys), lowest(dtype), dtype=q.dtype))
    out.sum().backward()
    mean = v.double().mean(-2, keepdim=True)
    np.testing.assert_allclose(out.double().detach().numpy(), mean.expand(out.shape).detach().numpy(), atol=4e-2)
    np.testing.assert_allclose(v.grad.double().numpy(), 2 / keys, rtol=2e-2)
    # Uniform weights: the mean of k by the values' sums, whatever the scores.
    sums = v.double().sum(-1, keepdim=True)
    spread = ((sums - sums.mean(-2, keepdim=True)) * k.double()).mean(-2, keepdim=True) / math.sqrt(4)
    np.testing.assert_allclose(
        q.grad.double().numpy(),
        spread.expand(q.shape).detach().numpy(),
        atol=1e-4 if dtype.endswith(("32", "64")) else 5e-2,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_larger_of_two_huge_numbers_wins(dtype: str) -> None:
    q, k, v = leaves(dtype, (1, 2, 1, 4), (1, 2, 3, 4), (1, 2, 3, 4))
    for factors, winner in (((1, 0.75, 0.8), 1), ((0.5, 1, 0.25), 2), ((-0.5, -1, -0.25), 1)):
        mask = deepseek.tensor([[f * lowest(dtype) for f in factors]], dtype=q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, mask)
        np.testing.assert_array_equal(
            out.double().detach().numpy(), v[..., winner : winner + 1, :].double().detach().numpy()
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [2, 4, 5])
@pytest.mark.parametrize("kind", ["bool", "-inf"])
def test_a_query_that_sees_nothing_gives_zeros_and_takes_none(dtype: str, dims: int, kind: str) -> None:
    lead = (1, 1, 2)[5 - dims :]
    q, k, v = leaves(dtype, *[(*lead, 3, 4)] * 3)
    seen = deepseek.tensor([[True, False, True], [False] * 3, [True] * 3])
    mask = seen if kind == "bool" else deepseek.zeros(3, 3, dtype=q.dtype).masked_fill(~seen, -math.inf)
    out = F.scaled_dot_product_attention(q, k, v, mask)
    (out * deepseek.arange(4).to(q.dtype)).sum().backward()
    assert (out[..., 1, :] == 0).all()
    assert (q.grad[..., 1, :] == 0).all()
    alone = [t.detach()[..., [0, 2], :].requires_grad_() if t is q else t.detach().requires_grad_() for t in (q, k, v)]
    again = F.scaled_dot_product_attention(*alone, mask[[0, 2]])
    (again * deepseek.arange(4).to(q.dtype)).sum().backward()
    for mine, other in ((k, alone[1]), (v, alone[2])):
        np.testing.assert_allclose(mine.grad.double().numpy(), other.grad.double().numpy(), atol=1e-2)


@pytest.mark.parametrize("more", [{}, {"softcap": 2.0}, {"sinks": True}, {"window": 2}, {"is_causal": True}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_attention_with_more_arguments_under_the_lowest_numbers(dtype: str, more: dict[str, Any]) -> None:
    q, k, v = leaves(dtype, (1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4))
    if "sinks" in more:
        more = {"sinks": deepseek.full((2,), -5.0, dtype=q.dtype)}
    rows = deepseek.zeros(5, 5, dtype=q.dtype)
    rows[:, 3:] = lowest(dtype)
    seen = deepseek.ones(5, 5, dtype=deepseek.bool)
    seen[:, 3:] = False
    out, want = F.attention(q, k, v, mask=rows, **more), F.attention(q, k, v, mask=seen, **more)
    if "window" in more:  # the last row sees only low keys, all alike
        np.testing.assert_allclose(out[:, :, 4].detach().numpy(), v[:, :, 3:].mean(2).detach().numpy(), rtol=1e-5)
        out, want = out[:, :, :4], want[:, :, :4]
    np.testing.assert_allclose(out.detach().numpy(), want.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("queries", [1, 20])
def test_an_int8_cache_under_the_lowest_numbers(queries: int) -> None:
    q, k, v = (t.detach() for t in leaves("float32", (1, 2, queries, 16), (1, 2, 40, 16), (1, 2, 40, 16)))
    (kc, ks), (vc, vs) = F.quantize_rows(k), F.quantize_rows(v)
    mask = deepseek.full((queries, 40), lowest("float32"))
    out = F.attention(q, kc, vc, key_scale=ks, value_scale=vs, mask=mask)
    np.testing.assert_allclose(out.numpy(), v.mean(2, keepdim=True).expand(out.shape).numpy(), atol=2e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("dims", [4, 5])
def test_a_float32_mask_beside_any_queries(dtype: str, dims: int) -> None:
    lead = (1, 1, 2)[5 - dims :]
    q, k, v = leaves(dtype, *[(*lead, 3, 4)] * 3)
    mask = deepseek.tensor([[0.0, lowest("float32"), 1.0]] * 3)
    out = F.scaled_dot_product_attention(q, k, v, mask)
    assert out.dtype is q.dtype
    wide = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)), mask.double())
    np.testing.assert_allclose(out.double().detach().numpy(), wide.detach().numpy(), atol=2e-2)
    with pytest.raises(RuntimeError, match="bool or float or to match query dtype"):
        other = deepseek.float16 if dtype != "float16" else deepseek.bfloat16
        F.scaled_dot_product_attention(q, k, v, mask.to(other))


@pytest.mark.parametrize("p", [-0.5, 1.5, math.nan, math.inf])
def test_probabilities_of_dropout_are_checked(p: float) -> None:
    q = deepseek.ones(1, 1, 2, 4)
    for t in (q, q.double(), q[None]):
        with pytest.raises(RuntimeError, match="dropout_p must be between 0 and 1"):
            F.scaled_dot_product_attention(t, t, t, dropout_p=p)
    with pytest.raises(RuntimeError, match="dropout_p"):
        F.attention(q, q, q, dropout_p=p)
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.dropout(q, p)
    with pytest.raises(ValueError, match="between 0 and 1"):
        deepseek.nn.Dropout(p)


def test_dropout_of_everything_gives_zeros() -> None:
    q = deepseek.ones(1, 1, 2, 4)
    for t in (q, q.double(), q[None]):
        assert (F.scaled_dot_product_attention(t, t, t, dropout_p=1.0) == 0).all()
