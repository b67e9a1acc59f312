"""Multi-head latent attention against loops, its two ways against each other, caches, padding, configurations."""

from __future__ import annotations

from types import SimpleNamespace

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.attention import (
    MultiHeadLatentAttention,
    indexer,
    latent,
    set_indexer_stage,
    sum_of_indexer_losses,
)
from deepseek.autograd import gradcheck
from deepseek.quantization import quantize_
from latent_cases import INDEX, KINDS, SIZES, YARN, make, reference, tokens


@pytest.mark.parametrize("absorb", [None, True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_the_formula(kind: str, absorb: bool | None) -> None:
    module, x = make(absorb=absorb, **KINDS[kind]), tokens()
    out = module(x).detach().numpy()
    for b in range(2):
        np.testing.assert_allclose(out[b], reference(module, x[b], KINDS[kind]), atol=2e-6)


@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("kind", ["yarn", "queries of x", "indexer"])
def test_gradients(kind: str, absorb: bool) -> None:
    module = make(absorb=absorb, **KINDS[kind]).double()
    x = tokens(1, 7).double().requires_grad_()
    learned = [p for name, p in module.named_parameters() if not name.startswith("indexer.")]
    assert gradcheck(lambda *_: module(x), [x, *learned])


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_ways_agree_under_autograd_too(kind: str) -> None:
    module, x, results = make(**KINDS[kind]), tokens(), []
    for absorb in (True, False):
        module.absorb = absorb
        module.zero_grad()
        out = module(x)
        (out * deepseek.arange(out.numel(), dtype=out.dtype).reshape(out.shape).cos()).sum().backward()
        results.append([out.detach(), *(p.grad for p in module.parameters() if p.grad is not None)])
    assert len(results[0]) >= 6
    for a, b in zip(*results, strict=True):
        assert deepseek.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(512, 128, 128, 170), (12, 6, 5, 10), (4, 6, 5, None)])
