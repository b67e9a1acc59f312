"""NativeSparseAttention: each branch by its equation, selection, causality, the cache, bad input."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from attention.block_references import compressed, native_sparse, parameters, softmax
from attention.selection_checks import as_sets, check_selection_is_a_querys_own
from deepseek.attention import NativeSparseAttention, NativeSparseCache, SlidingCache
from deepseek.attention._compression import BlockCompressor, BlockSelector, attend_compressed
from deepseek.attention.caches.native_sparse import whole_blocks
from deepseek.attention.functional import attend
from deepseek.autograd import gradcheck

f64 = deepseek.float64
SMALL = {"compress_block": 8, "compress_stride": 4, "select_block": 16, "num_selected": 4, "window": 9}


def numbers(*shape: int, seed: int = 0) -> deepseek.Tensor:
    return deepseek.tensor(np.random.default_rng(seed).normal(size=shape))


def module(**settings) -> NativeSparseAttention:
    deepseek.manual_seed(1)
    return NativeSparseAttention(16, 4, 2, **{**SMALL, **settings})


def only_branch(m: NativeSparseAttention, branch: int) -> NativeSparseAttention:
    """Its gate is 1 and those of the others are 0, to float64's last digit."""
    with deepseek.no_grad():
        m.gate_proj.weight.zero_()
        m.gate_proj.bias.fill_(-800.0).reshape(3, -1)[branch] = 800.0
    return m


def test_defaults_are_those_of_the_paper():
    m = NativeSparseAttention(64, 4, head_dim=16)
    s = m.selector
    assert (m.compress_block, m.compress_stride, m.select_block, m.window) == (32, 16, 64, 512)
    assert (s.count, s.initial, s.local) == (16, 1, 2)
    assert m.k_proj.weight.shape[0] == 3 * 4 * 16  # keys of their own for each branch


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shared_projections": True, "num_initial": 0, "num_local": 1, "num_selected": 2},
        {"compress_block": 16, "compress_stride": 16, "value_head_dim": 3, "bias": True},
        {"compress_block": 64, "num_selected": 3},  # blocks are long before the first compressed row
    ],
)
def test_against_numpy(settings):
    m = module(dtype=f64, rope_theta=None, **settings)
    x = numbers(2, 150, 16)
    out, lists = m(x), as_sets(m.selected_blocks(x))
    for b in range(2):
        want, chosen = native_sparse(m, x[b].numpy())
        np.testing.assert_allclose(out[b].detach().numpy(), want, rtol=0, atol=1e-12)
        assert lists[b] == [[sorted(s) for s in group] for group in chosen]


# --- the compressed branch


def test_compressed_rows_know_the_place_within_the_block():
    c = BlockCompressor(3, 8, 4, 6, dtype=f64)
    rows = numbers(1, 2, 30, 3)
    want = compressed({f"c.{k}": v for k, v in parameters(c).items()}, "c", rows[0, 1].numpy(), 8, 4)
    np.testing.assert_allclose(c(rows)[0, 1].detach().numpy(), want, rtol=0, atol=1e-13)
    assert not np.allclose(c(rows.flip(2)).detach().numpy(), c(rows).flip(2).detach().numpy())


def test_a_compressed_row_is_seen_once_its_block_is_whole():
    """Trap: a query must not see its block before the last token of it, and the first queries see none at all."""
    m = only_branch(module(dtype=f64), 0)
    x = numbers(1, 40, 16)
    assert (m(x)[:, :7] == 0).all()  # tokens 0 to 6: no block of 8 is whole
    assert (m(x)[:, 7] != 0).any()
    changed = x.clone()
    changed[:, 11] += 1  # completes the second block, of tokens 4 to 11
    differs = (m(changed) != m(x)).any(dim=-1)[0]
    assert differs.nonzero().squeeze(-1).tolist() == list(range(11, 40))


def test_without_compressed_rows_gradients_are_numbers():
    m = module(dtype=f64)
    x = numbers(1, 5, 16).requires_grad_()
    out = m(x)
    out.sum().backward()
    assert bool(out.isfinite().all())
    assert bool(x.grad.isfinite().all())
    assert m.compress_keys.up.weight.grad is None  # nothing was compressed


