"""DynamicSparseAttention against plain NumPy, dense attention, itself with a cache; budgets, mass, padding, errors."""

from __future__ import annotations

import math

import deepseek
import numpy as np
import pytest
from attention.dynamic_reference import attend, project, selected_blocks, selected_keys
from deepseek import _C
from deepseek.attention import BlockMeansCache, DenseCache, DynamicSparseAttention, IndexedCache
from deepseek.attention.caches.blocks import block_means
from deepseek.attention.selection import Budget, kept_keys, select_blocks
from deepseek.autograd import gradcheck
from deepseek.nn import functional as F

SMALL = {"num_key_value_heads": 2, "head_dim": 16, "block_size": 16}


def module(*args, dtype=deepseek.float64, seed=0, **settings):
    deepseek.manual_seed(seed)
    return DynamicSparseAttention(*args, **{**SMALL, **settings}).to(dtype)


def tokens(batch, time, dim=32, dtype=deepseek.float64, seed=1):
    deepseek.manual_seed(seed)
    return deepseek.randn(batch, time, dim).to(dtype)


def dense(attention, x):
    """The same projections around attention to all keys."""
    q, k, v = (
        p(x).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for p in (attention.query_proj, attention.key_proj, attention.value_proj)
    )
    out = F.attention(q, k, v, is_causal=attention.causal, enable_gqa=True)
    return attention.out_proj(out.transpose(1, 2).flatten(2))


BUDGETS = [
    {"sparsity_ratio": 0.3},
    {"max_keys": 40},
    {"max_keys": 1},
    {"mass": 0.6},
    {"mass": 0.9, "max_keys": 48},
    {"mass": 1.0, "max_keys": 48},
]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("time", [1, 15, 16, 117])
def test_blocks_as_in_plain_numpy(budget, causal, time):
    attention, x = module(32, 4, causal=causal, **budget), tokens(2, time)
    got = attention(x).detach().numpy()
    q, k, v = project(attention, x)
    mask = selected_blocks(q, k, 16, causal=causal, **budget)
    wanted = attend(attention, q, k, v, mask)
    assert np.abs(got - wanted).max() < 1e-12
    assert attention.last_kept == pytest.approx(mask.sum(-1).mean())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_keys_as_in_plain_numpy(budget, causal):
    attention, x = module(32, 4, causal=causal, selector="indexer", **budget), tokens(2, 70)
    got = attention(x).detach().numpy()
    with deepseek.no_grad():
        indexer = attention.indexer
        scores = indexer.scores(indexer.project(x)).numpy()
    q, k, v = project(attention, x)
    mask = selected_keys(scores, causal=causal, **budget)
    assert np.abs(got - attend(attention, q, k, v, np.broadcast_to(mask, (2, 4, 70, 70)))).max() < 1e-12
    assert attention.last_kept == pytest.approx(mask.sum(-1).mean())


@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("selector", ["blocks", "indexer"])
def test_a_budget_for_all_keys_is_dense_attention_bit_for_bit(selector, causal, dtype):
    x = tokens(2, 150, dtype=dtype)
    for budget in ({"sparsity_ratio": 1.0}, {"max_keys": 150}, {"max_keys": 10**9}):
        attention = module(32, 4, causal=causal, selector=selector, dtype=dtype, **budget)
        assert (attention(x) == dense(attention, x)).all()


@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16])
def test_so_is_a_selection_of_all_blocks(dtype):
    """Queries that may not take all they see stand beside those that do: the kernel of blocks gives the same bits."""
    attention, x = module(32, 4, causal=True, max_keys=96, dtype=dtype), tokens(1, 150, dtype=dtype)
    assert (attention(x)[:, :96] == dense(attention, x)[:, :96]).all()


@pytest.mark.parametrize("selector", ["blocks", "indexer"])
@pytest.mark.parametrize("budget", [{"max_keys": 32}, {"mass": 0.7}], ids=str)
def test_gradients(selector, budget):
    """Through the selected keys; numbers are far enough apart that small steps change no selection."""
    attention = module(
        8, 2, num_key_value_heads=1, head_dim=4, causal=True, rope_theta=100.0, selector=selector, **budget
    )
    x = tokens(1, 50, 8).requires_grad_()
    parameters = [p for name, p in attention.named_parameters() if not name.startswith("indexer")]
    assert gradcheck(lambda x, *_: attention(x), (x, *parameters), eps=1e-7, atol=1e-5)


