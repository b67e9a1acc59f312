"""Functions of deepseek.attention: against attention written out in NumPy, their limits, gradients, bad input."""

from __future__ import annotations

import math

import deepseek
import numpy as np
import pytest
from deepseek.attention import (
    dynamic_block_attention,
    global_attention,
    local_attention,
    merge_attention,
    mix_weights,
    scaled_dot_product_attention,
    sparse_attention,
)
from deepseek.attention.functional import attend
from deepseek.autograd import gradcheck, gradgradcheck
from deepseek.nn import functional as F

Array = np.ndarray
SIZE = 16  # keys in a block


def numbers(*shape: int, seed: int = 0, grad: bool = False, dtype: deepseek.dtype | None = None) -> deepseek.Tensor:
    made = deepseek.tensor(np.random.default_rng(seed).normal(size=shape), dtype=dtype or deepseek.float64)
    return made.requires_grad_(grad)


def operands(
    queries: int, keys: int, heads: int = 4, key_heads: int = 2, grad: bool = False, dtype: deepseek.dtype | None = None
) -> tuple[deepseek.Tensor, deepseek.Tensor, deepseek.Tensor]:
    shapes = (2, heads, queries, 4), (2, key_heads, keys, 4), (2, key_heads, keys, 3)
    q, k, v = (numbers(*shape, seed=i, grad=grad, dtype=dtype) for i, shape in enumerate(shapes))
    return q, k, v


def written_out(q: Array, k: Array, v: Array, bias: Array) -> tuple[Array, Array]:
    """softmax(q k^T / sqrt(E) + bias) v with the logarithms of the denominators; bias broadcasts to [B, H, L, S]."""
    k, v = (np.repeat(t, q.shape[1] // t.shape[1], axis=1) for t in (k, v))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]) + bias
    top = np.maximum(scores.max(-1, keepdims=True, initial=-np.inf), -1e300)
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        logs = np.log(total[..., 0]) + top[..., 0]
    return np.divide(weights, total, where=total > 0, out=np.zeros_like(weights)) @ v, logs


def unseen(mask: Array) -> Array:
    return np.where(mask, 0.0, -np.inf)


def near_and_far(queries: int, keys: int, start: int, causal: bool) -> tuple[Array, Array]:
    """Which keys local_attention reads [L, S], and what global_attention adds to the scores of means [L, blocks]."""
    place = np.arange(start, start + queries)[:, None]
    key = np.arange(keys)
    apart = key // SIZE - place // SIZE
    near = ((apart == 0) | (apart == -1)) & (key <= place) if causal else abs(apart) <= 1
    blocks = keys // SIZE if causal else -(-keys // SIZE)
    other = np.arange(blocks) - place // SIZE
    seen = other < -1 if causal else abs(other) > 1
    counts = np.minimum(SIZE, keys - np.arange(blocks) * SIZE)
    return near, np.where(seen, np.log(counts), -np.inf)


def means_of(rows: Array, blocks: int) -> Array:
    cut = [rows[..., i * SIZE : (i + 1) * SIZE, :].mean(-2) for i in range(blocks)]
    return np.stack(cut, axis=-2) if cut else rows[..., :0, :]


def close(got: deepseek.Tensor, want: Array) -> None:
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=0, atol=1e-12)


# --- temperature
@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("causal", [True, False])
def test_temperature_divides_the_scores(temperature: float, causal: bool) -> None:
    q, k, v = operands(9, 9)
    mask = np.tril(np.ones((9, 9), bool)) if causal else np.ones((9, 9), bool)
    want, _ = written_out(q.numpy() / temperature, k.numpy(), v.numpy(), unseen(mask))
    close(scaled_dot_product_attention(q, k, v, temperature, is_causal=causal), want)
    close(scaled_dot_product_attention(q, k, v, deepseek.tensor(temperature, dtype=q.dtype), is_causal=causal), want)


def test_the_default_sharpens() -> None:
    q, k, v = operands(5, 8)
    assert (scaled_dot_product_attention(q, k, v) == scaled_dot_product_attention(q, k, v, 0.1)).all()
    sharp, plain = (
        scaled_dot_product_attention(q, k, deepseek.eye(8).double().expand(2, 2, 8, 8), t) for t in (0.1, 1.0)
    )
    assert (sharp.amax(-1) > plain.amax(-1)).all()


@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16, deepseek.float16, deepseek.float64])
def test_temperature_1_is_plain_attention_bit_for_bit(dtype: deepseek.dtype) -> None:
    q, k, v = operands(33, 70, heads=2, dtype=dtype)
    mask = numbers(33, 70, seed=5) > 0
    for options in ({}, {"is_causal": True}):
        plain = F.scaled_dot_product_attention(q, k, v, **options)
        assert (scaled_dot_product_attention(q, k, v, 1.0, **options) == plain).all()
    masked = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert (scaled_dot_product_attention(q, k, v, 1, attention_mask=mask) == masked).all()


