"""Co-activation, balanced clustering, and renumbering experts: traffic falls, outputs stay (T8)."""

from __future__ import annotations

import itertools
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.moe import (
    RoutingTrace,
    cluster_experts,
    co_activation,
    cross_group_traffic,
    permute_experts,
)
from moe_layers import Layer, stack, tokens


def choices(count: int, experts: int, groups: int, seed: int, noise: float = 0.1) -> deepseek.Tensor:
    """Two experts a token, mostly out of one hidden group; the groups' numbers are shuffled."""
    rng = np.random.default_rng(seed)
    hidden = rng.permutation(experts).reshape(groups, -1)
    made = []
    for _ in range(count):
        pool = np.arange(experts) if rng.random() < noise else hidden[rng.integers(groups)]
        made.append(rng.choice(pool, 2, replace=False))
    return deepseek.tensor(np.array(made))


def test_co_activation_counts_tokens() -> None:
    indices = deepseek.tensor([[0, 1], [1, 0], [2, -1], [-1, -1], [1, 3]])
    expected = np.zeros((4, 4))
    for row in indices.tolist():
        for i, j in itertools.product([e for e in row if e >= 0], repeat=2):
            expected[i, j] += 1
    np.testing.assert_array_equal(co_activation(indices, 4).numpy(), expected)
    many = choices(10000, 8, 2, 0)
    assert co_activation(many, 8).numpy().diagonal().sum() == 20000


@pytest.mark.parametrize("method", ["graph", "kmeans"])
@pytest.mark.parametrize("seed", range(4))
def test_hidden_groups_are_found(method: str, seed: int) -> None:
    indices = choices(3000, 32, 4, seed)
    affinity = co_activation(indices, 32)
    groups = cluster_experts(affinity, 4, method)
    hidden = np.random.default_rng(seed).permutation(32).reshape(4, -1)
    assert groups.dtype == deepseek.int64 and groups.shape == (4, 8)
    assert sorted(map(tuple, groups.tolist())) == sorted(tuple(sorted(row)) for row in hidden.tolist())
    before, after = cross_group_traffic(indices, 4, 32), cross_group_traffic(indices, groups)
    assert after.pairs_across < 0.12 < 0.6 < before.pairs_across
    assert after.groups_per_token < 1.12 < 1.6 < before.groups_per_token
    assert cluster_experts(affinity, 4, method).equal(groups)


@pytest.mark.parametrize("seed", range(10))
def test_graph_groups_are_never_worse_than_the_present_ones_and_near_the_best(seed: int) -> None:
    indices = choices(300, 8, 2, seed, noise=0.6)
    affinity = co_activation(indices, 8)
    found = cross_group_traffic(indices, cluster_experts(affinity, 2)).pairs_across
    assert found <= cross_group_traffic(indices, 2, 8).pairs_across
    every = ([*half] for half in itertools.combinations(range(8), 4))
    cuts = ([half, [e for e in range(8) if e not in half]] for half in every)
    best = min(cross_group_traffic(indices, deepseek.tensor(cut)).pairs_across for cut in cuts)
    assert found <= best * 1.05


def test_kmeans_takes_any_features_and_stays_balanced() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.standard_normal((9, 5)) * 0.1, rng.standard_normal((3, 5)) * 0.1 + 9])
    groups = cluster_experts(deepseek.from_numpy(rows), 3, "kmeans").tolist()
    assert [9, 10, 11] not in groups or all(len(group) == 4 for group in groups)
    assert sorted(itertools.chain(*groups)) == list(range(12)) and {len(group) for group in groups} == {4}
    assert any({9, 10, 11} <= set(group) for group in groups)


def test_traffic_is_its_definition() -> None:
    indices = deepseek.tensor([[0, 1, 2], [0, 2, 3], [3, -1, -1], [-1, -1, -1]])
    found = cross_group_traffic(indices, 2, 4)
    assert found.tokens == 3 and found.groups_per_token == pytest.approx((2 + 2 + 1) / 3)
    assert found.pairs_across == pytest.approx((2 + 2) / (3 + 3))
    assert cross_group_traffic(indices, 1, 4).pairs_across == 0
    assert cross_group_traffic(indices[2:3], 2, 4).pairs_across == 0


OPTIONS: list[dict[str, Any]] = [
    {},
    {"scoring": "sigmoid", "selection_bias": True, "norm_topk_prob": True, "routed_scaling_factor": 2.5},
    {"n_group": 4, "topk_group": 2},
    {"n_group": 2, "topk_group": 1, "group_score": "top2", "scoring": "sigmoid", "selection_bias": True},
    {"hash_vocab_size": 11, "scoring": "sqrtsoftplus"},
]


