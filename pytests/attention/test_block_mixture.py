"""MixtureOfBlockAttention: choice, dense limit, groups, causality, cache, bad input."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from attention.block_references import block_mixture
from attention.selection_checks import as_sets, check_selection_is_a_querys_own
from deepseek.attention import BlockMeansCache, DenseCache, MixtureOfBlockAttention, MultiHeadAttention
from deepseek.autograd import gradcheck

f64 = deepseek.float64


def numbers(*shape: int, seed: int = 0) -> deepseek.Tensor:
    return deepseek.tensor(np.random.default_rng(seed).normal(size=shape))


def module(**settings) -> MixtureOfBlockAttention:
    deepseek.manual_seed(1)
    return MixtureOfBlockAttention(16, 4, 2, **{"block_size": 16, "top_k": 2, **settings})


def test_defaults_are_those_of_the_paper():
    m = MixtureOfBlockAttention(64, 4)
    assert (m.block_size, m.selector.top_k, m.causal, m.num_key_value_heads) == (512, 3, True, 4)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_against_numpy(shared, causal):
    m = module(shared_selection=shared, causal=causal, dtype=f64, rope_theta=None)
    x = numbers(2, 75, 16)
    out, lists = m(x), m.selected_blocks(x)
    for b in range(2):
        want, chosen = block_mixture(m, x[b].numpy())
        np.testing.assert_allclose(out[b].detach().numpy(), want, rtol=0, atol=1e-12)
        assert [[[j for j in row if j >= 0] for row in head] for head in lists[b].tolist()] == chosen


def test_query_heads_choose_apart_though_keys_are_shared():
    lists = module().selected_blocks(deepseek.randn(1, 160, 16))
    assert as_sets(lists[0, 0]) != as_sets(lists[0, 1])
    shared = module(shared_selection=True).selected_blocks(deepseek.randn(1, 160, 16))
    assert (shared[0, 0] == shared[0, 1]).all()
    assert (shared[0, 2] == shared[0, 3]).all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16])
def test_with_budget_for_all_blocks_it_is_dense_bit_for_bit(shared, dtype):
    m = module(top_k=5, shared_selection=shared).to(dtype)
    dense = MultiHeadAttention(16, 4, num_key_value_heads=2, gate=False, causal=True, rope_theta=1e4).to(dtype)
    names = {"q": "query", "k": "key", "v": "value", "o": "out"}
    dense.load_state_dict({names[k[0]] + k[1:]: v for k, v in m.state_dict().items()})
    x = deepseek.randn(2, 90, 16).to(dtype)
    assert (m(x) == dense(x)).all()


@pytest.mark.parametrize("shared", [False, True])
def test_selection_is_a_querys_own(shared, monkeypatch):
    check_selection_is_a_querys_own(module(shared_selection=shared), deepseek.randn(3, 150, 16), monkeypatch)


def test_the_first_of_equal_blocks_is_taken():
    m = module(dtype=f64)
    m.q_proj.weight.data.zero_()  # all scores are 0
    lists = m.selected_blocks(numbers(1, 100, 16))
    assert lists[0, 0, 99].tolist() == [6, 0, 1]
    assert lists[0, 0, 40].tolist() == [2, 0, 1]
    assert lists[0, 0, 20].tolist() == [1, 0, -1]


def test_nothing_of_the_future_enters():
    m = module()
    x = deepseek.randn(1, 100, 16)
    changed = x.clone()
    changed[:, 61:] = 100 * deepseek.randn(1, 39, 16)
    assert (m(x)[:, :61] == m(changed)[:, :61]).all()
    assert (m.selected_blocks(x)[:, :, :61] == m.selected_blocks(changed)[:, :, :61]).all()


def test_means_of_blocks_enter_the_cache_as_they_become_whole():
    m, x = module(), deepseek.randn(2, 50, 16)
    cache = m.new_cache()
    with deepseek.no_grad():
        for n, blocks in ((15, 0), (1, 1), (30, 2), (2, 3), (2, 3)):
            m(x[:, :n], cache=cache)
            assert cache._means.length == blocks
        means = cache._means.view().clone()
        cache.truncate(33)
        assert cache._means.length == 2
        m(x[:, :20], cache=cache)
        assert (cache._means.view()[:, :, :2] == means[:, :, :2]).all()


def test_gradients():
    m = MixtureOfBlockAttention(4, 2, 1, block_size=16, top_k=1, dtype=f64)
    assert gradcheck(lambda x, *_: m(x), [numbers(1, 50, 4).requires_grad_(), *m.parameters()], fast_mode=True)


def test_top_k_0_is_the_own_block_alone():
    m, x = module(top_k=0), deepseek.randn(1, 40, 16)
    assert m.selected_blocks(x).shape[-1] == 1
    assert (m(x)[:, :16] == m(x[:, :16])).all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"block_size": 24}, "block_size must be a positive multiple of 16, got 24"),
        ({"block_size": 0}, "block_size must be a positive multiple of 16, got 0"),
        ({"top_k": -1}, "top_k must not be negative, got -1"),
    ],
)
def test_bad_settings(settings, text):
    with pytest.raises(ValueError, match=text):
        module(**settings)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m, x: m(x, cache=DenseCache()), TypeError, "takes a BlockMeansCache, got DenseCache"),
        (lambda m, x: m(x, cache=BlockMeansCache(32)), ValueError, "in blocks of 16, got blocks of 32"),
        (lambda m, x: m(x, cache=BlockMeansCache(16, reach=31)), ValueError, "must keep all keys"),
        (lambda m, x: m(x, attention_mask=deepseek.ones(2, 1, 5, 5)), NotImplementedError, "takes padding masks"),
        (lambda m, x: m(x, attention_mask=deepseek.ones(2, 4)), RuntimeError, r"must be \[2, 5\]"),
        (lambda m, x: m(x[0]), RuntimeError, r"x must be \[batch, time, 16\]"),
        (lambda m, x: m(x, positions=deepseek.arange(4)), RuntimeError, "positions must be integers"),
        (lambda m, x: module(causal=False).new_cache(), ValueError, "a cache needs causal=True"),
        (lambda m, x: module(causal=False)(x, cache=BlockMeansCache(16)), ValueError, "a cache needs causal=True"),
    ],
)
def test_bad_calls(call, error, text):
    with pytest.raises(error, match=text):
        call(module(), deepseek.randn(2, 5, 16))


def test_empty_and_single():
    m = module()
    for shape in ((0, 5, 16), (2, 0, 16), (2, 1, 16)):
        assert list(m(deepseek.zeros(*shape)).shape) == list(shape)
    nothing = m(deepseek.randn(2, 4, 16), attention_mask=deepseek.zeros(2, 4, dtype=deepseek.bool))
    assert (nothing == 0).all()