@pytest.mark.parametrize("shape", [(), (4,)])
def test_temperatures_get_gradients(shape: tuple[int, ...]) -> None:
    q, k, v = operands(3, 5, grad=True)
    temperature = (numbers(*shape, seed=9).abs() + 0.5).requires_grad_()
    assert gradcheck(scaled_dot_product_attention, (q, k, v, temperature))
    if shape:
        parts = [
            scaled_dot_product_attention(q[:, h : h + 1], k[:, h // 2 : h // 2 + 1], v[:, h // 2 : h // 2 + 1], t)
            for h, t in enumerate(temperature.tolist())
        ]
        close(scaled_dot_product_attention(q, k, v, temperature), deepseek.cat(parts, 1).detach().numpy())


@pytest.mark.parametrize(
    ("error", "text", "options"),
    [
        (ValueError, "temperature must be above 0, got 0", {"temperature": 0}),
        (ValueError, "temperature must be above 0, got -1", {"temperature": -1.0}),
        (ValueError, "temperature must be above 0, got nan", {"temperature": math.nan}),
        (ValueError, "temperature must be above 0, got inf", {"temperature": math.inf}),
        (ValueError, r"must be \[4\], one a head, or \[\], got \[3\]", {"temperature": deepseek.ones(3)}),
        (ValueError, r"must be above 0, got \[1.0, 0.0, 1.0, 1.0\]", {"temperature": deepseek.tensor([1.0, 0, 1, 1])}),
        (ValueError, "either attention_mask or", {"attention_mask": deepseek.ones(3, 3) > 0, "is_causal": True}),
    ],
)  # fmt: skip
def test_bad_temperatures(error: type[Exception], text: str, options: dict) -> None:
    with pytest.raises(error, match=text):
        scaled_dot_product_attention(*operands(3, 3), **options)


def test_temperatures_a_head_need_heads() -> None:
    with pytest.raises(ValueError, match="a temperature a head needs heads"):
        scaled_dot_product_attention(numbers(3, 4), numbers(5, 4), numbers(5, 4), deepseek.ones(3))


# --- local and global
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys", "start"), [(70, 70, 0), (1, 70, 69), (7, 90, 40), (16, 16, 0), (3, 3, 0)])
def test_local_and_global_attention(queries: int, keys: int, start: int, causal: bool) -> None:
    q, k, v = operands(queries, keys)
    near, bias = near_and_far(queries, keys, start, causal)
    out, lse = local_attention(q, k, v, SIZE, is_causal=causal, query_start=start)
    want, logs = written_out(q.numpy(), k.numpy(), v.numpy(), unseen(near))
    close(out, want)
    close(lse, logs)
    out, lse = global_attention(q, k, v, SIZE, is_causal=causal, query_start=start)
    means, values = (means_of(t.numpy(), bias.shape[1]) for t in (k, v))
    want, logs = written_out(q.numpy(), means, values, bias)
    close(out, want)
    close(lse, logs)
    both = np.concatenate([unseen(near), bias], axis=1)
    whole, _ = written_out(
        q.numpy(), np.concatenate([k.numpy(), means], 2), np.concatenate([v.numpy(), values], 2), both
    )
    close(dynamic_block_attention(q, k, v, SIZE, is_causal=causal, query_start=start), whole)


@pytest.mark.parametrize("causal", [True, False])
def test_equal_keys_in_each_block_make_it_plain_attention(causal: bool) -> None:
    q, _, _ = operands(96, 96)
    k, v = (numbers(2, 2, 6, 4, seed=i).repeat_interleave(SIZE, 2) for i in (1, 2))
    plain = F.attention(q, k, v, is_causal=causal, enable_gqa=True)
    close(dynamic_block_attention(q, k, v, SIZE, is_causal=causal), plain.numpy())


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_dynamic_block_attention(causal: bool) -> None:
    q, k, v = operands(50, 50, heads=2, key_heads=1, grad=True)

    def run(*tensors: deepseek.Tensor) -> deepseek.Tensor:
        return dynamic_block_attention(*tensors, block_size=SIZE, is_causal=causal)

    assert gradcheck(run, (q, k, v), fast_mode=True)
    assert gradgradcheck(run, (q, k, v), fast_mode=True)


@pytest.mark.parametrize("call", [local_attention, global_attention, dynamic_block_attention])
@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (24, ValueError), (-16, ValueError), (16.5, TypeError)])
def test_bad_block_sizes(call, size, error) -> None:
    with pytest.raises(error, match=f"block_size must be .* got {size}"):
        call(*operands(3, 3), size)


