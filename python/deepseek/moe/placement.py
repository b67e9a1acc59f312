"""Where the experts of a model that is spread over devices live, and which of them exist more than once.

The algorithm is the expert-parallel load balancer that DeepSeek describes for DeepSeek-V3 (DeepSeek-AI, 2024, section
3.4, "redundant experts") and documents in its EPLB repository: the heaviest experts get replicas, and replicas are
packed onto devices so that each carries about the same load.
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

from deepseek import Tensor, int64, tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public


@public
def rebalance_experts(
    weight: Tensor | Sequence[Sequence[float]], num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Plan which experts are replicated and on which device each replica lives. (DeepSeek-V3, section 3.4; EPLB)

    *Hierarchical* if ``num_groups % num_nodes == 0``: whole expert groups are packed onto nodes, so that group-limited
    routing sends a token to few nodes; experts are replicated within their node; the node's replicas are packed onto
    its devices. *Global* otherwise: groups and nodes are ignored.

    Packing takes the items by falling load and puts each on the lightest pack that has room; replication gives the next
    replica to the expert with the largest load per replica, which minimises the largest load per replica. Equal loads
    are decided by the lower number, so the plan is a function of its arguments.

    Args:
        weight: ``[layers, experts]``, the load of each expert (tokens, or a moving average of them); finite, >= 0.
        num_replicas: physical experts of a layer, a multiple of ``num_gpus`` and at least ``experts``.
        num_groups: expert groups of group-limited routing, equal consecutive ranges of experts; 1 if there are none.
        num_nodes: machines; must divide ``num_gpus`` if the plan is hierarchical.
        num_gpus: devices in all. Device ``d`` holds the replicas ``d * n`` to ``(d + 1) * n - 1``,
            ``n = num_replicas / num_gpus``; node ``m`` the devices from ``m * num_gpus / num_nodes`` on.

    Returns:
        ``physical_to_logical_map`` int64 ``[layers, num_replicas]``: the expert that a replica is;
        ``logical_to_physical_map`` int64 ``[layers, experts, X]``: the replicas of an expert in the order in which they
        were made, filled up with -1, X being the largest number of replicas of one expert;
        ``expert_count`` int64 ``[layers, experts]``: how many replicas each expert has.

    Raises:
        ValueError: loads that are negative or not finite, or counts that do not divide as said above.
    """
    loads = _checked_loads(weight)
    experts = len(loads[0])
    hierarchical = num_groups > 0 and num_nodes > 0 and num_groups % num_nodes == 0
    _check_counts(experts, num_replicas, num_groups, num_nodes, num_gpus, hierarchical)
    if not hierarchical:
        num_groups = num_nodes = 1
    plans = [_plan_layer(row, num_replicas, num_groups, num_nodes, num_gpus) for row in loads]
    most = max(len(places) for plan in plans for places in _places(plan, experts))
    padded = [[places + [-1] * (most - len(places)) for places in _places(plan, experts)] for plan in plans]
    counts = [[len(places) for places in _places(plan, experts)] for plan in plans]
    physical = [[expert for expert, _ in plan] for plan in plans]
    return tensor(physical, dtype=int64), tensor(padded, dtype=int64), tensor(counts, dtype=int64)


Replica = tuple[int, int]  # (expert, how many replicas of it were made before)


def _plan_layer(load: list[float], num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int) -> list[Replica]:
    """The replicas of one layer in the order of the devices."""
    group_size = len(load) // num_groups
    group_loads = [sum(load[g * group_size : (g + 1) * group_size]) for g in range(num_groups)]
    plan: list[Replica] = []
    for groups in _pack(group_loads, num_nodes):
        experts = [g * group_size + i for g in groups for i in range(group_size)]
        replicas = _replicate([load[e] for e in experts], num_replicas // num_nodes)
        count = [0] * len(experts)
        for local, _ in replicas:
            count[local] += 1
        shares = [load[experts[local]] / count[local] for local, _ in replicas]
        for pack in _pack(shares, num_gpus // num_nodes):
            plan += [(experts[replicas[place][0]], replicas[place][1]) for place in pack]
    return plan


def _pack(loads: list[float], packs: int) -> list[list[int]]:
    """Items by falling load, each to the lightest pack with room; every pack gets equally many."""
    room = len(loads) // packs
    if room == 1:  # nothing to balance: keep the order
        return [[item] for item in range(packs)]
    packed: list[list[int]] = [[] for _ in range(packs)]
    lightest = [(0.0, pack) for pack in range(packs)]  # a heap: the load, then the lower number
    for item in sorted(range(len(loads)), key=lambda i: (-loads[i], i)):
        total, pack = heapq.heappop(lightest)
        packed[pack].append(item)
        if len(packed[pack]) < room:
            heapq.heappush(lightest, (total + loads[item], pack))
    return packed


def _replicate(load: list[float], replicas: int) -> list[Replica]:
    """One replica of each expert, then one more at a time of the expert with the largest load per replica."""
    made: list[Replica] = [(expert, 0) for expert in range(len(load))]
    heaviest = [(-share, expert, 1) for expert, share in enumerate(load)]
    heapq.heapify(heaviest)
    while len(made) < replicas:
        _, expert, count = heapq.heappop(heaviest)
        made.append((expert, count))
        heapq.heappush(heaviest, (-load[expert] / (count + 1), expert, count + 1))
    return made


def _places(plan: list[Replica], experts: int) -> list[list[int]]:
    """For each expert the places of its replicas, in the order in which they were made."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(experts)]
    for place, (expert, rank) in enumerate(plan):
        found[expert].append((rank, place))
    return [[place for _, place in sorted(replicas)] for replicas in found]


def _checked_loads(weight: Tensor | Sequence[Sequence[float]]) -> list[list[float]]:
    values: Any = weight.tolist() if hasattr(weight, "tolist") else weight
    rows = [list(row) if hasattr(row, "__iter__") else [] for row in values] if hasattr(values, "__iter__") else []
    if not rows or not all(row and len(row) == len(rows[0]) for row in rows):
        shape = list(weight.shape) if hasattr(weight, "shape") else weight
        raise ValueError(f"rebalance_experts: weight must be [layers, experts] with at least one of each, got {shape}")
    loads = []
    for layer, row in enumerate(rows):
        for expert, value in enumerate(row):
            if isinstance(value, list) or not math.isfinite(value) or value < 0:
                raise ValueError(
                    "rebalance_experts: weight must be [layers, experts] of finite loads >= 0, "
                    f"got {value} for expert {expert} of layer {layer}"
                )
        loads.append([float(value) for value in row])
    return loads


def _check_counts(
    experts: int, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int, hierarchical: bool
) -> None:
    given = (
        f"got {experts} experts, num_replicas={num_replicas}, num_groups={num_groups}, num_nodes={num_nodes}, "
        f"num_gpus={num_gpus}"
    )
    if min(num_groups, num_nodes, num_gpus) < 1:
        raise ValueError(f"rebalance_experts: num_groups, num_nodes and num_gpus must be at least 1; {given}")
    if num_replicas < experts:
        raise ValueError(f"rebalance_experts: every expert needs a replica, so num_replicas >= experts; {given}")
    if num_replicas % num_gpus:
        raise ValueError(f"rebalance_experts: num_replicas must be a multiple of num_gpus; {given}")
    if hierarchical and experts % num_groups:
        raise ValueError(f"rebalance_experts: the number of experts must be a multiple of num_groups; {given}")
    if hierarchical and num_gpus % num_nodes:
        raise ValueError(f"rebalance_experts: num_gpus must be a multiple of num_nodes; {given}")


guard(__name__)