def test_compressed_attention_in_chunks_of_queries(monkeypatch):
    q, k, v = numbers(2, 4, 600, 8), numbers(2, 2, 74, 8, seed=1), numbers(2, 2, 74, 8, seed=2)
    whole = attend_compressed(q, k, v, 0, 16, 8, 0.3)
    monkeypatch.setattr("deepseek.attention._heads._SCORES_AT_ONCE", 1)
    parts = attend_compressed(q, k, v, 0, 16, 8, 0.3)
    assert (parts.out == whole.out).all()
    assert (parts.lse == whole.lse).all()
    here = attend_compressed(q[:, :, 300:], k, v, 300, 16, 8, 0.3)
    assert (here.out == whole.out[:, :, 300:]).all()


# --- the selected branch


@pytest.mark.parametrize(("block", "stride", "select"), [(32, 16, 64), (8, 8, 16), (16, 4, 32), (12, 4, 16)])
def test_scores_of_blocks_are_equation_9(block, stride, select):
    """Trap: the paper counts rows and blocks from 1; read from 0 it would score a block by the rows before it."""
    weights = np.random.default_rng(0).random(23)
    blocks = whole_blocks(23 * stride + block, block, stride) * stride // select + 1
    want = []
    for j in range(1, blocks + 1):
        terms = [select // stride * j - m - n for m in range(select // stride) for n in range(block // stride)]
        want.append(sum(weights[i - 1] for i in terms if 1 <= i <= 23))
    got = BlockSelector(block, stride, select, 3, 1, 1)._by_block(deepseek.tensor(weights), blocks)
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-13)


def test_weights_are_summed_over_the_heads_of_a_group():
    s = BlockSelector(8, 4, 16, 3, 0, 1)
    q, k = numbers(1, 2, 3, 60, 5), numbers(1, 2, 14, 5, seed=1)
    lse = attend(q.flatten(1, 2), k, k, scale=0.5).lse.unflatten(1, (2, 3))  # of all rows, as the last query sees them
    got = s._weights(q * 0.5, lse, k.transpose(-1, -2).unsqueeze(2))
    want = [sum(softmax(k[0, g].numpy() @ q[0, g, h, 59].numpy() * 0.5) for h in range(3)) for g in range(2)]
    np.testing.assert_allclose(got[0, :, 59].numpy(), want, rtol=0, atol=1e-13)


def test_first_and_last_blocks_are_always_selected():
    lists = module(num_initial=1, num_local=2).selected_blocks(deepseek.randn(1, 200, 16))
    for t, chosen in enumerate(as_sets(lists[0, 0])):
        own = t // 16
        assert {0, own, max(own - 1, 0)} <= set(chosen)
        assert max(chosen) <= own
        assert len(chosen) == min(own + 1, 4)


def test_the_first_of_equal_blocks_is_taken():
    m = module(num_initial=0, num_local=1, num_selected=3, dtype=f64)
    m.q_proj.weight.data.zero_()  # all compressed rows weigh the same
    assert as_sets(m.selected_blocks(numbers(1, 160, 16))[0, 0, 159]) == [1, 2, 9]  # block 0 shares one row less
    m = module(num_initial=0, num_local=1, num_selected=3, compress_block=64, dtype=f64)
    assert as_sets(m.selected_blocks(numbers(1, 160, 16))[0, 0, 62]) == [0, 1, 3]  # no row yet: scores of 0


