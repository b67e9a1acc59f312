"""Weights and optimizer states written before the mixture of experts came from :mod:`deepseek.moe`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from deepseek import Tensor, cat

_ROUTER = re.compile(r"(.*\bfeed_forward\.)router\.weight")
_RENAMED = {
    "experts.down_proj": ("down",),
    "experts.gate_up_proj": ("gate", "up"),  # one above the other
    "gate.weight": ("router.weight",),
    "gate.e_score_correction_bias": ("router.bias",),
    "shared_experts.gate_proj.weight": ("shared.gate.weight",),
    "shared_experts.up_proj.weight": ("shared.up.weight",),
    "shared_experts.down_proj.weight": ("shared.down.weight",),
}
_BUFFERS = ("router.bias",)


def is_former(names: Iterable[str]) -> bool:
    """Whether tensors with these names were written then."""
    return any(_ROUTER.fullmatch(name) for name in names)


def parts(state: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """For each tensor's name of today, the names of then whose tensors it is made of."""
    layers = [match.group(1) for name in state if (match := _ROUTER.fullmatch(name))]
    renamed = {
        f"{layer}{new}": names
        for layer in layers
        for new, old in _RENAMED.items()
        if all(name in state for name in (names := tuple(f"{layer}{name}" for name in old)))
    }
    used = {name for names in renamed.values() for name in names}
    return {**{name: (name,) for name in state if name not in used}, **renamed}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's state with the names of today, of one with names of then."""
    return {name: _joined([state[old] for old in olds]) for name, olds in parts(state).items()}


def renamed_optimizer(
    optimizer: Mapping[str, Any], state: Mapping[str, Tensor], names_today: list[list[str]], groups: Any
) -> dict[str, Any]:
    """The state of an optimizer that was written with ``state``, for the parameters of today.

    Args:
        optimizer: ``state_dict()`` of then.
        state: The model's state of then; its order is that of the parameters.
        names_today: Names of the parameters in each group of the optimizer of today.
        groups: Function that sorts pairs (name, tensor) into the lists of names that the groups were made of.
    """
    parameters = [(name, t) for name, t in state.items() if not name.endswith(_BUFFERS)]
    numbers: dict[str, int] = {}
    for group, names in zip(optimizer["param_groups"], groups(parameters), strict=True):
        numbers.update(zip(names, group["params"], strict=True))
    made_of = parts(state)
    moments: dict[int, dict[str, Any]] = {}
    new_groups, count = [], 0
    for group, names in zip(optimizer["param_groups"], names_today, strict=True):
        for place, name in enumerate(names, start=count):
            old = [optimizer["state"][numbers[part]] for part in made_of[name] if numbers[part] in optimizer["state"]]
            if old:
                moments[place] = {key: _joined([one[key] for one in old]) for key in old[0]}
        new_groups.append({**group, "params": list(range(count, count + len(names)))})
        count += len(names)
    return {**optimizer, "state": moments, "param_groups": new_groups}


def _joined(values: list[Any]) -> Any:
    """Stacks of matrices one above the other; of anything else the first, since all are alike."""
    first = values[0]
    return cat(values, dim=1) if len(values) > 1 and isinstance(first, Tensor) and first.dim() > 1 else first
