"""Renumbering the experts of a layer: what it computes stays, who lives where changes."""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import deepseek
from deepseek import Tensor, nn, no_grad
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._routers import expert_count, expert_stacks, router_owners

if TYPE_CHECKING:
    from deepseek.optim import Optimizer


@public
def permute_experts(
    layer: nn.Module,
    order: Tensor | Sequence[int],
    *,
    optimizer: Optimizer | None = None,
    regroup: bool = False,
) -> None:
    """Renumber a layer's experts in place: the new expert i is the old expert ``order[i]``.

    Moved are all stacks of expert weights (which classes name in ``expert_weights``, as :class:`Experts` does), the
    router's weight, selection bias, ``enabled`` and counters, the entries of its hash table ``tid2eid``, and with
    ``optimizer`` the state of these parameters. Every token keeps its experts and what each counts, so outputs stay: to
    the bit with sigmoid and sqrtsoftplus scores; softmax adds the experts' terms in their order, so weights may differ
    in the last bit. Only among experts with equal scores the choice may change, for the lowest number wins.

    Close an :class:`ExpertTuning` before, whose rows go by number, and make a new :class:`ProgressiveExperts` after.

    With group-limited routing (``topk_group < n_group``) a group is a range of numbers. An order that keeps the groups
    together, as sets, changes nothing; another one changes which experts a token may choose, so it is refused unless
    ``regroup`` says that this is wanted (for groups made by :func:`cluster_experts`).

    Args:
        layer: a mixture-of-experts layer, a module with one router among its modules.
        order: each expert once; ``cluster_experts(...).flatten()``, for example.
        optimizer: whose state of the permuted parameters (tensors of their shape) moves along.
        regroup: allow an order that mixes groups.

    Raises:
        TypeError, ValueError: a module with no router or several, an order that is no permutation or mixes groups, or
            expert weights that are not stacked parameters.
        NotImplementedError: expert weights that are quantized, or experts without weights among the routed ones.
    """
    owners = router_owners(layer, "permute_experts")
    if len(owners) != 1:
        raise ValueError(
            f"permute_experts: one layer at a time, {type(layer).__name__} has routers {', '.join(owners)}"
        )
    ((owner, router),) = owners.values()
    numbers = [int(number) for number in (order.tolist() if isinstance(order, Tensor) else order)]
    experts = expert_count(router)
    if sorted(numbers) != list(range(experts)):
        raise ValueError(f"permute_experts: order must hold each of the {experts} experts once, got {numbers}")
    if not regroup:
        _check_groups(router, numbers)
    stacks = expert_stacks(owner)
    if not stacks or any(stack.shape[0] != experts for stack in stacks.values()):
        raise NotImplementedError(
            f"permute_experts: {type(owner).__name__} does not hold stacked weights for each of the {experts} experts, "
            "which a class names in expert_weights; permute before quantize_(), and not a layer with zero-computation "
            "experts"
        )
    index = deepseek.tensor(numbers, dtype=deepseek.int64)
    moved = [*stacks.values(), *(value for value in router.parameters() if value.shape[0] == experts)]
    with no_grad():
        for parameter in moved:
            _move(parameter, index)
            for value in () if optimizer is None else optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    _move(value, index)
            if parameter.grad is not None:
                _move(parameter.grad, index)
        for name, buffer in router.named_buffers():
            if name != "tid2eid" and buffer.dim() == 1 and buffer.shape[0] == experts:
                _move(buffer, index)
        table = router._buffers.get("tid2eid")
        if table is not None:
            table.copy_(index.argsort()[table])  # where each old expert is now


def _move(tensor: Tensor, index: Tensor) -> None:
    tensor.copy_(tensor.index_select(0, index))


def _check_groups(router: Any, order: list[int]) -> None:
    groups, used = int(getattr(router, "n_group", 1)), int(getattr(router, "topk_group", 1))
    if used >= groups:
        return
    size = len(order) // groups
    for start in range(0, len(order), size):
        homes = {expert // size for expert in order[start : start + size]}
        if len(homes) > 1:
            raise ValueError(
                f"permute_experts: the router limits tokens to {used} of {groups} groups, and order puts experts of "
                f"groups {sorted(homes)} into group {start // size}, which changes what tokens may choose; "
                "regroup=True does it"
            )


guard(__name__)
