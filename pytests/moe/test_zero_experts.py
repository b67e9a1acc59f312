"""ZeroComputationMoE: the definition against numpy, gradients, skipped rows that are counted, and balance by cost."""

from __future__ import annotations

import copy
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.moe import ExpertTuning, ZeroComputationMoE, flops_per_token
from deepseek.quantization import quantize_
from deepseek.testing import gradcheck
from moe_layers import tokens


def make(seed: int = 0, **options: Any) -> ZeroComputationMoE:
    deepseek.manual_seed(seed)
    layer = ZeroComputationMoE(16, 12, **{"num_experts": 4, "top_k": 3, **options})
    with deepseek.no_grad():
        layer.constant_weight.normal_()
        layer.constant_value.normal_()
    return layer


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def reference(layer: ZeroComputationMoE, x: np.ndarray) -> np.ndarray:
    """Slot by slot in float64, from the router's answer."""
    weights, indices, _ = (t.detach().numpy() for t in layer.gate(deepseek.from_numpy(x)))
    p = {name: value.detach().numpy().astype(np.float64) for name, value in layer.named_parameters()}
    x, out = x.astype(np.float64), np.zeros(x.shape)
    for t in range(len(x)):
        for weight, expert in zip(weights[t], indices[t], strict=True):
            y = np.zeros(x.shape[1])
            zc = expert - layer.num_experts - layer.zero_experts
            if expert < 0:
                continue
            if expert < layer.num_experts:
                gate, up = p["experts.gate_proj"][expert] @ x[t], p["experts.up_proj"][expert] @ x[t]
                y = p["experts.down_proj"][expert] @ (gate * sigmoid(gate) * up)
            elif 0 <= zc < layer.copy_experts:
                y = x[t]
            elif zc >= layer.copy_experts:
                number = zc - layer.copy_experts
                a = np.exp(p["constant_weight"][number] @ x[t])
                y = (a[0] * x[t] + a[1] * p["constant_value"][number]) / a.sum()
            out[t] += weight * y
    return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zero_experts": 0},
        {"copy_experts": 0},
        {"constant_experts": 0},
        {"zero_experts": 0, "copy_experts": 0, "constant_experts": 0, "top_k": 2},
        {"zero_experts": 2, "copy_experts": 3, "constant_experts": 1, "top_k": 5},
        {"scoring": "sigmoid", "selection_bias": True, "norm_topk_prob": True, "routed_scaling_factor": 1.5},
    ],
)
def test_it_is_the_sum_over_its_slots(options: dict[str, Any]) -> None:
    layer, x = make(**options), tokens(60)
    out = layer(x.view(3, 20, 16))
    np.testing.assert_allclose(out.detach().numpy().reshape(60, 16), reference(layer, x.numpy()), rtol=1e-4, atol=1e-5)


def test_slots_of_zero_computation_experts_take_no_row() -> None:
    """T40: executed slots are those of feed-forward experts, and a layer that has none there computes none."""
    layer, x = make(), tokens(200)
    layer(x)
    indices = layer.routing.indices.numpy()
    report = layer.report()
    assert report.units == 600 and report.executed == (indices < 4).sum() < 600
    assert report.flops == report.executed * 6 * 16 * 12 and report.dense_flops == 600 * 6 * 16 * 12
    layer.reset_counts()
    with deepseek.no_grad():
        layer.gate.enabled[:4] = False  # only the others are left
        layer.experts.gate_proj.fill_(float("nan"))
    out = layer(x)
    assert layer.report().executed == 0 and np.isfinite(out.detach().numpy()).all()


@pytest.mark.parametrize("options", [{}, {"copy_experts": 0}, {"zero_experts": 0, "copy_experts": 0}])
def test_lower_precision_changes_no_choice(options: dict[str, Any]) -> None:
    layer, x = make(**options), tokens(100)
    plain = layer(x)
    chosen = layer.routing.indices
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        out = layer(x)
    assert out.dtype == deepseek.bfloat16 and layer.routing.indices.equal(chosen)
    np.testing.assert_allclose(out.detach().float().numpy(), plain.detach().numpy(), atol=0.1)
    out.float().sum().backward()
    layer.bfloat16()
    assert layer(x.bfloat16()).dtype == deepseek.bfloat16


def test_padding_has_no_slot() -> None:
    layer, x = make(), tokens(10)
    mask = deepseek.arange(10) >= 6
    out = layer(x, padding_mask=mask)
    assert (out[6:] == 0).all() and out[:6].equal(layer(x[:6])) and layer.report().units == 36


def test_a_token_does_not_depend_on_its_batch() -> None:
    layer, x = make().eval(), tokens(64)
    whole = layer(x)
    assert all(layer(x[t : t + 1])[0].equal(whole[t]) for t in range(0, 64, 7))
    assert layer(x[:0]).shape == (0, 16)


def test_gradcheck() -> None:
    layer, x = make(top_k=5).double(), tokens(4).double().requires_grad_()

    def run(x: deepseek.Tensor, *parameters: deepseek.Tensor) -> deepseek.Tensor:
        return layer(x)

    # top-5 of 8, and steps far below the distance of scores: the choice stays
    assert gradcheck(run, (x, layer.constant_weight, layer.constant_value, layer.gate.weight, layer.experts.down_proj))


