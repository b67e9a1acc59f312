"""Grouping experts that tokens choose together, so that a token's experts live in few places.

With expert parallelism a token is sent once to every group (device, node) that holds one of its experts. Which experts
are chosen together is not random, so grouping them by co-activation cuts that traffic; renumbering experts
(:func:`deepseek.moe.permute_experts`) changes no output. Related: expert placement by affinity in Occult (Luo et al.,
2025) and ExFlow (Yao et al., 2024); group-limited routing is DeepSeek-V2's (2405.04434, section 2.2.2).
"""

# mypy: no-implicit-reexport

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepseek import Tensor, from_numpy
from deepseek._binding.missing import guard
from deepseek._binding.public import public

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]


@public
def co_activation(indices: Tensor, num_experts: int) -> Tensor:
    """How many tokens chose both experts: float64 ``[num_experts, num_experts]``, the load on the diagonal.

    Args:
        indices: int64 ``[tokens, top_k]``, such as ``RoutingTrace(...)[name].indices``; negative ones are no choice.
        num_experts: experts of the layer.

    Raises:
        ValueError: another shape or dtype, or an index that is too large.
    """
    chosen = _checked(indices, num_experts, "co_activation")
    counts = np.zeros((num_experts, num_experts))
    for start in range(0, len(chosen), 4096):
        onehot = _onehot(chosen[start : start + 4096], num_experts)
        counts += onehot.T @ onehot
    return from_numpy(counts)


@public
def cluster_experts(affinity: Tensor, num_groups: int, method: str = "graph", iterations: int = 100) -> Tensor:
    """Cut experts into groups of equal size: int64 ``[num_groups, experts / num_groups]``.

    ``.flatten()`` is the order that :func:`permute_experts` takes: group g becomes the g-th range of experts.

    * ``"graph"``: balanced partition of the graph whose edges are ``affinity`` ``[experts, experts]`` (co-activation;
      symmetric, the diagonal does not count). Groups are grown by affinity, then pairs of experts change places, the
      best exchange first, until none adds affinity inside groups; the present order is refined too, and the better
      result taken, so the grouping is never worse than the present one.
    * ``"kmeans"``: balanced k-means on the rows of ``affinity`` ``[experts, features]`` (a router's weight, or
      co-activation with rows of any length); starts with rows far apart, gives the closest pairs of row and centre
      precedence until a group is full, and ends when nothing changes.

    Both are deterministic; ties go to the lower number. Groups are in the order of their first expert, experts in a
    group in their own.

    Args:
        affinity: as the method says; finite.
        num_groups: must divide the number of experts.
        method: ``"graph"`` or ``"kmeans"``.
        iterations: bound for k-means; an exchange of the graph method always ends.

    Raises:
        ValueError: another shape or method, values that are not finite, or a count that does not divide.
    """
    values = np.asarray(affinity.detach().numpy(), dtype=np.float64)
    experts = len(values) if values.ndim == 2 else 0
    if values.ndim != 2 or not experts or not np.isfinite(values).all():
        raise ValueError(
            f"cluster_experts: affinity must be [experts, features] and finite, got {list(affinity.shape)}"
        )
    if num_groups < 1 or experts % num_groups:
        raise ValueError(f"cluster_experts: num_groups must divide the {experts} experts, got {num_groups}")
    if method == "graph":
        if values.shape != (experts, experts) or not np.allclose(values, values.T):
            raise ValueError(
                "cluster_experts: method 'graph' needs a symmetric [experts, experts] affinity such as co_activation() "
                f"gives, got {list(affinity.shape)}; rows of features need method='kmeans'"
            )
        group = _partition(values, num_groups)
    elif method == "kmeans":
        group = _balanced_kmeans(values, num_groups, iterations)
    else:
        raise ValueError(f"cluster_experts: method must be 'graph' or 'kmeans', got {method!r}")
    groups = sorted(np.flatnonzero(group == g).tolist() for g in range(num_groups))
    return from_numpy(np.array(groups, dtype=np.int64))


@public
@dataclass(frozen=True)
class GroupTraffic:
    """What a routing sends between groups.

    Attributes:
        groups_per_token: mean number of groups a token is sent to, between 1 and min(top_k, groups).
        pairs_across: share of the pairs of experts of a token that live in two groups; 0 if there are no pairs.
        tokens: tokens with at least one expert.
    """

    groups_per_token: float
    pairs_across: float
    tokens: int


@public
def cross_group_traffic(indices: Tensor, groups: Tensor | int, num_experts: int | None = None) -> GroupTraffic:
    """Measure how far a routing spreads tokens over groups.

    Args:
        indices: int64 ``[tokens, top_k]``; negative ones are no choice.
        groups: int64 ``[groups, experts / groups]`` as :func:`cluster_experts` gives, or a number of groups: equal
            consecutive ranges of experts, as group-limited routing has them.
        num_experts: needed if ``groups`` is a number.

    Raises:
        ValueError: shapes or counts that do not fit, or no token with an expert.
    """
    if isinstance(groups, int):
        if num_experts is None or groups < 1 or num_experts % groups:
            raise ValueError(
                f"cross_group_traffic: {groups} groups must divide num_experts, got num_experts={num_experts}"
            )
        owner = np.arange(num_experts) // (num_experts // groups)
        count = groups
    else:
        members = groups.numpy()
        count, num_experts = members.shape[0], members.size
        if members.ndim != 2 or sorted(members.reshape(-1).tolist()) != list(range(members.size)):
            raise ValueError("cross_group_traffic: groups must be [groups, size] and hold every expert once")
        owner = np.empty(num_experts, dtype=np.int64)
        owner[members] = np.arange(count)[:, None]
    chosen = _checked(indices, num_experts, "cross_group_traffic")
    inside = np.zeros((len(chosen), count))  # how many of a token's experts each group holds
    for slot in range(chosen.shape[1]):
        rows = np.flatnonzero(chosen[:, slot] >= 0)
        inside[rows, owner[chosen[rows, slot]]] += 1
    slots = inside.sum(1)
    tokens = int((slots > 0).sum())
    if not tokens:
        raise ValueError("cross_group_traffic: no token has an expert")
    pairs = float((slots * (slots - 1)).sum())
    together = float((inside * (inside - 1)).sum())
    return GroupTraffic(float((inside > 0).sum() / tokens), 1 - together / pairs if pairs else 0.0, tokens)