# --- merging
def parts_of(q: deepseek.Tensor, k: deepseek.Tensor, v: deepseek.Tensor, cuts: list[int]) -> list:
    edges = list(zip([0, *cuts], [*cuts, k.shape[2]], strict=True))
    return [attend(q, k[:, :, a:b], v[:, :, a:b]) for a, b in edges]


@pytest.mark.parametrize("cuts", [[], [4], [4, 4], [1, 5, 8]])
@pytest.mark.parametrize("with_sinks", [True, False])
def test_merged_parts_are_attention_to_all(cuts: list[int], with_sinks: bool) -> None:
    q, k, v = operands(3, 11)
    sinks = numbers(4, seed=8) if with_sinks else None
    whole = attend(q, k, v, sinks=sinks)
    out, lse = merge_attention(parts_of(q, k, v, cuts), sinks)
    close(out, whole.out.numpy())
    close(lse, whole.lse.numpy())


def test_merging_has_no_overflow_and_no_nan() -> None:
    q, k, v = operands(3, 8)
    out, lse = merge_attention(parts_of(q * 1e5, k, v, [4]))
    close(out, attend(q * 1e5, k, v).out.numpy())
    assert lse.isfinite().all()
    nothing = attend(q, k[:, :, :0], v[:, :, :0])
    assert nothing.lse.isneginf().all()
    out, lse = merge_attention([nothing, nothing])
    assert (out == 0).all()
    assert lse.isneginf().all()
    some = attend(q, k, v)
    close(merge_attention([nothing, some]).out, some.out.numpy())
    close(merge_attention([some, nothing, nothing]).out, some.out.numpy())


@pytest.mark.parametrize("dtype", [deepseek.bfloat16, deepseek.float16, deepseek.float32])
def test_merging_keeps_the_dtype_and_sums_in_float32(dtype: deepseek.dtype) -> None:
    q, k, v = operands(5, 40, dtype=dtype)
    out, lse = merge_attention(parts_of(q, k, v, [7, 20]))
    assert (out.dtype, lse.dtype) == (dtype, deepseek.float32)
    want, logs = written_out(*(t.double().numpy() for t in (q, k, v)), np.zeros((5, 40)))
    eps = deepseek.finfo(dtype).eps
    np.testing.assert_allclose(out.double().numpy(), want, atol=4 * eps)
    np.testing.assert_allclose(lse.double().numpy(), logs, atol=1e-5)


def test_gradients_of_merging() -> None:
    q, k, v = operands(3, 9, grad=True)
    sinks = numbers(4, seed=8, grad=True)

    def run(q, k, v, sinks):
        return merge_attention(parts_of(q, k, v, [4, 6]), sinks)

    assert gradcheck(run, (q, k, v, sinks), fast_mode=True)
    assert gradgradcheck(run, (q, k, v, sinks), fast_mode=True)


