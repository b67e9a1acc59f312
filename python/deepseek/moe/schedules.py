"""Progressive expert activation: training starts with few experts and ends with all of them.

As in curricula for mixtures of experts such as EvoMoE (Nie et al., 2021, 2112.14397): routers learn to tell few experts
apart before they have to tell many apart. Two things can change over the steps, the number of experts a token is sent
to (``top_k``) and the number of experts that may be chosen (``enabled``).
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepseek import Tensor, nn, no_grad, tensor
from deepseek import bool as bool_dtype
from deepseek._binding.arguments import check_state_dict
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._routers import enabled_mask, expert_count, named_routers


@public
@dataclass(frozen=True)
class ExpertStage:
    """What holds from a step on: ``top_k`` experts a token, ``enabled`` experts to choose from."""

    top_k: int
    enabled: int


@public
class ProgressiveExperts:
    """Sets ``top_k`` and the enabled experts of a model's routers by training step.

        schedule = ProgressiveExperts(model, {0: (1, 2), 500: (2, 4), 1000: (2, 8)})           # stairs
        schedule = ProgressiveExperts(model, begin=0, end=1000, top_k=(1, 2), enabled=(2, 8))   # evenly
        for batch in data:
            ...; optimizer.step(); schedule.step()

    Step 0 is set here, and every :meth:`step` goes on by one. What is set is a function of the step and the arguments
    alone, so a run that was saved and resumed (:meth:`state_dict`) is the undisturbed one.

    Disabled experts are -inf in the selection: no token reaches them and their weights get zero gradients. An optimizer
    with weight decay or momentum still moves a weight whose gradient is zero; AdamW's decay shrinks them a little. Of
    the losses for routers only :func:`router_z_loss` pulls on their rows of the router too: it is about all logits.
    Enabled sets are nested: what has been enabled stays so. With group-limited routing experts are enabled in turns,
    one of each group, so that every group can be chosen. A router by token ids (``tid2eid``) chooses no others for
    experts that are not enabled, so all that its table holds in the first ``top_k`` columns must be enabled.

    A stage with ``top_k=1`` teaches a router with ``norm_topk_prob`` nothing, for the one weight is 1 whatever the
    scores are, and is warned of: begin with ``top_k=2``, or without ``norm_topk_prob``.

    Args:
        model: a module with routers that have a buffer ``enabled`` [experts] and a ``top_k`` that may be set.
        stages: ``{step: (top_k, enabled)}`` or :class:`ExpertStage` values; the first step must be 0.
        begin, end: for the even form, where the change starts, and the first step with the last values.
        top_k, enabled: for the even form, ``(first, last)``, with whole numbers evenly between, each from the step on
            at which its share is reached. By default they stay as they are, which has to be the same for all routers.
        order: the experts in the order in which they are enabled, the same for all routers; by default 0, 1, 2, …, and
            with groups the first of each, then the second of each, ….

    Raises:
        TypeError: not a module, or both forms at once.
        ValueError: a model without such routers; steps, counts or an order that make no schedule: fewer enabled experts
            than ``top_k``, an enabled expert that would be disabled again, more experts than there are, or groups of
            which a token might choose some that have too few enabled experts together, or a table of token ids that is
            too narrow or holds experts which are not enabled.

    Warns:
        UserWarning: a stage with ``top_k=1`` for routers with ``norm_topk_prob``.
    """

    def __init__(
        self,
        model: nn.Module,
        stages: Mapping[int, ExpertStage | tuple[int, int]] | None = None,
        *,
        begin: int = 0,
        end: int | None = None,
        top_k: tuple[int, int] | None = None,
        enabled: tuple[int, int] | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        self._routers = named_routers(model, "ProgressiveExperts")
        for name, router in self._routers.items():
            if router._buffers.get("enabled") is None:
                raise ValueError(
                    f"ProgressiveExperts: router {name!r} ({type(router).__name__}) has no buffer `enabled`, so its "
                    "experts cannot be disabled"
                )
        if (stages is None) == (end is None):
            raise TypeError("ProgressiveExperts: give either stages, {step: (top_k, enabled)}, or begin and end")
        self._stages = _stairs(stages) if stages is not None else {}
        self._begin, self._end, self._top_k, self._enabled = begin, end, top_k, enabled
        if end is not None:
            _check_even(begin, end, top_k, enabled)
            routers = self._routers.values()
            self._top_k = top_k or (_common("top_k", [int(router.top_k) for router in routers]),) * 2
            self._enabled = enabled or (_common("enabled", [expert_count(router) for router in routers]),) * 2
        self._order = {name: _order_of(name, router, order) for name, router in self._routers.items()}
        for name, router in self._routers.items():
            for step, stage in self._changes():
                _check_stage(name, router, self._order[name], step, stage)
        self._warn_of_single_weights()
        self._set(0)

    @property
    def current_step(self) -> int:
        """The step whose values are set."""
        return self._step

    def stage(self, step: int | None = None) -> ExpertStage:
        """What holds at a step; by default at the present one."""
        step = self._step if step is None else step
        if self._end is None:
            return self._stages[max(s for s in self._stages if s <= max(step, 0))]
        assert self._top_k is not None and self._enabled is not None
        whole = self._end - self._begin
        done = min(max(step - self._begin, 0), whole)
        return ExpertStage(_between(*self._top_k, done, whole), _between(*self._enabled, done, whole))

    def step(self) -> ExpertStage:
        """Go on to the next step, set its values and return them.

        Raises:
            RuntimeError: a router's ``top_k`` or enabled experts are not what the schedule set.
            ValueError: a router by token ids whose table changed, so that it cannot take the next values. Either way
                the schedule and all routers stay as they are.
        """
        for name, router in self._routers.items():
            if int(router.top_k) != self.stage().top_k or enabled_mask(router) != self._mask(name):
                raise RuntimeError(
                    f"ProgressiveExperts: top_k or the enabled experts of router {name!r} changed since step "
                    f"{self._step} was set; load the schedule's state_dict together with the model's, and make a new "
                    "schedule after permute_experts()"
                )
        if self.stage(self._step + 1) == self.stage():
            self._step += 1
        else:
            self._set(self._step + 1)
        return self.stage()

    def state_dict(self) -> dict[str, Any]:
        """The step and the order of the experts of each router, in plain integers."""
        return {"step": self._step, "order": {name: list(order) for name, order in self._order.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the step of :meth:`state_dict`, and its values in the routers.

        Raises:
            TypeError: no dict.
            ValueError: the state of a schedule over other routers or experts.
        """
        check_state_dict(state_dict)
        step, order = state_dict.get("step"), state_dict.get("order")
        if not isinstance(step, int) or step < 0 or not isinstance(order, Mapping):
            raise ValueError(f"ProgressiveExperts: no state of a schedule, it has {', '.join(map(repr, state_dict))}")
        found = {name: [int(expert) for expert in experts] for name, experts in order.items()}
        if found != self._order:
            raise ValueError(
                "ProgressiveExperts: the state is of other routers or another order of experts: "
                f"{_first_difference(found, self._order)}"
            )
        self._set(step)

    def _changes(self) -> list[tuple[int, ExpertStage]]:
        """The steps at which something changes, and what holds from there on."""
        if self._end is None:
            return sorted(self._stages.items())
        assert self._top_k is not None and self._enabled is not None
        whole, steps = self._end - self._begin, {0}
        for first, last in (self._top_k, self._enabled):
            parts = abs(last - first)
            steps |= {self._begin - (-part * whole // parts) for part in range(1, parts + 1)}  # rounded up
        return [(step, self.stage(step)) for step in sorted(steps)]

    def _mask(self, name: str) -> list[bool]:
        on = set(self._order[name][: self.stage().enabled])
        return [expert in on for expert in range(len(self._order[name]))]

    def _set(self, step: int) -> None:
        """Makes a step the present one; first asks every router, so that none is left behind where one refuses."""
        for name, router in self._routers.items():
            _check_stage(name, router, self._order[name], step, self.stage(step))
        self._step = step
        with no_grad():
            for name, router in self._routers.items():
                router.top_k = self.stage().top_k
                router.enabled.copy_(tensor(self._mask(name), dtype=bool_dtype))

    def _warn_of_single_weights(self) -> None:
        names = [name for name, router in self._routers.items() if getattr(router, "norm_topk_prob", False)]
        steps = [step for step, stage in self._changes() if stage.top_k == 1]
        if names and steps:
            warnings.warn(
                f"ProgressiveExperts: top_k=1 from step {steps[0]} on, and router {names[0]!r} divides weights by "
                "their sum (norm_topk_prob), so its one weight is always 1 and the loss teaches it nothing; use "
                "top_k >= 2, or norm_topk_prob=False",
                UserWarning,
                stacklevel=3,
            )

    def __repr__(self) -> str:
        parts = [f"{step}: top-{stage.top_k} of {stage.enabled}" for step, stage in self._changes()[:8]]
        more = ", …" if len(self._changes()) > 8 else ""
        return f"ProgressiveExperts(step {self._step}, {len(self._routers)} routers, {{{', '.join(parts)}{more}}})"


def _common(name: str, values: list[int]) -> int:
    if len(set(values)) > 1:
        raise ValueError(f"ProgressiveExperts: {name}=(first, last) is needed, the routers differ: {values}")
    return values[0]


def _between(first: int, last: int, done: int, whole: int) -> int:
    """Evenly from first to last, a value from the step on at which its share is reached."""
    moved = abs(last - first) * done // whole
    return first + moved if last >= first else first - moved


def _stairs(stages: Mapping[int, ExpertStage | tuple[int, int]]) -> dict[int, ExpertStage]:
    if not stages or min(stages) != 0:
        raise ValueError(
            f"ProgressiveExperts: stages must begin with step 0, got {sorted(stages) if stages else 'no stages'}"
        )
    stairs = {_whole("a step", step): _stage_of(step, stages[step]) for step in sorted(stages)}
    for (_, before), (step, stage) in zip(list(stairs.items())[:-1], list(stairs.items())[1:], strict=True):
        if stage.enabled < before.enabled:
            raise ValueError(
                f"ProgressiveExperts: an enabled expert stays enabled, but step {step} has {stage.enabled} after "
                f"{before.enabled}"
            )
    return stairs


def _stage_of(step: int, stage: ExpertStage | tuple[int, int]) -> ExpertStage:
    pair: Any = (stage.top_k, stage.enabled) if isinstance(stage, ExpertStage) else stage
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f"ProgressiveExperts: a stage is (top_k, enabled), got {stage} at step {step}")
    return ExpertStage(_whole(f"top_k at step {step}", pair[0]), _whole(f"enabled at step {step}", pair[1]))


def _whole(name: str, value: Any) -> int:
    """A whole number, of Python or NumPy, as an int."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"ProgressiveExperts: {name} must be a whole number, got {value!r}")
    return operator.index(value)


def _check_even(begin: int, end: int, top_k: tuple[int, int] | None, enabled: tuple[int, int] | None) -> None:
    for name, value in (("begin", begin), ("end", end)):
        _whole(name, value)
    for name, pair in (("top_k", top_k), ("enabled", enabled)):
        for value in pair or ():
            _whole(name, value)
    if not 0 <= begin < end:
        raise ValueError(f"ProgressiveExperts: 0 <= begin < end, got begin={begin} and end={end}")
    if top_k is None and enabled is None:
        raise ValueError(
            "ProgressiveExperts: between begin and end, top_k=(first, last) or enabled=(first, last) changes"
        )
    if enabled is not None and enabled[1] < enabled[0]:
        raise ValueError(f"ProgressiveExperts: an enabled expert stays enabled, got enabled={enabled}")


def _groups(router: Any) -> tuple[int, int]:
    """(number of groups, groups a token may use) of group-limited routing; (1, 1) without."""
    groups = int(getattr(router, "n_group", None) or 1)
    return groups, int(getattr(router, "topk_group", None) or groups)


def _order_of(name: str, router: Any, order: Sequence[int] | None) -> list[int]:
    experts = expert_count(router)
    if order is not None:
        if sorted(order) != list(range(experts)):
            raise ValueError(
                f"ProgressiveExperts: order must hold each of the {experts} experts of router {name!r} once, "
                f"got {order}"
            )
        return [int(expert) for expert in order]
    size = experts // _groups(router)[0]
    return sorted(range(experts), key=lambda expert: (expert % size, expert))


def _check_stage(name: str, router: Any, order: list[int], step: int, stage: ExpertStage) -> None:
    given = f"router {name!r} at step {step}: top_k={stage.top_k}, enabled={stage.enabled}"
    if not 1 <= stage.top_k <= stage.enabled <= len(order):
        raise ValueError(f"ProgressiveExperts: 1 <= top_k <= enabled <= {len(order)} experts, got {given}")
    table = router._buffers.get("tid2eid")
    if table is not None:
        _check_table(given, table, order, stage)
        return  # a table knows no groups
    groups, used = _groups(router)
    size = len(order) // groups
    on = [0] * groups
    for expert in order[: stage.enabled]:
        on[expert // size] += 1
    surely = sum(sorted(count for count in on if count)[:used])  # a group without any is chosen after all others
    if used < groups and surely < stage.top_k:
        raise ValueError(
            f"ProgressiveExperts: a token of {given} chooses from {used} of {groups} groups, which have {on} enabled "
            f"experts, so it may find only {surely}; enable more, or in another order"
        )


def _check_table(given: str, table: Tensor, order: list[int], stage: ExpertStage) -> None:
    if stage.top_k > table.shape[1]:
        raise ValueError(
            f"ProgressiveExperts: experts of a router by token ids are the columns of tid2eid {tuple(table.shape)}, "
            f"got {given}; top_k must be at most {table.shape[1]}"
        )
    missing = sorted(
        {int(expert) for expert in table[:, : stage.top_k].unique().tolist()} - set(order[: stage.enabled])
    )
    if missing:
        raise ValueError(
            f"ProgressiveExperts: tid2eid sends tokens to experts {missing[:8]}, which would not be enabled, got "
            f"{given}; a table of token ids chooses no others instead, so enable all experts in it, or schedule only "
            "the routers that choose by scores"
        )


def _first_difference(found: dict[str, list[int]], own: dict[str, list[int]]) -> str:
    if set(found) != set(own):
        return f"routers {sorted(found)}, here {sorted(own)}"
    name = next(name for name in own if found[name] != own[name])
    return f"router {name!r} has {found[name]}, here {own[name]}"


guard(__name__)
