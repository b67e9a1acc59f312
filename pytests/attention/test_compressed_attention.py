"""DeepSeek-V4's attention against its equations in NumPy, its gradients, and what ports of it got wrong."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from attention.compressed_reference import attention, frequencies, part, weights_of
from deepseek.attention import CompressedAttention, DenseCache
from deepseek.autograd import gradcheck

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
YARN = {"type": "yarn", "factor": 16, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1}
SETTINGS = {
    "hidden_size": 12,
    "num_attention_heads": 4,
    "layer_type": SPARSE,
    "head_dim": 10,
    "qk_rope_head_dim": 6,
    "q_lora_rank": 8,
    "o_lora_rank": 3,
    "o_groups": 2,
    "sliding_window": 5,
    "compress_ratio": 4,
    "rope_theta": 100.0,
    "compress_rope_theta": 1600.0,
    "rope_scaling": YARN,
    "index_n_heads": 3,
    "index_head_dim": 8,
    "index_topk": 3,
    "rms_norm_eps": 1e-6,
}


def made(layer_type: str = SPARSE, seed: int = 0, **changes: object) -> CompressedAttention:
    """A module in float64 whose parameters are all random."""
    deepseek.manual_seed(seed)
    module = CompressedAttention(**{**SETTINGS, "layer_type": layer_type, **changes}).double()
    with deepseek.no_grad():
        for name, p in module.named_parameters():
            p.copy_(
                deepseek.randn(*p.shape, dtype=deepseek.float64) * (0.3 if "norm" in name else 1) + ("norm" in name)
            )
    return module


def tokens(time: int, batch: int = 1, seed: int = 1) -> deepseek.Tensor:
    return deepseek.tensor(np.random.default_rng(seed).normal(size=(batch, time, 12)))


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
@pytest.mark.parametrize("changes", [{}, {"compress_ratio": 2, "index_topk": 1, "sliding_window": 1}, {"o_groups": 4},
                                     {"rope_scaling": None, "qk_rope_head_dim": 2, "compress_ratio": 7},
                                     {"index_topk": 100, "rms_norm_eps": 0.1}])  # fmt: skip
def test_against_the_equations(layer_type, changes):
    module, x = made(layer_type, **changes), tokens(43, batch=2)
    settings = {**SETTINGS, "layer_type": layer_type, **changes}
    want = np.stack([attention(weights_of(module), row.numpy(), settings) for row in x])
    np.testing.assert_allclose(module(x).detach().numpy(), want, rtol=0, atol=1e-5)  # tables are float32
    np.testing.assert_allclose(module.float()(x.float()).detach().numpy(), want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
def test_gradients(layer_type):
    sizes = {"hidden_size": 5, "num_attention_heads": 2, "head_dim": 6, "qk_rope_head_dim": 4, "q_lora_rank": 4,
             "o_lora_rank": 2, "index_head_dim": 4, "index_n_heads": 2, "index_topk": 2}  # fmt: skip
    module, x = made(layer_type, **sizes), tokens(18)[..., :5].contiguous().requires_grad_()
    learned = [p for name, p in module.named_parameters() if "indexer" not in name]
    assert gradcheck(lambda x, *_: module(x), (x, *learned))


def test_nothing_flows_through_a_choice():
    module = made()
    module(tokens(40)).sum().backward()
    assert all((p.grad is None) == ("indexer" in name) for name, p in module.named_parameters())


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
def test_float32_and_bfloat16(layer_type):
    module, x = made(layer_type), tokens(30)
    want = module(x)
    for dtype, tolerance in ((deepseek.float32, 1e-4), (deepseek.bfloat16, 0.25)):
        got = module.to(dtype)(x.to(dtype))
        assert got.dtype is dtype
        if dtype is deepseek.float32 or layer_type != SPARSE:  # bfloat16 may choose others
            assert float((got.double() - want).abs().max()) <= tolerance * float(want.abs().max())


def test_some_parameters_stay_float32():
    module = made().float().bfloat16()
    wide = {name for name, p in module.named_parameters() if p.dtype is deepseek.float32}
    compressor = {f"compressor.{own}{name}" for own in ("", "indexer.") for name in ("position_bias", "kv_norm.weight")}
    assert wide == {"sinks", "q_a_norm.weight", "kv_norm.weight", *compressor}
    assert {p.dtype for p in module.double().parameters()} == {deepseek.float64}
    assert {p.dtype for p in module.float().parameters()} == {deepseek.float32}


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
def test_autocast(layer_type):
    module, x = made(layer_type, index_topk=50).float(), tokens(40).float()
    want = module(x)
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        got = module(x)
    got.float().square().sum().backward()
    assert float((got.float() - want).abs().max()) < 0.1 * float(want.abs().max())
    assert module.q_a_proj.weight.grad.isfinite().all()


# What ports of the model got wrong.


def test_trap_the_first_window_has_no_half_before_it():
    """The missing half has weight 0, not the weight of a logit 0."""
    module, x = made(), tokens(4)
    own = part(weights_of(module), "compressor.")
    logits = (x[0].numpy() @ own["gate_proj.weight"].T + own["position_bias"])[:, 10:]
    shares = np.exp(logits) / np.exp(logits).sum(0)
    mean = (shares * (x[0].numpy() @ own["kv_proj.weight"].T)[:, 10:]).sum(0)
    want = mean / np.sqrt((mean**2).mean() + 1e-6) * own["kv_norm.weight"]
    cache = module.new_cache()
    module(x, cache=cache)
    np.testing.assert_allclose(cache.compressor.entries.view()[0, 0].detach().numpy(), want, atol=1e-12)


@pytest.mark.parametrize("layer_type", [SPARSE, HEAVY])
def test_trap_an_entry_is_seen_from_its_last_token_on(layer_type):
    """With a window of one, token t depends on itself and on the tokens of entries w < (t + 1) // ratio."""
    module, time = made(layer_type, sliding_window=1, index_topk=20), 14
    for t in range(time):
        x = tokens(time).requires_grad_()
        module(x)[0, t].square().sum().backward()
        seen = [i for i in range(time) if float(x.grad[0, i].abs().sum()) > 0]
        assert seen == sorted({*range((t + 1) // 4 * 4), t})


def test_trap_the_indexer_sees_no_future():
    """Later tokens, however high they score, change nothing: neither the choice nor how many there are."""
    module, x = made(index_topk=1), tokens(40)
    later = x.clone()
    later[:, 21:] *= 100
    with deepseek.no_grad():
        assert (module(x)[:, :21] == module(later)[:, :21]).all()
        assert (module(x)[:, :21] == module(x[:, :21])).all()


def test_trap_yarn_is_not_for_sliding_layers():
    plain = made(SLIDING).rotation.rotary
    np.testing.assert_allclose(plain.frequencies.numpy(), frequencies(6, 100.0, None), rtol=1e-6)
    for layer_type in (SPARSE, HEAVY):
        stretched = made(layer_type).rotation.rotary
        np.testing.assert_allclose(stretched.frequencies.numpy(), frequencies(6, 1600.0, YARN), rtol=1e-6)
    assert not np.allclose(frequencies(6, 1600.0, YARN), frequencies(6, 1600.0, None))


def test_trap_cosines_are_not_multiplied_by_yarns_factor():
    assert made(HEAVY).rotation.rotary.factor == 1.0
    assert made(HEAVY, rope_scaling={**YARN, "attention_factor": 1.25}).rotation.rotary.factor == 1.25


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
def test_trap_the_output_is_turned_back(layer_type):
    """Values are turned keys: only turned back by the query's position they depend on distances alone."""
    module, x = made(layer_type), tokens(30, batch=2)
    shifted = module(x, positions=deepseek.arange(30) + 1000)
    assert float((shifted - module(x)).abs().max()) < 1e-3  # angles are float32
    rows = deepseek.stack([deepseek.arange(30), deepseek.arange(30) + 7])
    assert float((module(x, positions=rows) - module(x)).abs().max()) < 1e-3


def test_trap_sinks_take_their_share():
    module, x = made(HEAVY), tokens(30)
    with deepseek.no_grad():
        usual = float(module(x).abs().max())
        module.sinks.fill_(60.0)
        assert float(module(x).abs().max()) < 1e-6 * usual
        module.sinks.fill_(-1e4)  # as if there were none
        want = attention(weights_of(module), x[0].numpy(), {**SETTINGS, "layer_type": HEAVY})
        np.testing.assert_allclose(module(x)[0].numpy(), want, atol=1e-5)


def test_trap_queries_are_normed_by_head():
    module, x = made(rms_norm_eps=1e-12), tokens(30)
    with deepseek.no_grad():
        before = module(x)
        for head in range(4):
            module.q_b_proj.weight[head * 10 : (head + 1) * 10] *= 3.0 ** (head + 1)
        assert float((module(x) - before).abs().max()) < 1e-6


def test_trap_equal_scores_take_the_older_entry():
    module, x = made(index_topk=2), tokens(30)
    with deepseek.no_grad():
        module.compressor.indexer.scorer.weights_proj.weight.zero_()
        cache = module.new_cache()
        module(x, cache=cache)
        keys = cache.indexer.entries.view()
        latent = module.q_a_norm(module.q_a_proj(x))[:, 20:]
        picked = module.compressor.indexer.select(x[:, 20:], latent, deepseek.arange(20, 30), module.rotation, keys, 20)
    assert picked.tolist() == [[[0, 1]] * 10]


def test_a_choice_of_all_entries_is_attention_to_all():
    """Early tokens see no more entries than are picked and take another way; the bits are those of the choice."""
    narrow, x = made(index_topk=3), tokens(15)
    wide = made(index_topk=4)
    with deepseek.no_grad():
        assert (narrow(x) == wide(x)).all()
    picked = made(index_topk=3).float()
    picked.compressor.indexer.topk = 3
    assert (picked(x.float()) == wide.float()(x.float())).all()


# Caches, padding, errors.


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
@pytest.mark.parametrize("grad", [False, True])
def test_cached_is_uncached(layer_type, grad):
    module, x = made(layer_type).float(), tokens(60, batch=2).float()
    with deepseek.set_grad_enabled(grad):
        whole, cache, at, pieces = module(x), module.new_cache(), 0, []
        for n in (1, 2, 1, 7, 16, 1, 1, 3, 20, 8):
            pieces.append(module(x[:, at : at + n], cache=cache))
            at += n
    assert (deepseek.cat(pieces, dim=1) == whole).all()
    assert cache.length == 60


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
def test_gradients_flow_through_a_cache(layer_type):
    module, x = made(layer_type), tokens(40).requires_grad_()

    def gradients(*cuts):
        x.grad = None
        module.zero_grad()
        cache, at, total = module.new_cache(), 0, 0
        for end in cuts:
            out = module(x[:, at:end], cache=cache)
            at, total = end, total + (out * deepseek.arange(out.numel()).reshape(out.shape).sin()).sum()
        total.backward()
        return [x.grad, *(p.grad for p in module.parameters() if p.grad is not None)]

    halves = gradients(13, 14, 40)
    with deepseek.no_grad():
        weights = deepseek.cat([deepseek.arange(n * 12).reshape(1, n, 12).sin() for n in (13, 1, 26)], dim=1)
    x.grad = None
    module.zero_grad()
    (module(x) * weights).sum().backward()
    whole = [x.grad, *(p.grad for p in module.parameters() if p.grad is not None)]
    for a, b in zip(halves, whole, strict=True):
        assert float((a - b).abs().max()) <= 1e-9 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
def test_a_long_input_is_computed_in_pieces_without_gradients(layer_type, monkeypatch):
    module, x = made(layer_type).float(), tokens(300, batch=2).float()
    whole = module(x)
    monkeypatch.setattr("deepseek.attention.compressed.module._ELEMENTS", 1)
    with deepseek.no_grad():
        assert (module(x) == whole).all()
        monkeypatch.setattr("deepseek.attention.compressed.indexer._SCORES", 1)
        assert (module(x) == whole).all()


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
def test_a_cache_rewinds(layer_type):
    module, x = made(layer_type).float(), tokens(700).float()
    with deepseek.no_grad():
        whole, cache = module(x), module.new_cache(rewind=9)
        for start in (0, 600, 695):
            module(x[:, start : {0: 600, 600: 695, 695: 700}[start]], cache=cache)
        for length in (699, 695, 692, 691):
            cache.truncate(length)
            module(-x[:, :2], cache=cache)  # something else, taken back
            cache.truncate(length)
        assert (module(x[:, 691:], cache=cache) == whole[:, 691:]).all()
        before = repr(cache)
        with pytest.raises(ValueError, match="make the cache with a larger rewind than 9"):
            cache.truncate(400)
        assert repr(cache) == before  # all streams or none
        cache.truncate(700)


def test_a_cache_changes_its_order():
    module, x = made().float(), tokens(50, batch=3).float()
    with deepseek.no_grad():
        cache = module.new_cache()
        module(x[:, :37], cache=cache)
        cache.reorder([2, 0, 0])
        chosen = x[[2, 0, 0]]
        assert (module(chosen[:, 37:], cache=cache) == module(chosen)[:, 37:]).all()


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
def test_padding_on_any_side_is_not_there(layer_type):
    module, x = made(layer_type).float(), tokens(45, batch=3).float()
    real = deepseek.ones(3, 45, dtype=deepseek.bool)
    real[0, :13] = False
    real[1, 30:] = False
    real[2, 5:9] = False
    out = module(x, attention_mask=real)
    for b in range(3):
        kept = real[b].nonzero().squeeze(-1)
        assert (out[b][kept] == module(x[b][kept].unsqueeze(0))[0]).all()
        assert (out[b][~real[b]] == 0).all()


def test_padding_with_a_cache():
    module, x = made().float(), tokens(45, batch=2).float()
    real = deepseek.ones(2, 45, dtype=deepseek.bool)
    real[0, :6] = False
    with deepseek.no_grad():
        whole, cache = module(x, attention_mask=real), module.new_cache()
        pieces = [module(x[:, a:b], attention_mask=real[:, a:b], cache=cache) for a, b in ((0, 20), (20, 21), (21, 45))]
    assert (deepseek.cat(pieces, dim=1) == whole).all()
    assert cache.lengths == [39, 45]


def test_positions_of_entries_are_those_of_their_first_tokens_with_a_cache_too():
    module, x = made().float(), tokens(41).float()
    positions = deepseek.arange(41) * 3 + 5
    with deepseek.no_grad():
        whole, cache = module(x, positions=positions), module.new_cache()
        kinds = (deepseek.int64, deepseek.int32, deepseek.int64)
        pieces = [
            module(x[:, a:b], positions=positions[a:b].to(kind), cache=cache)
            for a, b, kind in zip((0, 6, 7), (6, 7, 41), kinds, strict=True)
        ]
        assert (deepseek.cat(pieces, dim=1) == whole).all()
        assert not (module(x) == whole).all()


def test_one_token_and_none():
    module = made()
    assert module(tokens(1)).shape == (1, 1, 12)
    assert module(tokens(0)).shape == (1, 0, 12)
    assert module(tokens(3)[:0]).shape == (0, 3, 12)


@pytest.mark.parametrize("changes, text", [
    ({"layer_type": "full_attention"}, "layer_type must be one of 'sliding_attention'"),
    ({"o_groups": 3}, "o_groups must divide num_attention_heads, got 3 and 4"),
    ({"qk_rope_head_dim": 12}, "got 12 and 10"),
    ({"qk_rope_head_dim": 10}, "index_head_dim must be even, and it not larger; got 10 and 8"),
    ({"head_dim": 11}, "must be even"),
    ({"index_topk": 0}, "index_topk must be positive, got 0"),
    ({"sliding_window": 0}, "sliding_window must be positive, got 0"),
    ({"compress_ratio": -4}, "compress_ratio must be positive, got -4"),
    ({"hidden_size": -1}, "hidden_size must be positive, got -1"),
    ({"rope_scaling": {"type": "yarn", "factor": 4}}, "needs the setting 'original_max_position_embeddings'"),
])  # fmt: skip
def test_settings_that_do_not_fit(changes, text):
    with pytest.raises(ValueError, match=text):
        CompressedAttention(**{**SETTINGS, **changes})


def test_wrong_calls():
    module, x = made(), tokens(5)
    with pytest.raises(RuntimeError, match=r"x must be \[batch, time, 12\], got \[1, 5, 6\]"):
        module(x[..., :6])
    with pytest.raises(TypeError, match="takes a CompressedCache, got DenseCache"):
        module(x, cache=DenseCache())
    with pytest.raises(ValueError, match=r"use its new_cache\(\)"):
        module(x, cache=made(HEAVY).new_cache())
    with pytest.raises(NotImplementedError, match="padding masks"):
        module(x, attention_mask=deepseek.ones(1, 1, 5, 5))


CONFIG = {"hidden_size": 4096, "num_attention_heads": 64, "head_dim": 512, "qk_rope_head_dim": 64, "q_lora_rank": 1024,
          "o_lora_rank": 1024, "o_groups": 8, "compress_ratios": [0, 0, 4, 128], "sliding_window": 128,
          "rope_theta": 10000, "compress_rope_theta": 160000, "index_n_heads": 64, "index_head_dim": 128,
          "index_topk": 512, "rms_norm_eps": 1e-6, "vocab_size": 129280,
          "rope_scaling": {**YARN, "original_max_position_embeddings": 65536}}  # fmt: skip


@pytest.mark.parametrize("change, error, text", [
    ({"kv_source_layer_ids": [2]}, NotImplementedError, "V4.1"),
    ({"attention_dropout": 0.1}, NotImplementedError, "attention_dropout=0.1"),
    ({"hidden_size": None}, ValueError, "needs hidden_size"),
    ({"compress_ratios": None}, ValueError, "needs layer_types or compress_ratios"),
    ({"compress_ratios": [8] * 4}, ValueError, "compress_ratios must be of 0, 4, 128, got 8"),
    ({"compress_ratios": [0]}, ValueError, "layer_idx must be from 0 to 0, got 3"),
])  # fmt: skip
def test_configurations_that_do_not_fit(change, error, text):
    with pytest.raises(error, match=text):
        CompressedAttention.from_config({**CONFIG, **change}, 3)


def test_the_shapes_of_v4_flash():
    """As published, with the hub's names. (B2.10)"""
    small = {**CONFIG, "hidden_size": 40}  # the width alone, so that it is quick
    shapes = {n: list(t.shape) for n, t in CompressedAttention.from_config(small, 2).state_dict().items()}
    assert shapes["q_a_proj.weight"] == [1024, 40]
    assert shapes["q_b_proj.weight"] == [32768, 1024]
    assert shapes["kv_proj.weight"] == [512, 40]
    assert shapes["o_a_proj.weight"] == [8192, 4096]
    assert shapes["o_b_proj.weight"] == [40, 8192]
    assert shapes["sinks"] == [64]
    assert shapes["compressor.kv_proj.weight"] == shapes["compressor.gate_proj.weight"] == [1024, 40]
    assert shapes["compressor.position_bias"] == [4, 1024]
    assert shapes["compressor.indexer.q_b_proj.weight"] == [8192, 1024]
    assert shapes["compressor.indexer.scorer.weights_proj.weight"] == [64, 40]
    assert shapes["compressor.indexer.kv_proj.weight"] == [256, 40]
    assert shapes["compressor.indexer.position_bias"] == [4, 256]
    heavy = CompressedAttention.from_config(small, 3)
    assert list(heavy.compressor.position_bias.shape) == [128, 512]
    assert heavy.rotation.rotary.factor == 1.0


@pytest.mark.parametrize("layer_type", [SLIDING, SPARSE, HEAVY])
@pytest.mark.parametrize("grad", [False, True])
def test_a_long_prefill_needs_little_memory(layer_type, grad):
    """16,384 tokens: scores of all pairs would be 1 GiB a head, those of tokens and entries 256 MiB."""
    module = made(layer_type, **({"compress_ratio": 32} if layer_type == HEAVY else {})).float()
    x = tokens(16384).float()
    deepseek.reset_peak_memory_stats()
    before = deepseek.memory_stats()["peak_bytes"]
    with deepseek.set_grad_enabled(grad):
        out = module(x)
        if grad:
            out.sum().backward()
    assert deepseek.memory_stats()["peak_bytes"] - before < 64 << 20


def test_memory_of_a_token_in_v4_flash():
    """2 sliding layers, 20 CSA and 21 HCA: 3,284 values a token; DeepSeek-V3.2's 61 layers hold 576 + 128 each."""
    layers = {0: 2, 2: 20, 3: 21}
    config = {**CONFIG, "hidden_size": 8, "num_attention_heads": 1, "o_groups": 1, "q_lora_rank": 8, "o_lora_rank": 8,
              "index_n_heads": 1}  # fmt: skip
    values = 0.0
    for layer, count in layers.items():
        module = CompressedAttention.from_config(config, layer).bfloat16()
        cache, sizes = module.new_cache(), []
        with deepseek.no_grad():
            for _ in range(2):
                module(deepseek.randn(1, 4096, 8, dtype=deepseek.bfloat16), cache=cache)
                sizes.append(cache.nbytes)
        values += count * (sizes[1] - sizes[0]) / 2 / 4096
    assert values == 2 * 0 + 20 * (512 + 128) / 4 + 21 * 512 / 128 == 3284
    assert values / (61 * (512 + 64 + 128)) < 0.077