def test_gates_count_the_parts() -> None:
    q, k, v = operands(3, 9)
    one, two = parts_of(q, k, v, [4])
    gates = numbers(2, 4, 3, 2, seed=8).sigmoid()
    close(mix_weights(one, two, gates), (gates[..., :1] * one.out + gates[..., 1:] * two.out).numpy())
    close(mix_weights(one, two), attend(q, k, v).out.numpy())


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "at least one pair", lambda one: merge_attention([])),
        (TypeError, r"local must be a pair \(out, lse\)", lambda one: mix_weights(one.out, one)),
        (TypeError, r"global_ must be a pair \(out, lse\)", lambda one: mix_weights(one, one.out)),
        (ValueError, r"gates must be .*, got \[3, 3\]", lambda one: mix_weights(one, one, deepseek.ones(3, 3))),
    ],
)  # fmt: skip
def test_bad_parts(error: type[Exception], text: str, call) -> None:
    with pytest.raises(error, match=text):
        call(attend(*operands(3, 5)))


# --- selected keys
@pytest.mark.parametrize("causal", [True, False])
def test_sparse_attention_reads_what_was_selected(causal: bool) -> None:
    q, k, v = operands(5, 40)
    rng = np.random.default_rng(3)
    mask = np.arange(40) <= np.arange(30, 35)[:, None] if causal else np.ones((5, 40), bool)
    keys = np.stack([[rng.permutation(40)[:6] for _ in range(5)] for _ in range(2)])
    keys[:, :, 4] = -1
    chosen = np.array([[[j in row for j in range(40)] for row in rows] for rows in keys])[:, None]
    out, lse = sparse_attention(q, k, v, deepseek.tensor(keys), is_causal=causal, query_start=30)
    want, logs = written_out(q.numpy(), k.numpy(), v.numpy(), unseen(chosen & mask))
    close(out, want)
    close(lse, logs)
    lists = np.stack([[[rng.permutation(3)[:2] for _ in range(5)] for _ in range(2)] for _ in range(2)])
    chosen = np.array([[[[j // SIZE in row for j in range(40)] for row in rows] for rows in head] for head in lists])
    out, lse = sparse_attention(
        q, k, v, block_lists=deepseek.tensor(lists), block_size=SIZE, is_causal=causal, query_start=30
    )
    want, logs = written_out(q.numpy(), k.numpy(), v.numpy(), unseen(np.repeat(chosen, 2, axis=1) & mask))
    close(out, want)
    close(lse, logs)


def test_sparse_attention_takes_one_sort_of_selection() -> None:
    q, k, v = operands(3, 20)
    some, blocks = deepseek.zeros(2, 3, 1).long(), deepseek.zeros(2, 2, 3, 1).long()
    for selection in ({}, {"indices": some, "block_lists": blocks}):
        with pytest.raises(ValueError, match="pass either indices"):
            sparse_attention(q, k, v, **selection)
    for selection in ({"indices": some + 20}, {"block_lists": blocks + 1}):
        with pytest.raises(IndexError, match="out of range"):
            sparse_attention(q, k, v, **selection)


# --- layout
@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16, deepseek.float64])
@pytest.mark.parametrize("by_token", [True, False])
def test_results_lie_as_their_query_and_gradients_as_their_operands(by_token: bool, dtype: deepseek.dtype) -> None:
    """Where heads were split off by a view, joining them is a view too; a gradient has its operand's order."""
    q, k, v = operands(40, 40, dtype=dtype)
    if by_token:
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    lists = deepseek.zeros(2, 2, 40, 1).long()
    indices = deepseek.zeros(2, 40, 1).long()
    for out in (
        attend(q, k, v).out,
        sparse_attention(q, k, v, block_lists=lists, block_size=SIZE).out,
        sparse_attention(q, k, v, indices).out,
    ):
        assert (out.transpose(1, 2) if by_token else out).is_contiguous()
        for t, grad in zip((q, k, v), deepseek.autograd.grad(out.sum(), (q, k, v)), strict=True):
            assert grad.stride() == t.stride()