def test_a_query_selects_alone():
    """Not by the queries beside it, the batch, or the number of threads."""
    deepseek.manual_seed(0)
    q, k = deepseek.randn(2, 8, 300, 24), deepseek.randn(2, 2, 300, 24)
    means = block_means(k, 16, 19)
    for budget in (Budget(max_keys=64), Budget(0.2), Budget(mass=0.8), Budget(max_keys=64, mass=1.0)):
        for causal in (True, False):

            def select(q, k, means, start=0, budget=budget, causal=causal):
                return select_blocks(q, k, means, 16, budget, is_causal=causal, query_start=start).numpy()

            whole = select(q, k, means)
            for t in (0, 5, 77, 299):
                one = select(q[1:, :, t : t + 1], k[1:], means[1:], t)[0, :, 0]
                full = whole[1, :, t]
                for head in (0, 1):
                    assert list(one[head][one[head] >= 0]) == list(full[head][full[head] >= 0])
            before = deepseek.get_num_threads()
            _C._set_grain_limit(1)
            try:
                for threads in (1, 3):
                    deepseek.set_num_threads(threads)
                    assert (select(q, k, means) == whole).all()
            finally:
                deepseek.set_num_threads(before)
                _C._set_grain_limit(0)


def test_of_equal_blocks_the_first_are_taken():
    q, k = deepseek.ones(1, 2, 200, 8), deepseek.ones(1, 1, 200, 8)
    for budget in (Budget(max_keys=64), Budget(max_keys=64, mass=1.0)):
        lists = select_blocks(q, k, block_means(k, 16, 12), 16, budget, is_causal=True)
        assert lists[0, 0, 199].tolist() == [0, 1, 2, 12]
        assert lists[0, 0, 40].tolist() == [0, 1, 2, -1]
        alone = select_blocks(q, k, block_means(k, 16, 12), 16, Budget(max_keys=16), is_causal=True)
        assert alone[0, 0, 199].tolist() == [12]


def test_signs_of_zero_and_nan_have_their_place():
    k = deepseek.zeros(1, 1, 160, 4)
    k[0, 0, 32:48] = -0.0
    k[0, 0, 96:112] = math.nan
    lists = select_blocks(
        deepseek.ones(1, 1, 160, 4), k, block_means(k, 16, 9), 16, Budget(max_keys=64), is_causal=True
    )
    assert lists[0, 0, 159].tolist() == [0, 1, 6, 9]  # NaN, as in topk, is the greatest


def test_peaked_attention_needs_fewer_keys_for_the_same_mass():
    kept = []
    for sharp in (0.1, 3.0):
        attention = module(32, 4, mass=0.9, causal=True, dtype=deepseek.float32)
        with deepseek.no_grad():
            attention.query_proj.weight.mul_(sharp * 10)
        attention(tokens(1, 400, dtype=deepseek.float32))
        kept.append(attention.last_kept)
    assert kept[1] < 0.6 * kept[0]


@pytest.mark.parametrize("mass", [0.5, 0.9])
def test_the_estimated_mass_is_reached_and_with_equal_keys_in_a_block_it_is_the_true_one(mass):
    deepseek.manual_seed(0)
    q, blocks = deepseek.randn(1, 1, 320, 16) * 2, deepseek.randn(1, 1, 20, 16)
    k = blocks.repeat_interleave(16, dim=2)
    lists = select_blocks(q, k, blocks, 16, Budget(mass=mass), is_causal=True)
    weights = deepseek.softmax(
        (q @ k.transpose(-1, -2) / 4).masked_fill(deepseek.ones(320, 320).triu(1).bool(), -math.inf), dim=-1
    )
    kept = (lists.unsqueeze(-1) == deepseek.arange(20)).any(dim=-2).repeat_interleave(16, dim=-1)
    assert float((weights * kept).sum(-1).min()) > mass - 1e-5
    assert float(kept_keys(lists, 16, 320, is_causal=True).float().mean()) < 160