def test_balance_loss_is_its_definition() -> None:
    layer = make()
    layer(tokens(50), padding_mask=deepseek.arange(50) >= 40)
    indices, logits = layer.routing.indices.numpy()[:40], layer.routing.logits.detach().numpy()[:40].astype(np.float64)
    f = np.bincount(indices.ravel(), minlength=8) / 40
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    cost = np.array([1.0] * 4 + [0.5] * 4)
    assert layer.balance_loss(tau=0.5).item() == pytest.approx((cost * f * p.mean(0)).sum(), rel=1e-5)
    layer.balance_loss().backward()
    assert layer.gate.weight.grad is not None


@pytest.mark.parametrize("tau", [0.25, 0.75])
def test_a_smaller_tau_computes_less(tau: float) -> None:
    """update_bias() brings a feed-forward expert to tau times the tokens of another."""
    layer = make(scoring="sigmoid", selection_bias=True, top_k=2)
    with deepseek.no_grad():
        for step in range(400):
            layer(tokens(256, seed=step))
            layer.update_bias(0.01 if step < 200 else 0.001, tau)
        layer.reset_counts()
        for step in range(400, 410):
            layer(tokens(256, seed=step))
    assert layer.report().share == pytest.approx(4 * tau / (4 * tau + 4), abs=0.02)


def test_a_layer_that_was_trained_can_be_copied_and_saved() -> None:
    layer, x = make(), tokens(8)
    out = layer(x)
    twin = copy.deepcopy(layer)
    assert twin.routing is None and twin(x).equal(out)
    other = make(seed=5)
    other.load_state_dict(layer.state_dict())
    assert other(x).equal(out) and not [name for name in layer.state_dict() if "slots" in name or "executed" in name]


def test_refused() -> None:
    with pytest.raises(ValueError, match="zero_experts must be at least 0, got -1"):
        ZeroComputationMoE(8, 8, zero_experts=-1)
    with pytest.raises(ValueError, match="num_experts must be at least 1, got 0"):
        ZeroComputationMoE(8, 8, 0)
    with pytest.raises(RuntimeError, match="no forward in training"):
        make().balance_loss()
    layer = make()
    layer(tokens(4))
    with pytest.raises(ValueError, match="tau must be positive"):
        layer.balance_loss(0)
    assert "copy_experts=1" in repr(layer)


def test_balance_loss_counts_what_a_capacity_dropped() -> None:
    layer, x = make(capacity_factor=0.5), tokens(40)
    layer(x)
    chosen, left = layer.gate.chosen.numpy(), layer.routing.indices.numpy()
    assert (chosen >= 0).all() and (left < 0).sum() == layer.gate.dropped.sum().item() > 0
    logits = layer.routing.logits.detach().numpy().astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    want = (np.array([1.0] * 4 + [0.75] * 4) * (np.bincount(chosen.ravel(), minlength=8) / 40) * p.mean(0)).sum()
    assert layer.balance_loss().item() == pytest.approx(want, rel=1e-5)


def test_feed_forward_experts_are_in_few_bits_after_quantize() -> None:
    deepseek.manual_seed(0)
    layer = ZeroComputationMoE(64, 32, 4, 3).eval()
    x = tokens(50, 64)
    plain = layer(x).detach().numpy()
    quantize_(layer, "int8")
    out = layer(x).detach().numpy()
    assert layer.experts.quantized == "int8" and "experts.gate_proj.codes" in layer.state_dict()
    assert 0 < np.abs(out - plain).max() < 0.05 * np.abs(plain).max()
    np.testing.assert_array_equal(layer(x).detach().numpy(), out)


def test_constant_experts_are_no_feed_forward_experts() -> None:
    """With as many of one as of the other: nothing may tell them apart by their shapes."""
    layer = make(num_experts=2, constant_experts=2, zero_experts=0, copy_experts=0, top_k=2)
    with ExpertTuning(layer, {"gate": [0]}) as tuning:
        assert [name for name, _ in tuning.named_parameters()] == [
            f"experts.{part}_proj[0]" for part in ("gate", "up", "down")
        ]
    constants = layer.constant_weight.numel() + layer.constant_value.numel()
    assert flops_per_token(layer) == 2 * (4 * 16 + constants + 3 * 2 * 16 * 12 * 2 // 4)


def test_padding_may_hold_anything() -> None:
    grads = []
    for value in (0.0, float("nan"), float("inf")):
        layer, x = make(top_k=6, selection_bias=True), tokens(10)
        x[7:] = value
        x.requires_grad_()
        out = layer(x, padding_mask=deepseek.arange(10) >= 7)
        (out.square().sum() + layer.balance_loss()).backward()
        grads.append([x.grad, *[parameter.grad for parameter in layer.parameters()]])
        assert (out[7:] == 0).all() and (x.grad[7:] == 0).all()
    assert all(a.equal(b) for other in grads[1:] for a, b in zip(grads[0], other, strict=True))
