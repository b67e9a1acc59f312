"""Random plans, groupings, renumberings and chunked runs of the mixture's schedules, each against its slow twin."""

from __future__ import annotations

import itertools
from typing import Any

import deepseek
import numpy as np
from cases import cases
from deepseek import Tensor, nn
from deepseek.moe import (
    DeepseekMoE,
    MixtureOfDepths,
    cluster_experts,
    cross_group_traffic,
    permute_experts,
    rebalance_experts,
)

USUAL = 40


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


# --- plans of replicas, by looking for the extreme each time
def lightest_with_room(loads: np.ndarray, packs: int) -> list[list[int]]:
    room = len(loads) // packs
    if room == 1:
        return [[item] for item in range(packs)]
    found: list[list[int]] = [[] for _ in range(packs)]
    for item in np.argsort(-loads, kind="stable").tolist():
        open_ones = [pack for pack in range(packs) if len(found[pack]) < room]
        # Sums in the order in which items came, as the fast one adds them.
        found[min(open_ones, key=lambda p: (sum(loads[i] for i in found[p]), p))].append(item)
    return found


def plan(load: np.ndarray, replicas: int, groups: int, nodes: int, gpus: int) -> list[int]:
    if groups % nodes:
        groups = nodes = 1
    size, made = len(load) // groups, []
    for members in lightest_with_room(load.reshape(groups, size).sum(1), nodes):
        experts = [g * size + i for g in members for i in range(size)]
        count, copies = np.ones(len(experts)), list(range(len(experts)))
        while len(copies) < replicas // nodes:
            heaviest = int(np.argmax(load[experts] / count))
            count[heaviest] += 1
            copies.append(heaviest)
        shares = np.array([load[experts[c]] / count[c] for c in copies])
        made += [experts[copies[i]] for pack in lightest_with_room(shares, gpus // nodes) for i in pack]
    return made


def test_random_plans_are_those_of_the_slow_twin() -> None:
    for number in cases(USUAL):
        rng = np.random.default_rng(number)
        gpus = int(rng.integers(1, 9))
        nodes = int(rng.choice(divisors(gpus)))
        groups = int(rng.integers(1, 7))
        experts = groups * int(rng.integers(1, 6))
        replicas = gpus * (-(-experts // gpus) + int(rng.integers(0, 4)))
        # Whole numbers, so that sums in another order are the same.
        load = rng.integers(0, 50, (2, experts)).astype(float)
        arguments = replicas, groups, nodes, gpus
        physical = rebalance_experts(load.tolist(), *arguments)[0].tolist()
        assert physical == [plan(row, *arguments) for row in load], (number, experts, arguments)


# --- groups: a permutation, and no single exchange improves it
def test_random_groupings_are_partitions_that_no_exchange_improves() -> None:
    for number in cases(USUAL):
        rng = np.random.default_rng(number)
        groups, size = int(rng.integers(1, 5)), int(rng.integers(1, 6))
        experts = groups * size
        affinity = rng.integers(0, 20, (experts, experts)).astype(float)
        affinity += affinity.T
        found = cluster_experts(deepseek.from_numpy(affinity), groups).numpy()
        assert sorted(found.ravel().tolist()) == list(range(experts)), number
        owner = np.empty(experts, dtype=int)
        owner[found] = np.arange(groups)[:, None]
        np.fill_diagonal(affinity, 0)

        def inside(of: np.ndarray, affinity: np.ndarray = affinity) -> float:
            return float(affinity[of[:, None] == of[None, :]].sum())

        best = inside(owner)
        assert best >= inside(np.arange(experts) // size), number
        for i in range(experts):
            for j in range(i):
                other = owner.copy()
                other[[i, j]] = owner[[j, i]]
                assert inside(other) <= best + 1e-9, (number, i, j)
        traffic = cross_group_traffic(
            deepseek.from_numpy(rng.integers(0, experts, (20, 1))), deepseek.from_numpy(found)
        )
        assert traffic.groups_per_token == 1 and traffic.pairs_across == 0


# --- renumbering
def test_random_renumberings_change_no_output() -> None:
    for number in cases(USUAL):
        rng = np.random.default_rng(number)
        deepseek.manual_seed(number)
        groups, size = int(rng.integers(1, 4)), int(rng.integers(2, 5))
        used = int(rng.integers(1, groups + 1))
        layer = DeepseekMoE(
            8,
            6,
            groups * size,
            int(rng.integers(1, used * size + 1)),
            n_shared_experts=int(rng.integers(0, 2)),
            n_group=groups,
            topk_group=used,
            topk_method=str(rng.choice(["group_limited_greedy", "noaux_tc"])),
            scoring_func=str(rng.choice(["sigmoid", "sqrtsoftplus"])),
            norm_topk_prob=bool(rng.integers(2)),
            routed_scaling_factor=float(rng.uniform(0.5, 3)),
        )
        if layer.gate.e_score_correction_bias is not None:
            with deepseek.no_grad():
                layer.gate.e_score_correction_bias.normal_(0, 0.2)
        x = deepseek.randn(2, 9, 8)
        before = layer(x)
        order = [int(e) for g in rng.permutation(groups) for e in g * size + rng.permutation(size)]
        permute_experts(layer, order)
        # Renormalised weights divide by a sum over slots, whose order is that of the scores.
        assert layer(x).equal(before), (number, layer)


# --- Mixture-of-Depths in chunks
class Sums(nn.Module):
    """A block with memory: adds a causal sum over what it has been given, which a cache continues."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor, positions: Tensor | None = None, cache: Any = None) -> Tensor:
        step = self.mix(x) if positions is None else self.mix(x) * (1 + positions.unsqueeze(-1).to(x.dtype))
        before = deepseek.zeros(x.shape[0], 1, 8) if not cache else cache[0]
        sums = [before]
        for t in range(x.shape[1]):  # in order, so that chunks change no bit
            sums.append(sums[-1] + step[:, t : t + 1])
        if cache is not None:
            cache[:] = [sums[-1]]
        return x + deepseek.cat(sums[1:], 1)


def test_random_chunks_of_mixture_of_depths_are_the_whole() -> None:
    for number in cases(USUAL):
        rng = np.random.default_rng(number)
        deepseek.manual_seed(number)
        length = int(rng.integers(1, 25))
        layer = MixtureOfDepths(Sums(), 8, predictor=str(rng.choice(["router", "mlp"]))).eval()
        x, positions = deepseek.randn(1, length, 8), deepseek.arange(length).view(1, -1)
        with deepseek.no_grad():
            whole = layer(x, positions=positions)
            cuts = sorted({0, length, *rng.integers(0, length + 1, 4).tolist()})
            cache: list[Tensor] = []
            parts = [layer(x[:, a:b], positions=positions[:, a:b], cache=cache) for a, b in itertools.pairwise(cuts)]
        assert deepseek.cat(parts, 1).equal(whole), number
