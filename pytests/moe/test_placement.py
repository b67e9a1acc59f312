"""rebalance_experts: the public example of EPLB, the invariants of a plan, and exhaustive search for small cases."""

from __future__ import annotations

import itertools
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.moe import rebalance_experts

WEIGHT = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]


def test_the_example_of_the_public_description() -> None:
    """The output printed in the README of deepseek-ai/EPLB."""
    physical, logical, count = rebalance_experts(deepseek.tensor(WEIGHT), 16, 4, 2, 8)
    assert physical.tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    assert logical.shape == (2, 12, 2) and logical.dtype == count.dtype == physical.dtype == deepseek.int64
    assert logical[0, 5].tolist() == [0, 2] and logical[0, 0].tolist() == [12, -1]
    assert count[0].tolist() == [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1]


CASES = [  # experts, replicas, groups, nodes, gpus
    (12, 16, 4, 2, 8),
    (12, 16, 4, 3, 8),  # 3 does not divide 4: global
    (64, 64, 8, 4, 16),
    (64, 72, 8, 1, 8),
    (256, 288, 8, 4, 32),
    (8, 24, 1, 1, 4),
    (6, 6, 1, 1, 6),
    (6, 7, 1, 1, 1),
    (1, 4, 1, 1, 4),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_every_plan_keeps_the_invariants(case: tuple[int, ...], seed: int) -> None:
    experts, replicas, groups, nodes, _ = case
    weight = np.random.default_rng(seed).gamma(0.5, 100.0, (3, experts))
    physical, logical, count = (t.numpy() for t in rebalance_experts(deepseek.from_numpy(weight), *case[1:]))
    assert physical.shape == (3, replicas) and logical.shape[:2] == count.shape == (3, experts)
    assert logical.shape[2] == count.max()
    for layer in range(3):
        assert (np.bincount(physical[layer], minlength=experts) == count[layer]).all()
        assert count[layer].min() >= 1 and count[layer].sum() == replicas
        for expert in range(experts):
            places = logical[layer, expert]
            assert (physical[layer, places[: count[layer, expert]]] == expert).all()
            assert (places[count[layer, expert] :] == -1).all()
            assert len(set(places[: count[layer, expert]])) == count[layer, expert]
        if groups % nodes == 0:  # a group lives on one node
            node = np.arange(replicas) // (replicas // nodes)
            for group in range(groups):
                members = np.isin(physical[layer] // (experts // groups), group)
                assert len(set(node[members])) == 1
    again = rebalance_experts(weight.tolist(), *case[1:])
    assert (again[0].numpy() == physical).all()


@pytest.mark.parametrize("seed", range(20))
def test_replicas_minimise_the_largest_load_of_a_replica(seed: int) -> None:
    rng = np.random.default_rng(seed)
    experts, replicas = int(rng.integers(2, 5)), int(rng.integers(5, 9))
    weight = rng.integers(0, 100, (1, experts))
    count = rebalance_experts(weight.tolist(), replicas, 1, 1, 1)[2].numpy()[0]
    best = min(
        (weight[0] / np.array(counts)).max()
        for counts in itertools.product(range(1, replicas + 1), repeat=experts)
        if sum(counts) == replicas
    )
    assert (weight[0] / count).max() == pytest.approx(best)


@pytest.mark.parametrize("seed", range(20))
def test_packing_is_near_the_best_of_all_packings(seed: int) -> None:
    """6 experts on 3 devices of 2: at most 1.2 times the best largest load, and the best in most cases."""
    weight = np.random.default_rng(seed).integers(1, 100, 6)
    physical = rebalance_experts([weight.tolist()], 6, 1, 1, 3)[0].numpy()[0]
    ours = weight[physical].reshape(3, 2).sum(1).max()
    best = min(weight[list(order)].reshape(3, 2).sum(1).max() for order in itertools.permutations(range(6)))
    # Two a device: the heaviest with the lightest is what the rule gives, and it is the best.
    assert ours == best


def test_replication_and_packing_balance_a_skewed_load() -> None:
    weight = 1.0 / np.arange(1, 65)  # Zipf
    plain = weight.reshape(8, 8).sum(1).max() / (weight.sum() / 8)
    physical, _, count = (t.numpy()[0] for t in rebalance_experts([weight.tolist()], 80, 1, 1, 8))
    balanced = (weight / count)[physical].reshape(8, 10).sum(1).max() / (weight.sum() / 8)
    assert plain > 4 and balanced < 1.02


def test_equal_loads_are_decided_by_number() -> None:
    physical, _, count = rebalance_experts([[1.0] * 6], 8, 1, 1, 4)
    assert count.tolist() == [[2, 2, 1, 1, 1, 1]]
    assert physical.tolist() == rebalance_experts([[1.0] * 6], 8, 1, 1, 4)[0].tolist()
    assert rebalance_experts([[0.0] * 6], 6, 2, 2, 6)[0].tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("weight", "arguments", "text"),
    [
        ([[1.0, 2.0]], (1, 1, 1, 1), "num_replicas >= experts"),
        ([[1.0, 2.0]], (3, 1, 1, 2), "multiple of num_gpus"),
        ([[1.0, 2.0, 3.0]], (4, 2, 2, 2), "multiple of num_groups"),
        ([[1.0, 2.0]], (3, 2, 2, 3), "multiple of num_nodes"),
        ([[1.0, 2.0]], (2, 0, 1, 1), "at least 1"),
        ([[1.0, -2.0]], (2, 1, 1, 1), "got -2.0 for expert 1 of layer 0"),
        ([[1.0, float("nan")]], (2, 1, 1, 1), "finite loads"),
        ([1.0, 2.0], (2, 1, 1, 1), "must be [layers, experts]"),
        ([], (2, 1, 1, 1), "must be [layers, experts]"),
        ([[[1.0]]], (2, 1, 1, 1), "must be [layers, experts]"),
    ],
)
def test_bad_input(weight: object, arguments: tuple[int, ...], text: str) -> None:
    value = deepseek.tensor(weight) if weight == [1.0, 2.0] else weight
    with pytest.raises(ValueError) as error:
        rebalance_experts(value, *arguments)  # type: ignore[arg-type]
    assert text in str(error.value) and "rebalance_experts" in str(error.value)


@pytest.mark.parametrize("weight", [[1, 2], 3, [], [[]], [[1], [1, 2]], [[1, 2], 3], None])
def test_loads_of_another_shape(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"rebalance_experts: weight must be \[layers, experts\]"):
        rebalance_experts(weight, 2, 1, 1, 1)