def test_with_budget_for_all_blocks_the_selected_branch_is_dense():
    m = only_branch(module(num_selected=10, dtype=f64), 1)
    x = numbers(1, 150, 16)
    full = only_branch(module(window=200, dtype=f64), 2)
    full.load_state_dict(m.state_dict())
    only_branch(full, 2)
    with deepseek.no_grad():  # the window's keys and values are those of the selected branch
        for p, size in ((full.k_proj, 2 * 4), (full.v_proj, 2 * 4)):
            p.weight[2 * size :] = p.weight[size : 2 * size].clone()
    np.testing.assert_allclose(m(x).detach().numpy(), full(x).detach().numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shared", [False, True])
def test_selection_is_a_querys_own(shared, monkeypatch):
    check_selection_is_a_querys_own(module(shared_projections=shared), deepseek.randn(3, 150, 16), monkeypatch)


def test_selection_makes_no_score_matrix_of_all_queries(monkeypatch):
    """Memory of the choice is that of a chunk of queries, whatever the length."""
    monkeypatch.setattr("deepseek.attention._heads._SCORES_AT_ONCE", 1 << 14)
    s = BlockSelector(8, 4, 16, 4, 1, 1)
    q, k = deepseek.randn(1, 1, 4, 2048, 4), deepseek.randn(1, 1, whole_blocks(2048, 8, 4), 4)
    lse = deepseek.zeros(1, 1, 4, 2048)
    deepseek.reset_peak_memory_stats()
    before = deepseek.memory_stats()["peak_bytes"]
    s.lists(q, k, lse, 0, 0.5)
    assert deepseek.memory_stats()["peak_bytes"] - before < 4 * 2048 * 511 * 4 / 8  # of an eighth of the scores


# --- the whole


def test_nothing_of_the_future_enters():
    m = module()
    x = deepseek.randn(1, 100, 16)
    changed = x.clone()
    changed[:, 61:] = 100 * deepseek.randn(1, 39, 16)
    assert (m(x)[:, :61] == m(changed)[:, :61]).all()
    assert (m.selected_blocks(x)[:, :, :61] == m.selected_blocks(changed)[:, :, :61]).all()


def test_gates_are_of_each_token_head_and_branch():
    m = module(dtype=f64)
    assert m.gate_proj.weight.shape == (3 * 4, 16)
    x = numbers(1, 60, 16)
    parts = []
    for branch in range(3):
        alone = module(dtype=f64)
        alone.load_state_dict(m.state_dict())
        parts.append(only_branch(alone, branch))
    with deepseek.no_grad():
        for each in (m, *parts):
            each.o_proj.weight.copy_(deepseek.eye(16))
        gates = deepseek.sigmoid(m.gate_proj(x)).unflatten(-1, (3, 4))
        want = sum(gates[:, :, i].repeat_interleave(4, -1) * part(x) for i, part in enumerate(parts))
        np.testing.assert_allclose(m(x).numpy(), want.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shared", [False, True])
def test_gradients(shared):
    m = NativeSparseAttention(
        4, 2, 1, **{**SMALL, "num_selected": 2, "num_local": 1}, shared_projections=shared, dtype=f64
    )
    x = numbers(1, 60, 4).requires_grad_()
    assert gradcheck(lambda x, *_: m(x), [x, *m.parameters()], fast_mode=True)
    assert all(p.grad is None or (p.grad != 0).any() for p in m.parameters())


def test_under_autocast():
    m = module()
    x = deepseek.randn(2, 100, 16)
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        out, cache = m(x), m.new_cache()
        with deepseek.no_grad():
            parts = [m(x[:, a:b], cache=cache) for a, b in ((0, 33), (33, 34), (34, 100))]
    assert (deepseek.cat(parts, dim=1) == out).all()
    out.float().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in m.parameters())


# --- the cache


def test_the_cache_holds_little_beside_the_selected_branch():
    m = module(window=20)
    cache = m.new_cache()
    with deepseek.no_grad():
        for n in (700, *[1] * 40, 1500, *[1] * 20):
            m(deepseek.randn(1, n, 16), cache=cache)
    assert cache.length == 2260
    assert cache.compressed == whole_blocks(2260, 8, 4) == 564
    for name, rows in (("raw_keys", 7 + 2 * 64), ("window_keys", 19 + 2 * 512)):
        assert cache._streams()[name].allocated <= rows * 2 * 4 * 4
    assert "window_keys" not in NativeSparseCache(shared=True)._streams()


@pytest.mark.parametrize("rewind", [0, 300])
def test_rewinding(rewind):
    m, x = module(window=600), deepseek.randn(1, 1500, 16)
    cache, fresh = m.new_cache(rewind), m.new_cache()
    with deepseek.no_grad():
        m(x[:, :1400], cache=cache), m(x[:, :1150], cache=fresh)
        m(x[:, 1400:], cache=cache)
        if not rewind:
            with pytest.raises(ValueError, match="make the cache with a larger rewind than 0"):
                cache.truncate(500)
            assert (m(x[:, :1], cache=cache) == m(deepseek.cat([x, x[:, :1]], 1))[:, -1:]).all()  # nothing was lost
        else:
            cache.truncate(1200)
            assert cache.compressed == whole_blocks(1200, 8, 4)
            cache.truncate(1150)
            assert (m(x[:, 1150:1250], cache=cache) == m(x[:, 1150:1250], cache=fresh)).all()


def test_reordering_as_in_beam_search():
    m, x = module(), deepseek.randn(3, 60, 16)
    cache = m.new_cache()
    with deepseek.no_grad():
        m(x[:, :50], cache=cache)
        cache.reorder([2, 0])
        assert (m(x[[2, 0], 50:], cache=cache) == m(x)[[2, 0], 50:]).all()


# --- bad input


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"causal": False}, NotImplementedError, "is causal only"),
        ({"compress_stride": 3}, ValueError, "compress_stride 3 must divide compress_block 8 and select_block 16"),
        ({"select_block": 20}, ValueError, "select_block must be a positive multiple of 16, got 20"),
        ({"window": 0}, ValueError, "must be positive, got 8, 4, 0"),
        ({"num_selected": 2}, ValueError, "num_selected at least their sum, got 1, 2 and 2"),
        ({"num_local": 0}, ValueError, "num_local at least 1"),
        ({"num_initial": -1}, ValueError, "num_initial must not be negative"),
        ({"value_head_dim": 0}, ValueError, "must be positive, got 8, 4, 9, 0"),
        ({"compress_hidden": 0}, ValueError, "must be positive, got 8, 4, 9, 4 and 0"),
        ({"head_dim": 3}, ValueError, "dim must be even"),
    ],
)
def test_bad_settings(settings, error, text):
    with pytest.raises(error, match=text):
        module(**settings)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m, x: m(x, cache=SlidingCache(9)), TypeError, "takes a NativeSparseCache, got SlidingCache"),
        (
            lambda m, x: m(x, cache=NativeSparseCache()),
            ValueError,
            r"made for .* \(32, 16, 512, False\), the module has",
        ),
        (lambda m, x: m(x, attention_mask=deepseek.ones(2, 1, 5, 5)), NotImplementedError, "takes padding masks"),
        (lambda m, x: m(x, attention_mask=deepseek.ones(3, 5)), RuntimeError, r"must be \[2, 5\]"),
        (lambda m, x: m(x[..., :3]), RuntimeError, r"x must be \[batch, time, 16\]"),
    ],
)
def test_bad_calls(call, error, text):
    with pytest.raises(error, match=text):
        call(module(), deepseek.randn(2, 5, 16))


def test_empty_single_and_padding_only():
    m = module()
    for shape in ((0, 5, 16), (2, 0, 16), (2, 1, 16)):
        assert list(m(deepseek.zeros(*shape)).shape) == list(shape)
    assert (m(deepseek.randn(2, 4, 16), attention_mask=deepseek.zeros(2, 4, dtype=deepseek.bool)) == 0).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_equals_no_padding(side):
    m, x = module(), deepseek.randn(2, 70, 16)
    real = deepseek.ones(2, 90, dtype=deepseek.bool)
    real[:, :20] = side == "right"
    real[:, 70:] = side == "left"
    padded = deepseek.randn(2, 90, 16)
    here = slice(20, 90) if side == "left" else slice(0, 70)
    padded[:, here] = x
    assert (m(padded, attention_mask=real)[:, here] == m(x)).all()