def test_the_cheaper_way_runs(sizes: tuple[int, int, int, int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cache expanded; with one a few new tokens are absorbed, whatever is there already."""
    rank, nope, value, limit = sizes
    module = MultiHeadLatentAttention(8, 1, None, rank, nope, 4, value)
    assert module.absorb_limit == limit
    ran: list[str] = []
    for way in ("_absorbed", "_expanded"):
        usual = getattr(module, way)
        monkeypatch.setattr(module, way, lambda *a, usual=usual, way=way: ran.append(way) or usual(*a), raising=False)
    few, many = limit or 400, (limit or 399) + 1
    with deepseek.no_grad():
        module(deepseek.zeros(1, 1, 8))
        cache = module.new_cache()
        for n in (1, few, many, few):
            module(deepseek.zeros(1, n, 8), cache=cache)
    larger = "_absorbed" if limit is None else "_expanded"
    assert ran == ["_expanded", "_absorbed", "_absorbed", larger, "_absorbed"]


@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_at_a_time_changes_no_bit(kind: str, absorb: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients long inputs are computed a few heads, or a few queries, at a time."""
    module, x = make(absorb=absorb, **KINDS[kind]), tokens()
    masks: list[deepseek.Tensor | None] = [None]
    if module.takes_pair_masks:
        masks += [
            deepseek.rand(1, 3, 14, 14) > 0.3,
            deepseek.rand(2, 1, 14, 14) > 0.3,
            deepseek.rand(1, 1, 14, 14) > 0.3,
        ]
    want = [module(x, attention_mask=mask) for mask in masks]
    numbers = deepseek.stack([deepseek.arange(14), deepseek.arange(14) * 2])
    turned = module(x, positions=numbers)
    for held, queries in ((1, 1 << 27), (2 * 14 * 21 * 2, 1 << 27), (2 * 3 * 2 * 16 * 4, 1), (1 << 25, 2 * 3 * 10 * 5)):
        monkeypatch.setattr(latent, "_HELD", held)
        monkeypatch.setattr(latent, "_QUERIES", queries)
        with deepseek.no_grad():
            for mask, whole in zip(masks, want, strict=True):
                assert (module(x, attention_mask=mask) == whole).all()
            assert (module(x, positions=numbers) == turned).all()
            if module.causal:
                cache = module.new_cache()
                module(x[:, :4], cache=cache)
                assert (module(x[:, 4:], cache=cache) == want[0][:, 4:]).all()
                if module.takes_pair_masks:
                    cache.truncate(4)
                    assert (module(x[:, 4:], cache=cache, attention_mask=masks[1][:, :, 4:]) == want[1][:, 4:]).all()


@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("kind", ["plain", "indexer"])
def test_a_long_prefill_takes_little_memory(kind: str, absorb: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,000 tokens queries of 16 heads are 10 MB, keys and values as much again, absorbed queries 20 MB."""
    module, x = make(absorb=absorb, num_attention_heads=16, kv_lora_rank=16, **KINDS[kind]), tokens(1, 4000)
    monkeypatch.setattr(latent, "_HELD", 1 << 16)
    monkeypatch.setattr(latent, "_QUERIES", 1 << 16)
    monkeypatch.setattr(indexer, "_HELD", 1 << 18)
    with deepseek.no_grad():
        module(x)
        before = deepseek.memory_stats()["allocated_bytes"]
        deepseek.reset_peak_memory_stats()
        module(x)
        assert deepseek.memory_stats()["peak_bytes"] - before < 6e6


@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("kind", ["yarn", "indexer"])
def test_threads_and_neighbours_change_no_bit(kind: str, absorb: bool) -> None:
    module, x = make(absorb=absorb, **KINDS[kind]), tokens(3, 40)
    before = deepseek.get_num_threads()
    with deepseek.no_grad():
        want = module(x)
        try:
            for threads in (1, 2, 3):
                deepseek.set_num_threads(threads)
                assert (module(x) == want).all()
        finally:
            deepseek.set_num_threads(before)
        for b in range(3):
            assert (module(x[b : b + 1]) == want[b : b + 1]).all()


@pytest.mark.parametrize("absorb", [None, True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str, absorb: bool | None) -> None:
    module, x = make(absorb=absorb, **KINDS[kind]), tokens(3, 12)
    real = deepseek.ones(3, 12, dtype=deepseek.bool)
    real[0, :5], real[1, 9:], real[2, 3:6] = False, False, False
    with deepseek.no_grad():
        out = module(x, attention_mask=real)
        for b in range(3):
            kept = real[b].nonzero().squeeze(-1)
            assert (out[b].index_select(0, kept) == module(x[b : b + 1].index_select(1, kept))[0]).all()
            assert not out[b].index_select(0, (~real[b]).nonzero().squeeze(-1)).any()


@pytest.mark.parametrize("absorb", [None, True, False])
@pytest.mark.parametrize("kind", ["plain", "yarn", "indexer"])
def test_rewound_and_refilled_gives_the_same_bits(kind: str, absorb: bool | None) -> None:
    module, x, other = make(absorb=absorb, **KINDS[kind]), tokens(time=20), tokens(time=20, seed=2)
    with deepseek.no_grad():
        cache = module.new_cache()
        parts = [module(x[:, :9], cache=cache), module(x[:, 9:], cache=cache)]
        for length in (9, 15, 9):
            cache.truncate(length)
            module(other[:, length:18], cache=cache)
        cache.truncate(9)
        assert (module(x[:, 9:], cache=cache) == parts[1]).all()
        cache.truncate(0)
        assert (module(x[:, :9], cache=cache) == parts[0]).all()


def test_sparse_is_dense_where_the_budget_covers_all_keys() -> None:
    module, x = make(**{**INDEX, "index_topk": 14}), tokens()
    dense = make()
    dense.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("indexer.")})
    for absorb in (True, False):
        module.absorb = dense.absorb = absorb
        assert (module(x) == dense(x)).all()


def test_unselected_keys_are_never_computed() -> None:
    """They may hold anything: no product with them is formed, in prefill or decoding."""
    module, x = make(**INDEX), tokens(1, 14)
    with deepseek.no_grad():
        cache = module.new_cache()
        out = module(x, cache=cache)
        latents = cache._latents.view()
        indices = module.indexer(x, module.q_a_layernorm(module.q_a_proj(x)))
        others = [s for s in range(14) if s not in indices[0, 13].tolist()]
        assert len(others) == 8
        cache.truncate(13)
        latents[:, [s for s in others if s < 13]] = float("nan")
        assert deepseek.allclose(module(x[:, 13:], cache=cache), out[:, 13:], atol=1e-6)


def test_pairs_can_be_masked() -> None:
    module, x = make(), tokens()
    mask = deepseek.rand(2, 1, 14, 14) > 0.5
    mask = mask | deepseek.eye(14, dtype=deepseek.bool)
    added = deepseek.where(mask, 0.0, float("-inf"))
    for absorb in (True, False):
        module.absorb = absorb
        got = module(x, attention_mask=mask)
        assert deepseek.allclose(got, module(x, attention_mask=added), atol=1e-6)
        cut = mask & (deepseek.arange(14) != 3).reshape(1, 1, 1, 14) | deepseek.eye(14, dtype=deepseek.bool)
        changed = x.clone()
        changed[:, 3] = 9.0
        rows = [t for t in range(14) if t != 3]
        a, b = module(x, attention_mask=cut)[:, rows], module(changed, attention_mask=cut)[:, rows]
        assert (a == b).all()
    with pytest.raises(NotImplementedError, match="selects keys by itself"):
        make(**INDEX)(x, attention_mask=mask)


def test_positions_turn_and_places_decide_what_is_seen() -> None:
    module, x = make(), tokens()
    assert deepseek.allclose(module(x, positions=deepseek.arange(1000, 1014)), module(x), atol=1e-4)
    rows = deepseek.stack([deepseek.arange(14), deepseek.arange(14) * 2])
    for kind in ("plain", "indexer"):
        module = make(**KINDS[kind])
        both = module(x, positions=rows)
        assert (both[:1] == module(x[:1])).all()
        assert (both[1:] == module(x[1:], positions=rows[1])).all()
        assert not deepseek.allclose(both[1:], module(x[1:]))


def test_a_token_takes_576_numbers_in_the_shape_of_v3() -> None:
    plain = MultiHeadLatentAttention(64, 2, 32)
    picks = MultiHeadLatentAttention(64, 2, 32, index_topk=4, index_n_heads=2)
    x = deepseek.randn(1, 100, 64)
    with deepseek.no_grad():
        for one, numbers in ((plain, 576), (picks, 576 + 128)):
            cache = one.new_cache()
            one(x, cache=cache)
            assert cache.nbytes == 100 * numbers * 4
            assert cache.allocated < 2.1 * cache.nbytes
        picks.indexer.precision = "int8"
        cache = picks.new_cache()
        picks(x, cache=cache)
        assert cache.nbytes == 100 * (576 * 4 + 128 + 4)


def test_8_bit_latents_take_656_bytes_and_decode_as_they_prefill() -> None:
    module = MultiHeadLatentAttention(64, 2, 32, absorb=True)
    deepseek.manual_seed(0)
    x = deepseek.randn(2, 60, 64)
    with deepseek.no_grad():
        exact, cache = module(x), module.new_cache("fp8")
        want = module(x, cache=cache)
        assert cache.nbytes == 2 * 60 * 656
        for cuts in ([1] * 60, [20, 39, 1]):
            cache, got = module.new_cache("fp8"), []
            for n in cuts:
                got.append(module(x[:, cache.length : cache.length + n], cache=cache))
            assert (deepseek.cat(got, dim=1) == want).all()
        cache.truncate(10)
        assert (module(x[:, 10:], cache=cache) == want[:, 10:]).all()
        real = deepseek.arange(60) >= deepseek.tensor([[0], [7]])
        assert (module(x, cache=module.new_cache("fp8"), attention_mask=real)[0] == want[0]).all()
        assert 0 < float((want - exact).square().mean().sqrt()) < 0.04 * float(exact.square().mean().sqrt())
        odd = make(absorb=True)  # a latent of 12 numbers is one short tile
        small = odd.new_cache("fp8")
        assert deepseek.allclose(odd(tokens(), cache=small), odd(tokens()), atol=0.1)
        assert small.nbytes == 2 * 14 * (12 + 4 + 2 * 4)
    with pytest.raises(RuntimeError, match="fp8 has no gradients"):
        module(x, cache=module.new_cache("fp8"))
    with pytest.raises(NotImplementedError, match="beside an indexer is not implemented"):
        make(**INDEX).new_cache("fp8")
    with pytest.raises(ValueError, match="'fp8', got 'int8'"):
        module.new_cache("int8")


def test_8_bit_selection_decodes_as_it_prefills() -> None:
    module, x = make(absorb=True, index_precision="int8", **INDEX), tokens(time=20)
    with deepseek.no_grad():
        want, cache = module(x), module.new_cache()
        got = [module(x[:, t : t + 1], cache=cache) for t in range(20)]
    assert (deepseek.cat(got, dim=1) == want).all()


# --- training the indexer


@pytest.mark.parametrize("absorb", [None, True, False])
@pytest.mark.parametrize("stage", ["dense", "sparse"])
def test_the_indexer_learns_beside_the_model(stage: str, absorb: bool | None) -> None:
    module, x = make(absorb=absorb, **INDEX), tokens()
    x.requires_grad_()
    plain = module(x)
    assert module.indexer_loss is None
    module.indexer.stage = stage
    out = module(x)
    loss = module.indexer_loss
    assert loss is not None
    dense = make(absorb=absorb)
    dense.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("indexer.")})
    assert (out == (dense(x) if stage == "dense" else plain)).all()
    loss.backward()
    for name, p in module.named_parameters():
        assert (p.grad is not None) == name.startswith("indexer."), name
    assert x.grad is None
    module.eval()
    assert (module(x) == plain).all()
    assert module.indexer_loss is None


def test_all_indexers_of_a_model_at_once() -> None:
    model = nn.Sequential(make(**INDEX), make(1), make(2, **INDEX))
    assert sum_of_indexer_losses(model) is None
    assert set_indexer_stage(model, "dense") == 2
    model(tokens())
    total = sum_of_indexer_losses(model)
    assert float(total) == pytest.approx(float(model[0].indexer_loss) + float(model[2].indexer_loss), rel=1e-6)
    total.backward()
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None} == {"indexer"}
    assert set_indexer_stage(model, None) == 2
    model(tokens())
    assert sum_of_indexer_losses(model) is None


@pytest.mark.parametrize("stage", ["dense", "sparse"])
def test_gradients_of_the_indexer(stage: str) -> None:
    module, x = make(**INDEX).double(), tokens(1, 9).double()
    module.indexer.stage = stage

    def loss(*_: deepseek.Tensor) -> deepseek.Tensor:
        with deepseek.enable_grad():  # gradcheck's differences are taken without, where nothing is learned
            module(x)
            return module.indexer_loss

    assert gradcheck(loss, list(module.indexer.parameters()))


def test_the_loss_of_padded_sequences_is_the_mean_over_their_queries() -> None:
    module, x = make(**INDEX), tokens()
    module.indexer.stage = "sparse"
    losses = []
    for rows in (x[:1], x[1:, :9]):
        module(rows)
        losses.append(float(module.indexer_loss))
    real = deepseek.arange(14) < deepseek.tensor([[14], [9]])
    module(x, attention_mask=real)
    assert float(module.indexer_loss) == pytest.approx((14 * losses[0] + 9 * losses[1]) / 23, rel=1e-5)


# --- configurations

HUB = {
    **SIZES,
    "model_type": "deepseek_v2",
    "num_key_value_heads": 3,
    "rope_theta": 10000,
    "rope_scaling": YARN,
    "rms_norm_eps": 1e-5,
    "vocab_size": 99,
    "attention_dropout": 0.0,
    "moe_intermediate_size": 7,
}


def test_from_config_takes_any_configuration() -> None:
    x = tokens()
    want = make(rope_scaling=YARN)
    parameters5 = {**YARN, "rope_type": "yarn", "rope_theta": 10000}
    newer = {k: v for k, v in HUB.items() if k not in ("rope_scaling", "rope_theta")} | {"rope_parameters": parameters5}
    for config in (HUB, SimpleNamespace(**HUB), newer, SimpleNamespace(**newer)):
        module = MultiHeadLatentAttention.from_config(config)
        module.load_state_dict(want.state_dict())
        assert (module(x) == want(x)).all()
        assert module.indexer is None
    assert MultiHeadLatentAttention.from_config(HUB, absorb=True, q_lora_rank=None).absorb is True
    assert MultiHeadLatentAttention.from_config({**HUB, **INDEX}).indexer.index_topk == 6
    with pytest.raises(ValueError, match="has no kv_lora_rank, v_head_dim"):
        MultiHeadLatentAttention.from_config({k: v for k, v in HUB.items() if k not in ("kv_lora_rank", "v_head_dim")})
    longer = {k: v for k, v in YARN.items() if k != "original_max_position_embeddings"}
    module = MultiHeadLatentAttention.from_config({**HUB, "rope_scaling": longer, "max_position_embeddings": 8})
    module.load_state_dict(want.state_dict())
    assert (module(x) == want(x)).all()


def test_parameters_are_the_checkpoints() -> None:
    lite = MultiHeadLatentAttention(2048, 16)  # DeepSeek-V2-Lite
    assert {k: list(v.shape) for k, v in lite.state_dict().items()} == {
        "q_proj.weight": [3072, 2048],
        "kv_a_proj_with_mqa.weight": [576, 2048],
        "kv_a_layernorm.weight": [512],
        "kv_b_proj.weight": [4096, 512],
        "o_proj.weight": [2048, 2048],
    }
    assert sorted(make(attention_bias=True, **INDEX).state_dict()) == [
        "indexer.k_norm.bias",
        "indexer.k_norm.weight",
        "indexer.weights_proj.weight",
        "indexer.wk.weight",
        "indexer.wq_b.weight",
        "kv_a_layernorm.weight",
        "kv_a_proj_with_mqa.bias",
        "kv_a_proj_with_mqa.weight",
        "kv_b_proj.weight",
        "o_proj.bias",
        "o_proj.weight",
        "q_a_layernorm.weight",
        "q_a_proj.bias",
        "q_a_proj.weight",
        "q_b_proj.weight",
    ]


def test_quantized_models_keep_what_is_absorbed() -> None:
    deepseek.manual_seed(0)
    module = MultiHeadLatentAttention(64, 2, 64, 64, 32, 32, 32, **INDEX | {"index_head_dim": 32, "index_topk": 9})
    x = deepseek.randn(1, 9, 64)
    want = module(x)
    quantize_(module, "int8")
    names = {name for name, p in module.named_parameters()}
    assert {"kv_b_proj.weight", "indexer.weights_proj.weight"} <= names
    assert "q_b_proj.weight" not in names
    for absorb in (True, False):
        module.absorb = absorb
        error = (module(x) - want).abs().max() / want.abs().max()
        assert float(error) < 0.1


@pytest.mark.parametrize("kind", ["yarn", "indexer"])
def test_16_bits_and_autocast_are_near(kind: str) -> None:
    module, x = make(**KINDS[kind] | ({"index_topk": 14} if kind == "indexer" else {})), tokens()
    want = module(x)
    for absorb in (True, False):
        module.absorb = absorb
        with deepseek.autocast("cpu"):
            out = module(x)
        assert float((out.float() - want).abs().max()) < 0.05
    module.bfloat16()
    for absorb in (True, False):
        module.absorb = absorb
        out = module(x.bfloat16())
        assert out.dtype is deepseek.bfloat16
        assert float((out.float() - want).abs().max()) < 0.05