def test_a_fixed_budget_bounds_what_is_read():
    attention = module(32, 4, max_keys=64, causal=True, dtype=deepseek.float32)
    for time in (200, 800):
        attention(tokens(1, time, dtype=deepseek.float32))
        assert attention.last_kept <= 64
    attention = module(32, 4, 0.25, causal=False, dtype=deepseek.float32)
    attention(tokens(1, 640, dtype=deepseek.float32))
    assert attention.last_kept == 160


@pytest.mark.parametrize("selector", ["blocks", "indexer"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_on_any_side_is_as_none(selector, causal):
    attention, x = module(32, 4, max_keys=32, causal=causal, selector=selector), tokens(1, 90)
    wanted = attention(x)
    for left in (0, 7, 20):
        padded = deepseek.full([1, 110, 32], 9.0, dtype=deepseek.float64)
        padded[:, left : left + 90] = x
        mask = deepseek.zeros(1, 110, dtype=deepseek.bool)
        mask[:, left : left + 90] = True
        out = attention(padded, attention_mask=mask)
        assert (out[:, left : left + 90] == wanted).all()
        assert (out[~mask] == 0).all()


@pytest.mark.parametrize("selector", ["blocks", "indexer"])
@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16])
def test_a_rewound_cache_has_the_bits_of_a_fresh_one(selector, dtype):
    attention = module(32, 4, max_keys=64, causal=True, selector=selector, dtype=dtype, rope_theta=1e4)
    x, other = tokens(2, 150, dtype=dtype), tokens(2, 150, dtype=dtype, seed=5)
    with deepseek.no_grad():
        whole, cache = attention(x), attention.new_cache()
        attention(x[:, :61], cache=cache)
        attention(other[:, 61:], cache=cache)
        cache.truncate(49)
        parts = [attention(x[:, a:b], cache=cache) for a, b in ((49, 50), (50, 130), (130, 150))]
        assert (deepseek.cat(parts, dim=1) == whole[:, 49:]).all()
        cache.truncate(100)
        cache.reorder([1, 1])
        again = attention(x[[1, 1], 100:], cache=cache)
        assert (again == whole[[1, 1], 100:]).all()


def test_a_cache_of_means_holds_one_row_a_block():
    attention, cache = module(32, 4, max_keys=64, causal=True), BlockMeansCache(16)
    with deepseek.no_grad():
        attention(tokens(1, 100), cache=cache)
        assert cache.means().shape == (1, 2, 6, 16)
        assert cache.nbytes == (2 * 100 + 6) * 2 * 16 * 8
        cache.truncate(95)
        assert cache.means().shape == (1, 2, 5, 16)


@pytest.mark.parametrize("selector", ["blocks", "indexer"])
def test_gradients_flow_through_a_cache(selector):
    attention, x = module(32, 4, max_keys=32, causal=True, selector=selector), tokens(1, 60)
    attention(x).square().sum().backward()
    wanted = attention.key_proj.weight.grad
    attention.zero_grad()
    cache = attention.new_cache()
    deepseek.cat([attention(x[:, a:b], cache=cache) for a, b in ((0, 33), (33, 60))], dim=1).square().sum().backward()
    assert (attention.key_proj.weight.grad - wanted).abs().max() < 1e-10


def test_the_indexer_learns_what_attention_reads():
    deepseek.manual_seed(0)
    attention = module(
        16, 2, num_key_value_heads=1, max_keys=8, causal=True, selector="indexer", dtype=deepseek.float32
    )
    with deepseek.no_grad():
        attention.query_proj.weight.mul_(6.0)
    x = tokens(4, 64, 16, dtype=deepseek.float32)
    optimizer = deepseek.optim.Adam(attention.indexer.parameters(), lr=1e-2)
    attention.indexer.stage = "dense"
    losses = []
    for step in range(60):
        attention.indexer.stage = "dense" if step < 40 else "sparse"
        attention(x)
        loss = attention.indexer.loss
        losses.append(float(loss))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[39] < 0.7 * losses[0]
    assert all(p.grad is None for name, p in attention.named_parameters() if not name.startswith("indexer"))


