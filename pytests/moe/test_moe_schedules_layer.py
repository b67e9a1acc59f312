"""Schedules, placement and tuning on DeepseekMoE: shared experts, padding, both state dict layouts, low-bit experts."""

from __future__ import annotations

from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.moe import (
    DeepseekMoE,
    DynamicRouter,
    ExpertTuning,
    ExpertUtilisation,
    ProgressiveExperts,
    RoutingTrace,
    cluster_experts,
    co_activation,
    cross_group_traffic,
    expert_scores,
    flops_per_token,
    permute_experts,
    select_experts,
    update_selection_bias,
)
from deepseek.quantization import quantize_
from moe_layers import tokens

V3 = {
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "n_shared_experts": 1,
}


def make(seed: int = 0, **options: Any) -> nn.Module:
    deepseek.manual_seed(seed)
    return nn.Sequential(*(DeepseekMoE(16, 12, 8, 2, **(V3 | options)) for _ in range(2)))


@pytest.mark.parametrize("layout", ["per_expert", "fused"])
def test_a_permutation_keeps_outputs_and_saves_in_either_layout(layout: str) -> None:
    model, x = make(layout=layout), tokens(60).view(3, 20, 16)
    with deepseek.no_grad():
        for layer in model:
            layer.gate.e_score_correction_bias.normal_(0, 0.1)
    before = model(x)
    order = [6, 7, 1, 0, 2, 3, 5, 4]  # groups of two change places as wholes
    for layer in model:
        permute_experts(layer, order)
    assert model(x).equal(before)
    other = make(seed=9, layout=layout)
    other.load_state_dict(model.state_dict())
    assert other(x).equal(before)
    with pytest.raises(ValueError, match="regroup=True"):
        permute_experts(model[0], [0, 2, 1, 3, 4, 5, 6, 7])


def test_quantized_experts_are_refused_by_name() -> None:
    model = make()
    deepseek.quantization.quantize_(model, "int8")
    with pytest.raises(NotImplementedError, match="permute before quantize_"):
        permute_experts(model[0], list(range(8)))
    with pytest.raises(ValueError, match="no stacked expert parameters"):
        ExpertTuning(model, {"0.gate": [1]})


def test_clusters_serve_group_limited_routing() -> None:
    """A trace without groups, clusters as groups, then routing limited to them: traffic is bounded, less is lost."""
    layer = make(n_group=1, topk_group=1)[0]
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4, 16))[rng.permutation(np.repeat(np.arange(4), 2))] + 0.3 * rng.standard_normal(
        (8, 16)
    )
    with deepseek.no_grad():
        layer.gate.weight.copy_(deepseek.from_numpy(rows.astype(np.float32)))
    x = tokens(1000)
    with RoutingTrace(layer) as trace:
        free = layer(x)
    indices = trace["gate"].indices
    kept = []
    for order in (list(range(8)), cluster_experts(co_activation(indices, 8), 4).flatten().tolist()):
        permute_experts(layer, order)
        layer.gate.n_group, layer.gate.topk_group = 4, 1
        with RoutingTrace(layer) as limited:
            kept.append(float((layer(x) - free).square().mean().item()))
        assert cross_group_traffic(limited["gate"].indices, 4, 8).groups_per_token == 1
        layer.gate.n_group = layer.gate.topk_group = 1
        assert layer(x).equal(free)
    assert kept[1] < 0.5 * kept[0]


def test_tuning_leaves_router_shared_and_other_experts_alone() -> None:
    model = make()
    before = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    with RoutingTrace(model) as trace, deepseek.no_grad():
        model(tokens(100))
    chosen = select_experts(expert_scores(trace, "token"), p=0.3)
    with ExpertTuning(model, chosen) as tuning:
        optimizer = deepseek.optim.AdamW(tuning.parameters(), lr=1e-2, weight_decay=0.1)
        for step in range(2):
            optimizer.zero_grad()
            (model(tokens(100, seed=step)) ** 2).mean().backward()
            optimizer.step()
        names = [name for name, _ in tuning.named_parameters()]
    assert f"0.experts.gate_proj[{chosen['0.gate'][0]}]" in names
    for name, value in model.named_parameters():
        same = (value.detach().numpy() == before[name]).reshape(value.shape[0], -1).all(1)
        if ".experts." in name:
            assert np.flatnonzero(~same).tolist() == chosen[f"{name[0]}.gate"], name
        else:
            assert same.all(), name


def test_a_schedule_a_bias_and_utilisation_together() -> None:
    model = make(n_group=1, topk_group=1)
    with pytest.warns(UserWarning, match="top_k=1"):  # here it is the bias alone that teaches
        schedule = ProgressiveExperts(model, {0: (1, 2), 40: (2, 8)})
    utilisation = ExpertUtilisation(model)
    for step in range(160):
        with deepseek.no_grad():
            model(tokens(128, seed=step) + tokens(1, seed=7))
        update_selection_bias(model, 0.02 if step < 120 else 0.002)
        metrics = utilisation.update(step)
        assert metrics["moe/0.gate/unused"] == 0 or step == 40
        schedule.step()
    assert sum(load > 0 for load in utilisation.history[39].layers["0.gate"].load) == 2
    assert metrics["moe/max_over_mean"] < 1.35


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "sqrtsoftplus"])
@pytest.mark.parametrize("by_sequence", [True, False])
def test_balance_losses_pull_on_no_disabled_expert(scoring: str, by_sequence: bool) -> None:
    layer = make(n_group=1, topk_group=1, scoring_func=scoring, aux_loss_alpha=0.1, seq_aux=by_sequence)[0]
    ProgressiveExperts(layer, {0: (2, 3)})
    layer(tokens(40).view(2, 20, 16))
    layer.aux_loss.backward()
    gradient = layer.gate.weight.grad.numpy()
    assert (gradient[3:] == 0).all() and np.abs(gradient[:3]).sum(1).min() > 0


def test_padding_is_in_neither_trace_scores_nor_utilisation() -> None:
    layer, x = make()[0], tokens(12).view(2, 6, 16)
    utilisation = ExpertUtilisation(layer)
    mask = deepseek.arange(6).view(1, 6) >= deepseek.tensor([[4], [6]])
    with RoutingTrace(layer) as trace:
        layer(x, padding_mask=mask)
    assert utilisation.metrics()["moe/slots"] == 2 * 10
    assert (trace["gate"].indices >= 0).sum().item() == 20
    assert expert_scores(trace, "token")["gate"].sum().item() == pytest.approx(1)
    assert cross_group_traffic(trace["gate"].indices, 4, 8).tokens == 10


def test_flops_of_the_layer() -> None:
    assert flops_per_token(make()) == 2 * 2 * (8 * 16 + 2 * 3 * 16 * 12 + 3 * 16 * 12)


def test_flops_of_stacks_that_are_not_known_are_refused() -> None:
    quantized = quantize_(DeepseekMoE(64, 32, 4, 2), "int8")
    bare = nn.Sequential(DynamicRouter(4, 2, 8), nn.Linear(8, 8))
    for model in (quantized, bare):
        with pytest.raises(ValueError, match="no stacked expert parameters.*expert_weights"):
            flops_per_token(model)
