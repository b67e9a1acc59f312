"""Weights and optimizer states written before the mixture of experts came from :mod:`deepseek.moe`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deepseek import Tensor, cat

_LAYER = re.compile(r"(.*\bfeed_forward\.)router\.weight")  # a name that only those have
# Of a layer: name today, name then. Experts' matrices are saved in one tensor today, but are parameters of their own.
_SAME = {
    "gate.weight": "router.weight",
    "gate.e_score_correction_bias": "router.bias",
    "experts.down_proj": "down",
    "shared_experts.gate_proj.weight": "shared.gate.weight",
    "shared_experts.up_proj.weight": "shared.up.weight",
    "shared_experts.down_proj.weight": "shared.down.weight",
}
_PARAMETERS = {**_SAME, "experts.gate_proj": "gate", "experts.up_proj": "up"}
_BUFFER = "router.bias"

Named = list[tuple[str, Tensor]]


def renamed(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A model's state with the names of today; one that has them already comes back as it is."""
    layers = _layers(state)
    if not layers:
        return state
    made = dict(state)
    for layer in layers:
        for today, then in _SAME.items():
            if f"{layer}{then}" in made:
                made[f"{layer}{today}"] = made.pop(f"{layer}{then}")
        halves = [made.pop(f"{layer}{name}", None) for name in ("gate", "up")]
        if all(isinstance(half, Tensor) for half in halves):
            made[f"{layer}experts.gate_up_proj"] = cat(halves, dim=1)
    return made


def renamed_optimizer(
    optimizer: Mapping[str, Any],
    state: Mapping[str, Any],
    today: Named,
    groups: Callable[[Named], list[list[str]]],
) -> dict[str, Any]:
    """The state of an optimizer of ``today``'s parameters, of one that was written beside the model's ``state``.

    Args:
        optimizer: ``state_dict()`` of then, or of today, which comes back as it is.
        state: The model's; its order is that of the parameters.
        today: Names and parameters of the model.
        groups: Sorts parameters into the names of each group of the optimizer.
    """
    layers = _layers(state)
    if not layers:
        return dict(optimizer)
    then = {f"{layer}{new}": f"{layer}{old}" for layer in layers for new, old in _PARAMETERS.items()}
    old_groups = groups([(name, value) for name, value in state.items() if not name.endswith(_BUFFER)])
    number = {
        name: place
        for group, names in zip(optimizer["param_groups"], old_groups, strict=True)
        for name, place in zip(names, group["params"], strict=True)
    }
    moments: dict[int, Any] = {}
    param_groups, count = [], 0
    for group, names in zip(optimizer["param_groups"], groups(today), strict=True):
        for place, name in enumerate(names, count):
            old = number[then.get(name, name)]
            if old in optimizer["state"]:
                moments[place] = optimizer["state"][old]
        param_groups.append({**group, "params": list(range(count, count + len(names)))})
        count += len(names)
    return {**optimizer, "state": moments, "param_groups": param_groups}


def _layers(names: Iterable[Any]) -> list[str]:
    """What the names of such layers begin with."""
    return [match.group(1) for name in names if isinstance(name, str) and (match := _LAYER.fullmatch(name))]