def same(layer: Layer, one: deepseek.Tensor, other: deepseek.Tensor) -> None:
    """To the bit, where no sum runs over the experts: slots are added up in the order of their scores."""
    if layer.gate.scoring == "softmax":
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-6)
    else:
        assert one.equal(other)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_permutation_leaves_outputs_equal(options: dict[str, Any]) -> None:
    layer = stack(**options).layers[0]
    rng = np.random.default_rng(0)
    with deepseek.no_grad():
        if layer.gate.e_score_correction_bias is not None:
            layer.gate.e_score_correction_bias.copy_(deepseek.from_numpy(rng.normal(0, 0.1, 8).astype(np.float32)))
        layer.gate.enabled[1] = False
        layer.gate.top_k = 2
    more = {"token_ids": deepseek.arange(40) % 11} if "hash_vocab_size" in options else {}
    groups = layer.gate.n_group
    order = [int(e) for g in rng.permutation(groups) for e in g * (8 // groups) + rng.permutation(8 // groups)]
    x = tokens(40)
    before, (_, indices, _) = layer(x, **more), layer.gate(x, **more)
    load = layer.gate.load.tolist()
    permute_experts(layer, order)
    assert layer.gate.load.tolist() == [load[e] for e in order]
    assert layer.gate.enabled.tolist() == [e != 1 for e in order]
    after, (_, moved, _) = layer(x, **more), layer.gate(x, **more)
    same(layer, before, after)
    chosen = np.where(moved.numpy() < 0, -1, np.array(order)[moved.numpy()])
    assert (chosen == indices.numpy()).all()
    permute_experts(layer, np.argsort(order).tolist())
    same(layer, layer(x, **more), before)
    assert layer.gate.load.tolist() != load  # counted on


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    """Gradients and the optimizer's state move along: training permuted experts is permuting trained ones."""
    order = [3, 1, 0, 2, 7, 6, 5, 4]
    results = []
    for permute_after in (2, 5):
        layer = stack(selection_bias=True).layers[0]
        optimizer = deepseek.optim.AdamW(layer.parameters(), lr=1e-2)
        for step in range(5):
            if step == permute_after:
                permute_experts(layer, order, optimizer=optimizer)
            optimizer.zero_grad()
            (layer(tokens(32, seed=step)) ** 2).mean().backward()
            optimizer.step()
            layer.gate.update_bias(0.01)
        if permute_after == 5:
            permute_experts(layer, order, optimizer=optimizer)
        results.append(layer.state_dict())
    for name, value in results[0].items():
        np.testing.assert_allclose(value.numpy(), results[1][name].numpy(), rtol=1e-6, atol=1e-7, err_msg=name)


def test_clustering_a_trained_like_router_cuts_traffic_and_changes_no_output() -> None:
    """Router rows in correlated sets: a trace, clusters, a permutation; then group-limited routing over the groups."""
    deepseek.manual_seed(0)
    layer = Layer(16, 8, 16, 2)
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((4, 16))[rng.permutation(np.repeat(np.arange(4), 4))] + 0.4 * rng.standard_normal(
        (16, 16)
    )
    with deepseek.no_grad():
        layer.gate.weight.copy_(deepseek.from_numpy(rows.astype(np.float32)))
    x = tokens(2000)
    with RoutingTrace(layer) as trace:
        before = layer(x)
    indices = trace["gate"].indices
    groups = cluster_experts(co_activation(indices, 16), 4)
    permute_experts(layer, groups.flatten())
    with RoutingTrace(layer) as again:
        same(layer, layer(x), before)
    old, new = cross_group_traffic(indices, 4, 16), cross_group_traffic(again["gate"].indices, 4, 16)
    assert new.groups_per_token == cross_group_traffic(indices, groups).groups_per_token
    assert new.pairs_across < 0.6 * old.pairs_across
    # Limiting tokens to one of the groups now changes few choices; before it changed most.
    layer.gate.n_group, layer.gate.topk_group = 4, 1
    with RoutingTrace(layer) as limited:
        layer(x)
    assert cross_group_traffic(limited["gate"].indices, 4, 16).pairs_across == 0
    kept = (np.sort(limited["gate"].indices.numpy()) == np.sort(again["gate"].indices.numpy())).all(1).mean()
    assert kept > 1 - 1.2 * new.pairs_across


def test_an_order_that_mixes_groups_is_refused() -> None:
    layer = stack(n_group=4, topk_group=2).layers[0]
    order = [2, 1, 0, 3, 4, 5, 6, 7]
    with pytest.raises(ValueError, match="regroup=True"):
        permute_experts(layer, order)
    permute_experts(layer, order, regroup=True)


def test_bad_input() -> None:
    layer = stack().layers[0]
    with pytest.raises(ValueError, match="each of the 8 experts once"):
        permute_experts(layer, [0, 0, 1, 2, 3, 4, 5, 6])
    with pytest.raises(ValueError, match="one layer at a time"):
        permute_experts(stack(), list(range(8)))
    with pytest.raises(ValueError, match="without a layer"):
        permute_experts(layer.gate, list(range(8)))
    square = deepseek.eye(6)
    for arguments, text in [
        ((square, 4), "must divide the 6 experts"),
        ((square, 0), "must divide the 6 experts"),
        ((square, 2, "tree"), "'graph' or 'kmeans'"),
        ((deepseek.ones(6, 2), 2), "symmetric"),
        ((deepseek.arange(36.0).view(6, 6), 2), "symmetric"),
        ((deepseek.full((6, 6), float("nan")), 2), "finite"),
        ((deepseek.ones(6), 2), "must be [experts, features]"),
    ]:
        with pytest.raises(ValueError) as error:
            cluster_experts(*arguments)  # type: ignore[arg-type]
        assert text in str(error.value)
    with pytest.raises(ValueError, match="index 9 is out of range for 8"):
        co_activation(deepseek.tensor([[9, 1]]), 8)
    with pytest.raises(ValueError, match="int64"):
        co_activation(deepseek.tensor([[1.0]]), 8)
    with pytest.raises(ValueError, match="no token has an expert"):
        cross_group_traffic(deepseek.tensor([[-1]]), 2, 4)
    with pytest.raises(ValueError, match="3 groups must divide"):
        cross_group_traffic(deepseek.tensor([[1]]), 3, 4)
    with pytest.raises(ValueError, match="every expert once"):
        cross_group_traffic(deepseek.tensor([[1]]), deepseek.tensor([[0, 1], [1, 2]]))