def _checked(indices: Tensor, num_experts: int, caller: str) -> Integers:
    chosen: Any = indices.numpy()
    if chosen.ndim != 2 or chosen.dtype != np.int64:
        raise ValueError(f"{caller}: indices must be int64 [tokens, top_k], got {indices.dtype} {list(indices.shape)}")
    if chosen.size and chosen.max() >= num_experts:
        raise ValueError(f"{caller}: index {chosen.max()} is out of range for {num_experts} experts")
    return chosen


def _onehot(chosen: Integers, num_experts: int) -> Floats:
    onehot = np.zeros((len(chosen), num_experts + 1))  # the last column takes what is no choice
    np.put_along_axis(onehot, np.where(chosen < 0, num_experts, chosen), 1.0, axis=1)
    return onehot[:, :num_experts]


# --- balanced graph partition ---------------------------------------------------------------------------------------
def _partition(affinity: Floats, num_groups: int) -> Integers:
    edges = affinity - np.diag(np.diag(affinity))
    size = len(edges) // num_groups
    starts = np.arange(len(edges)) // size, _grown(edges, num_groups)
    refined = [_exchanged(edges, start, num_groups) for start in starts]
    inside = [float(edges[group[:, None] == group[None, :]].sum()) for group in refined]
    return refined[1] if inside[1] > inside[0] else refined[0]


def _grown(edges: Floats, num_groups: int) -> Integers:
    """Each group starts with the free expert that has most affinity to free ones, and takes the nearest to it."""
    group = np.full(len(edges), -1)
    for g in range(num_groups):
        free = group < 0
        pull = np.where(free, edges[:, free].sum(1), -np.inf)
        for _ in range(len(edges) // num_groups):
            group[np.argmax(pull)] = g
            pull = np.where(group < 0, edges[:, group == g].sum(1), -np.inf)
    return group


def _exchanged(edges: Floats, group: Integers, num_groups: int) -> Integers:
    """Kernighan-Lin exchanges of two experts, the best one first, until none gains."""
    group = group.copy()
    least = 1e-9 * max(float(np.abs(edges).max(initial=0.0)), 1e-300)
    rows = np.arange(len(edges))
    to_group = edges @ (group[:, None] == np.arange(num_groups)[None, :])  # [experts, groups]
    while True:
        to_other = to_group[:, group]  # [i, j]: affinity of i to the group of j
        own = to_group[rows, group]
        gain = to_other + to_other.T - own[:, None] - own[None, :] - 2 * edges
        gain[group[:, None] == group[None, :]] = -np.inf
        i, j = divmod(int(np.argmax(gain)), len(edges))
        if not gain[i, j] > least:
            return group
        for one, other in ((i, group[j]), (j, group[i])):
            to_group[:, other] += edges[:, one]
            to_group[:, group[one]] -= edges[:, one]
        group[i], group[j] = group[j], group[i]


# --- balanced k-means -----------------------------------------------------------------------------------------------
def _balanced_kmeans(rows: Floats, num_groups: int, iterations: int) -> Integers:
    centres = rows[_far_apart(rows, num_groups)]
    group = np.full(len(rows), -1)
    for _ in range(max(iterations, 1)):
        moved = _assigned(((rows[:, None, :] - centres[None, :, :]) ** 2).sum(-1))
        if (moved == group).all():
            break
        group = moved
        centres = np.stack([rows[group == g].mean(0) for g in range(num_groups)])
    return group


def _far_apart(rows: Floats, count: int) -> list[int]:
    """The longest row, then always the one farthest from those taken."""
    taken = [int(np.argmax((rows**2).sum(1)))]
    while len(taken) < count:
        distance = ((rows[:, None, :] - rows[None, taken, :]) ** 2).sum(-1).min(1)
        distance[taken] = -1
        taken.append(int(np.argmax(distance)))
    return taken


def _assigned(distance: Floats) -> Integers:
    """Rows to centres, equally many each: the closest pairs first, then exchanges while they bring rows closer."""
    experts, groups = distance.shape
    group, room = np.full(experts, -1), [experts // groups] * groups
    for place in np.argsort(distance, axis=None, kind="stable").tolist():
        row, g = divmod(place, groups)
        if group[row] < 0 and room[g]:
            group[row] = g
            room[g] -= 1
    rows = np.arange(experts)
    least = 1e-12 * max(float(distance.max(initial=0.0)), 1e-300)
    while True:
        cost = distance[:, group]  # [i, j]: of i in the group of j
        own = distance[rows, group]
        gain = own[:, None] + own[None, :] - cost - cost.T
        i, j = divmod(int(np.argmax(gain)), experts)
        if not gain[i, j] > least:
            return group
        group[i], group[j] = group[j], group[i]


guard(__name__)
