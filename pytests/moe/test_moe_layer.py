"""DeepseekMoE against plain NumPy, its gradients, and the traps of shared experts, clamps and rounding."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.autograd import gradcheck
from deepseek.moe import DeepseekMoE, SwiGLU
from deepseek.nn import functional as F
from deepseek.quantization import quantize_
from moe.moe_reference import Rule, mixture, route

D, W, E = 24, 10, 8
LAYERS: dict[str, dict[str, Any]] = {
    "V2-Lite": {"num_experts_per_tok": 3, "n_shared_experts": 2},
    "V2": {
        "num_experts_per_tok": 3, "n_shared_experts": 2, "topk_method": "group_limited_greedy", "n_group": 4,
        "topk_group": 2, "routed_scaling_factor": 16.0,
    },
    "V3": {
        "num_experts_per_tok": 4, "n_shared_experts": 1, "topk_method": "noaux_tc", "n_group": 4, "topk_group": 2,
        "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    },
    "V4": {
        "num_experts_per_tok": 3, "n_shared_experts": 1, "topk_method": "noaux_tc", "scoring_func": "sqrtsoftplus",
        "norm_topk_prob": True, "routed_scaling_factor": 1.5, "swiglu_limit": 0.5,
    },
    "no shared": {"num_experts_per_tok": 1},
}  # fmt: skip


def layer_of(name: str, **more: Any) -> DeepseekMoE:
    deepseek.manual_seed(1)
    layer = DeepseekMoE(**{"hidden_size": D, "moe_intermediate_size": W, "n_routed_experts": E} | LAYERS[name] | more)
    if layer.gate.e_score_correction_bias is not None:
        layer.gate.e_score_correction_bias.normal_()
    return layer


def arrays(layer: DeepseekMoE) -> tuple[list[Any], Any]:
    held = {name: value.double().numpy() for name, value in layer.state_dict().items()}
    experts = [
        tuple(held[f"experts.{e}.{part}_proj.weight"] for part in ("gate", "up", "down")) for e in range(E)
    ]  # fmt: skip
    if layer.shared_experts is None:
        return experts, None
    return experts, tuple(held[f"shared_experts.{part}_proj.weight"] for part in ("gate", "up", "down"))


def reference(layer: DeepseekMoE, x: np.ndarray) -> np.ndarray:
    gate = layer.gate
    rule = Rule(
        gate.top_k, gate.scoring, gate.n_group, gate.topk_group, gate.group_score, gate.norm_topk_prob,
        gate.routed_scaling_factor,
    )  # fmt: skip
    bias = gate.e_score_correction_bias
    weights, indices = route(
        x, gate.weight.detach().double().numpy(), rule, 0.0 if bias is None else bias.double().numpy()
    )
    return mixture(x, weights, indices, *arrays(layer), layer.experts.swiglu_limit)


@pytest.mark.parametrize("name", LAYERS)
def test_formula(name: str) -> None:
    layer = layer_of(name).double()
    x = deepseek.randn(3, 5, D, dtype=deepseek.float64)
    with deepseek.no_grad():
        got = layer(x).numpy().reshape(-1, D)
    np.testing.assert_allclose(got, reference(layer, x.numpy().reshape(-1, D)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str) -> None:
    layer = layer_of(name, hidden_size=6, moe_intermediate_size=3).double()
    x = deepseek.randn(4, 6, dtype=deepseek.float64, requires_grad=True)
    holders = [(m, key) for m in layer.modules() for key, p in m._parameters.items() if p is not None]

    def call(x: Any, *weights: Any) -> Any:
        for (module, key), weight in zip(holders, weights, strict=True):
            module._parameters[key] = weight
        return layer(x)

    assert gradcheck(call, (x, *layer.parameters()))


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
@pytest.mark.parametrize("numerics", ["hf", "reference"])
def test_low_precision(low: str, numerics: str) -> None:
    dtype = getattr(deepseek, low)
    layer = layer_of("V3", numerics=numerics).to(dtype)
    x = deepseek.randn(3, 5, D).to(dtype)
    with deepseek.no_grad():
        got = layer(x)
    assert got.dtype == dtype
    want = reference(layer, x.double().numpy().reshape(-1, D))
    np.testing.assert_allclose(got.double().numpy().reshape(-1, D), want, atol=0.03 * np.abs(want).max())


def test_reference_rounds_once_at_the_end() -> None:
    layer = layer_of("V3", numerics="reference").bfloat16().eval()
    x = deepseek.randn(64, D).bfloat16()
    with deepseek.no_grad():
        routed = layer.gate(x)
        wide = layer.experts(x, routed.indices, routed.weights, wide=True)
        shared = layer.shared_experts(x)
        assert wide.dtype == deepseek.float32
        assert (layer(x) == (wide + shared.float()).bfloat16()).all()
        layer.numerics = "hf"
        assert (layer(x) == wide.bfloat16() + shared).all()
        assert ((wide + shared.float()).bfloat16() != wide.bfloat16() + shared).any()


def test_numerics_are_the_same_in_float32() -> None:
    layer = layer_of("V3").eval()
    x = deepseek.randn(9, D)
    first = layer(x)
    layer.numerics = "reference"
    assert (layer(x) == first).all()


def test_reference_is_refused_for_fp8_experts() -> None:
    layer = quantize_(layer_of("V3", numerics="reference"), "fp8")
    with pytest.raises(NotImplementedError, match="quantizes activations to FP8"):
        layer(deepseek.randn(2, D))
    layer.numerics = "hf"
    assert layer(deepseek.randn(2, D)).isfinite().all()


# --- traps


def test_shared_experts_are_outside_the_scale() -> None:
    layer = layer_of("V3").eval()
    x = deepseek.randn(5, D)
    with deepseek.no_grad():
        shared, one = layer.shared_experts(x), layer(x)
        layer.gate.routed_scaling_factor = 5.0
        np.testing.assert_allclose((layer(x) - shared).numpy(), 2 * (one - shared).numpy(), rtol=1e-4, atol=1e-6)
        layer.gate.routed_scaling_factor = 0.0
        assert (layer(x) == shared).all()


@pytest.mark.parametrize("name", ["V4"])
def test_clamp_is_in_shared_experts_too(name: str) -> None:
    layer, plain = layer_of(name), layer_of(name, swiglu_limit=None)
    plain.load_state_dict(layer.state_dict())
    assert isinstance(layer.shared_experts, SwiGLU)
    x = deepseek.randn(5, D) * 20
    with deepseek.no_grad():
        gate, up = layer.shared_experts.gate_proj(x), layer.shared_experts.up_proj(x)
        want = layer.shared_experts.down_proj(F.silu(gate.clamp(max=0.5)) * up.clamp(-0.5, 0.5))
        np.testing.assert_allclose(layer.shared_experts(x).numpy(), want.numpy(), rtol=1e-5, atol=1e-6)
        assert (layer.shared_experts(x) != plain.shared_experts(x)).any()
        routed = layer.gate(x)
        inner = [e(x, routed.indices, routed.weights) for e in (layer.experts, plain.experts)]
        assert (inner[0] != inner[1]).any()


def test_gate_is_cut_above_only() -> None:
    gate, up = deepseek.tensor([-30.0, 30.0, 1.0, 1.0]), deepseek.tensor([1.0, 1.0, -30.0, 30.0])
    want = F.silu(deepseek.tensor([-30.0, 2.0, 1.0, 1.0])) * deepseek.tensor([1.0, 1.0, -2.0, 2.0])
    assert F.swiglu(gate, up, 2.0).tolist() == want.tolist()


def test_what_was_cut_has_no_slope() -> None:
    gate = deepseek.tensor([3.0, 1.0, 2.0, 1.0], requires_grad=True)
    up = deepseek.tensor([1.0, -3.0, 2.0, 1.0], requires_grad=True)
    F.swiglu(gate, up, 2.0).sum().backward()
    assert (gate.grad != 0).tolist() == [False, True, True, True]
    assert (up.grad != 0).tolist() == [True, False, True, True]
    assert F.swiglu(deepseek.tensor([math.nan]), deepseek.tensor([1.0]), 2.0).isnan().all()
    with pytest.raises(ValueError, match="limit must be positive or None, got 0"):
        F.swiglu(gate, up, 0)


# --- padding, empty slots, few bits


def test_padding_has_no_routed_experts_and_no_gradient() -> None:
    layer = layer_of("V3")
    x = deepseek.randn(2, 5, D)
    mask = deepseek.zeros(2, 5, dtype=deepseek.bool)
    mask[0, :3] = True
    spoilt = x.clone()
    spoilt[mask] = 1e4
    whole = layer(x)
    x.requires_grad_()
    got = layer(x, padding_mask=mask)
    assert (got[~mask] == whole[~mask]).all()
    assert (got[mask] == 0).all()
    assert (layer(spoilt, padding_mask=mask)[~mask] == whole[~mask]).all()
    got[~mask].sum().backward()
    assert (x.grad[mask] == 0).all()


def test_padding_on_either_side_equals_none() -> None:
    layer = layer_of("V3").eval()
    x, pad = deepseek.randn(1, 6, D), deepseek.randn(1, 3, D)
    alone = layer(x)
    for parts, place in (([pad, x], slice(3, 9)), ([x, pad], slice(0, 6))):
        mask = deepseek.ones(1, 9, dtype=deepseek.bool)
        mask[:, place] = False
        assert (layer(deepseek.cat(parts, 1), padding_mask=mask)[:, place] == alone).all()


def test_capacity_leaves_the_shared_experts() -> None:
    layer = layer_of("V2-Lite", capacity_factor=1e-6)
    with deepseek.no_grad():
        layer.gate.weight.copy_(layer.gate.weight[0].expand(E, D))  # all choose experts 0, 1, 2
        x = deepseek.randn(9, D)
        assert (layer(x)[1:] == layer.shared_experts(x)[1:]).all()
    assert layer.gate.dropped.tolist()[:3] == [8, 8, 8]


@pytest.mark.parametrize("form", ["int8", "int4", "fp8"])
def test_few_bits(form: str) -> None:
    layer = layer_of("V4", hidden_size=128, moe_intermediate_size=128).eval()
    x = deepseek.randn(6, 128)
    with deepseek.no_grad():
        want = layer(x)
        quantize_(layer, form)
        assert layer.experts.quantized == form
        got = layer(x)
    wide = layer.experts(x.bfloat16(), deepseek.zeros(6, 1, dtype=deepseek.int64), deepseek.ones(6, 1), wide=True)
    assert wide.dtype == deepseek.float32
    error = ((got - want).norm() / want.norm()).item()
    assert error < {"int8": 0.02, "int4": 0.25, "fp8": 0.08}[form]
    fresh = quantize_(layer_of("V4", hidden_size=128, moe_intermediate_size=128), form)
    fresh.load_state_dict(layer.state_dict())
    assert (fresh.eval()(x) == got).all()


def test_aux_loss_of_a_training_forward() -> None:
    layer = layer_of("V2-Lite", aux_loss_alpha=0.5)
    x = deepseek.randn(2, 5, D)
    layer(x)
    from deepseek.moe import load_balancing_loss, sequence_balance_loss

    routed = layer.gate(x)
    probs = F.softmax(routed.logits, -1).view(2, 5, E)
    assert layer.aux_loss.item() == pytest.approx(0.5 * sequence_balance_loss(probs, routed.indices).item())
    layer.aux_loss.backward()
    assert layer.gate.weight.grad.abs().sum().item() > 0
    layer.seq_aux = False
    layer(x)
    assert copy.deepcopy(layer).aux_loss is None and pickle.loads(pickle.dumps(layer)).aux_loss is None
    assert layer.aux_loss.item() == pytest.approx(0.5 * load_balancing_loss(probs, routed.indices).item())


def test_autocast() -> None:
    for numerics in ("hf", "reference"):
        layer = layer_of("V3", numerics=numerics)
        x = deepseek.randn(5, D)
        with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
            got = layer(x)
        assert got.dtype == deepseek.bfloat16
        np.testing.assert_allclose(got.detach().float().numpy(), layer(x).detach().numpy(), atol=0.05)
        got.sum().backward()
        assert all(p.grad is not None and p.grad.dtype == deepseek.float32 for p in layer.parameters())


# --- sameness and size


@pytest.mark.parametrize("more", [{}, {"capacity_factor": 1.0}, {"aux_loss_alpha": 0.1}], ids=str)
def test_captured_equals_eager(more: dict[str, Any]) -> None:
    layer = layer_of("V2", **more)
    fast = deepseek.jit(lambda x: layer(x))
    for step in range(4):
        if step == 2:
            layer.gate.enabled[:3] = False
        x, y = (deepseek.randn(6, D).requires_grad_() for _ in range(2))
        with deepseek.no_grad():
            y.copy_(x)
        layer.gate.reset_load()
        eager = layer(x)
        once = layer.gate.load.clone()
        captured = fast(y)
        assert (eager == captured).all() and (layer.gate.load == 2 * once).all()
        eager.sum().backward()
        captured.sum().backward()
        assert (x.grad == y.grad).all()


@pytest.mark.parametrize("name", ["V2", "V3", "V4"])
def test_a_token_depends_on_itself_alone(name: str) -> None:
    layer = layer_of(name).eval()
    x = deepseek.randn(50, D)
    with deepseek.no_grad():
        whole = layer(x)
        order = deepseek.randperm(50)
        assert (layer(x[order]) == whole[order]).all()
        assert (layer(x.view(5, 10, D)).view(50, D) == whole).all()
        for size in (1, 7):
            assert (deepseek.cat([layer(part) for part in x.split(size)]) == whole).all()


def test_the_same_for_any_number_of_threads() -> None:
    layer = layer_of("V3", hidden_size=128, moe_intermediate_size=64)
    x = deepseek.randn(200, 128)
    before, found = deepseek.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            deepseek.set_num_threads(threads)
            layer.zero_grad()
            layer(x).sum().backward()
            found.append([layer(x), *(p.grad for p in layer.parameters())])
    finally:
        deepseek.set_num_threads(before)
    for other in found[1:]:
        assert all((a == b).all() for a, b in zip(found[0], other, strict=True))


def test_no_token_and_one_token() -> None:
    layer = layer_of("V3")
    for shape in ((0, D), (2, 0, D), (D,), (1, 1, D)):
        out = layer(deepseek.randn(*shape))
        assert out.shape == shape and out.isfinite().all()


def test_nan_stays_in_its_token() -> None:
    layer = layer_of("V4").eval()
    x = deepseek.randn(3, D)
    clean = layer(x)
    x[1, 0] = math.nan
    out = layer(x)
    assert out[1].isnan().all() and (out[0] == clean[0]).all() and (out[2] == clean[2]).all()


# --- configurations


def test_from_a_configuration() -> None:
    config = {
        "model_type": "deepseek_v3", "hidden_size": D, "moe_intermediate_size": W, "n_routed_experts": E,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
        "routed_scaling_factor": 2.5, "kv_lora_rank": 7, "quantization_config": {"fmt": "e4m3"},
    }  # fmt: skip
    layer = DeepseekMoE.from_config(config)
    assert layer.gate.scoring == "sigmoid" and layer.gate.group_score == "top2"
    assert layer.gate.e_score_correction_bias is not None

    class Config:
        pass

    other = Config()
    other.__dict__.update(config, scoring_func="softmax", topk_method="greedy")
    layer = DeepseekMoE.from_config(other, numerics="reference")
    assert layer.gate.scoring == "softmax" and layer.gate.n_group == 1 and layer.numerics == "reference"
    v4 = config | {
        "model_type": "deepseek_v4", "num_hash_layers": 1, "vocab_size": 50, "n_group": None, "topk_group": None,
        "swiglu_limit": 10.0,
    }  # fmt: skip
    first, second = DeepseekMoE.from_config(v4, 0), DeepseekMoE.from_config(v4, 1)
    assert first.gate.tid2eid.shape == (50, 2) and first.gate.e_score_correction_bias is None
    assert second.gate.tid2eid is None and second.gate.scoring == "sqrtsoftplus"
    assert second.experts.swiglu_limit == second.shared_experts.swiglu_limit == 10.0
    typed = v4 | {"mlp_layer_types": ["moe", "hash_moe"]}
    assert DeepseekMoE.from_config(typed, 0).gate.tid2eid is None
    with pytest.raises(ValueError, match="pass layer_idx"):
        DeepseekMoE.from_config(v4)
    with pytest.raises(ValueError, match="lacks n_routed_experts, num_experts_per_tok"):
        DeepseekMoE.from_config({"hidden_size": D, "moe_intermediate_size": W})
    with pytest.raises(NotImplementedError, match="mlp_bias"):
        DeepseekMoE.from_config(config | {"mlp_bias": True})


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        (ValueError, "topk_method must be one of 'greedy'", {"topk_method": "best"}),
        (ValueError, "numerics must be one of 'hf', 'reference'", {"numerics": "exact"}),
        (ValueError, "layout must be one of 'per_expert', 'fused'", {"layout": "stacked"}),
        (NotImplementedError, "no 'gelu'", {"hidden_act": "gelu"}),
        (ValueError, "n_shared_experts must not be negative", {"n_shared_experts": -1}),
        (ValueError, "aux_loss_alpha must not be negative", {"aux_loss_alpha": -0.1}),
        (ValueError, "swiglu_limit must be positive", {"swiglu_limit": 0.0}),
        (ValueError, "intermediate_size must be at least 1", {"moe_intermediate_size": 0}),
        (ValueError, "num_experts must be at least 1", {"n_routed_experts": 0}),
        (ValueError, "top_k must be from 1", {"num_experts_per_tok": 9}),
    ],
)
def test_bad_arguments(error: type[Exception], text: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(error, match=text):
        layer_of("V2-Lite", **arguments)


def test_bad_calls() -> None:
    layer = layer_of("V2-Lite")
    with pytest.raises(RuntimeError, match="input must be"):
        layer(deepseek.randn(2, D + 1))
    with pytest.raises(RuntimeError, match="one dtype"):
        layer(deepseek.randn(2, D).bfloat16())
    with pytest.raises(TypeError, match="floating point"):
        layer(deepseek.ones(2, D, dtype=deepseek.int64))


def test_trains() -> None:
    """A layer learns what another one does."""
    teacher, student = layer_of("V3").eval(), DeepseekMoE(D, W, E, 4, n_shared_experts=1, aux_loss_alpha=1e-3)
    optimizer = deepseek.optim.AdamW(student.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        x = deepseek.randn(64, D, generator=deepseek.Generator().manual_seed(step % 4))
        with deepseek.no_grad():
            want = teacher(x)
        loss = nn.functional.mse_loss(student(x), want)
        optimizer.zero_grad()
        (loss + student.aux_loss).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


CONFIG = {"hidden_size": 8, "moe_intermediate_size": 4, "n_routed_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("more", "number"),
    [
        ({"mlp_layer_types": ["hash_moe", "moe"], "vocab_size": 9}, 2),
        ({"mlp_layer_types": ["hash_moe", "moe"], "vocab_size": 9}, -1),
        ({"num_hash_layers": 1, "num_hidden_layers": 3, "vocab_size": 9}, 3),
        ({"num_hidden_layers": 3}, -1),
        ({}, -1),
    ],
)
def test_layers_that_are_not_there(more: dict[str, Any], number: int) -> None:
    with pytest.raises(ValueError, match=rf"from_config: layer_idx must .*; got {number}"):
        DeepseekMoE.from_config(CONFIG | more, number)


def test_v4_always_divides_by_the_sum() -> None:
    """transformers' DeepSeek-V4 has norm_topk_prob in its configuration, and does not ask it."""
    for given in (True, False):
        config = CONFIG | {"model_type": "deepseek_v4", "norm_topk_prob": given}
        assert DeepseekMoE.from_config(config).gate.norm_topk_prob
        assert not DeepseekMoE.from_config(config, norm_topk_prob=False).gate.norm_topk_prob
    assert not DeepseekMoE.from_config(
        CONFIG | {"model_type": "deepseek_v3", "norm_topk_prob": False}
    ).gate.norm_topk_prob