@pytest.mark.parametrize("selector", ["blocks", "indexer"])
@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (1, 1)])
def test_sequences_without_tokens_or_with_one(selector, shape):
    attention = module(32, 4, max_keys=32, selector=selector, causal=True)
    out = attention(tokens(*shape))
    assert out.shape == (*shape, 32)
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"sparsity_ratio": 0.0}, r"sparsity_ratio is the kept share of the keys, in \(0, 1\], got 0.0"),
        ({"sparsity_ratio": 1.1}, r"in \(0, 1\], got 1.1"),
        ({"sparsity_ratio": math.nan}, "got nan"),
        ({"max_keys": 0}, "max_keys must be positive, got 0"),
        ({"max_keys": -5}, "max_keys must be positive, got -5"),
        ({"mass": 0.0}, r"mass is a share of the softmax weight, in \(0, 1\], got 0.0"),
        ({"mass": 2.0}, "mass is a share"),
        ({"block_size": 24}, "block_size must be a positive multiple of 16, got 24"),
        ({"block_size": 0}, "block_size must be a positive multiple of 16, got 0"),
        ({"selector": "best"}, "selector must be 'blocks' or 'indexer', got 'best'"),
        ({"num_key_value_heads": 3}, "3 key heads must divide 4 heads"),
        ({"head_dim": 0}, "must be positive"),
        ({"dim": 30, "head_dim": None}, "4 heads must divide the width 30; or pass head_dim"),
        ({"head_dim": 15, "rope_theta": 1e4}, "must be even"),
    ],
)
def test_bad_settings(settings, text):
    settings = {**SMALL, **settings}
    with pytest.raises(ValueError, match=text):
        DynamicSparseAttention(settings.pop("dim", 32), 4, **settings)


@pytest.mark.parametrize("what", ["max_keys", "block_size", "head_dim", "num_key_value_heads"])
def test_sizes_are_whole(what):
    with pytest.raises(TypeError, match=f"DynamicSparseAttention: {what} must be an int, got 2.5"):
        DynamicSparseAttention(32, 4, **{what: 2.5})
    with pytest.raises(TypeError, match="width must be an int, got 32.0"):
        DynamicSparseAttention(32.0, 4)
    with pytest.raises(TypeError, match="heads must be an int, got tensor"):
        DynamicSparseAttention(32, deepseek.tensor(4))
    assert DynamicSparseAttention(np.int64(32), np.int32(4)).head_dim == 8


def test_the_query_layer_is_called_once_where_it_has_hooks():
    attention, x = module(32, 4, num_key_value_heads=1, causal=True), tokens(1, 1100)
    plain = deepseek.autograd.grad(attention(x.requires_grad_()).sum(), x)[0]
    calls = []
    attention.query_proj.register_forward_hook(lambda layer, args, out: calls.append(out.requires_grad))
    assert (deepseek.autograd.grad(attention(x).sum(), x)[0] == plain).all()
    assert calls == [True, True]  # two pieces


def test_a_training_step_gives_the_same_bits_again_under_autocast():
    attention, x = module(16, 4, num_key_value_heads=1, block_size=16), tokens(1, 1100, 16).requires_grad_()

    def gradient():
        with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
            out = attention(x)
        return deepseek.autograd.grad(out.float().sum(), x)[0]

    assert (gradient() == gradient()).all()


def test_bad_calls():
    attention, x = module(32, 4, causal=True), tokens(1, 20)
    with pytest.raises(RuntimeError, match=r"x must be \[batch, time, 32\], got \[1, 20, 8\]"):
        attention(tokens(1, 20, 8))
    with pytest.raises(RuntimeError, match=r"attention_mask must be \[1, 20\], got \[1, 19\]"):
        attention(x, attention_mask=deepseek.ones(1, 19))
    with pytest.raises(NotImplementedError, match="takes padding masks"):
        attention(x, attention_mask=deepseek.ones(1, 1, 20, 20))
    for cache in (DenseCache(), IndexedCache()):
        with pytest.raises(TypeError, match="takes a BlockMeansCache, got"):
            attention(x, cache=cache)
    with pytest.raises(ValueError, match="means of blocks of 32 and keeps all keys; make it with new_cache"):
        attention(x, cache=BlockMeansCache(32))
    with pytest.raises(ValueError, match="keeps 64 keys; make it with new_cache"):
        attention(x, cache=BlockMeansCache(16, reach=64))
    both = module(32, 4)
    for call in (both.new_cache, lambda: both(x, cache=BlockMeansCache(16))):
        with pytest.raises(ValueError, match="a cache needs causal=True"):
            call()
    assert both.last_kept is None
