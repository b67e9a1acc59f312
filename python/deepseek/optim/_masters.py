"""What fused optimizers share: the step, and float32 copies of 16-bit parameters that it goes through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import deepseek
from deepseek import Tensor
from deepseek.optim.optimizer import Optimizer, grads_of, wants_loop


def has_master(parameter: Tensor, group: dict[str, Any]) -> bool:
    """Whether the step goes through a float32 copy of the parameter."""
    return bool(group["master_weights"]) and parameter.dtype in (deepseek.bfloat16, deepseek.float16)


class WithMasters(Optimizer):
    """An optimizer with the option ``master_weights``: "master" in the state of a parameter is its float32 copy.

    A :class:`deepseek.amp.GradScaler` leaves the gradients of such parameters scaled and hands the scale to ``step``,
    which divides in float32: in 16 bits what the scale has saved from becoming zero would be lost again.

    A subclass defines ``_single_step``, the step of one parameter op by op, and ``_fused_step``, the same for all
    parameters of a group in one call, with gradients that are to be multiplied by a factor.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters; returns the closure's loss."""
        loss = self._loss(closure)
        if self._skips():
            return loss
        factor = self._grad_factor()
        with deepseek.no_grad():
            for group in self.param_groups:
                params, grads = grads_of(group)
                self._start(params, group)
                if params and not wants_loop(group):
                    self._fused_step(params, grads, group, factor)
                    continue
                for parameter, grad in zip(params, grads, strict=True):
                    state = self.state[parameter]
                    if group["master_weights"] and "master" in state:
                        self._single_step(state["master"], grad.to(deepseek.float32) * factor, state, group)
                        parameter.copy_(state["master"])
                    else:
                        self._single_step(parameter, grad if factor == 1 else grad * factor, state, group)
        return loss

    def _start(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Make what is missing of the parameters' state."""
        if group["master_weights"]:
            for parameter in params:
                self._start_master(parameter, self.state[parameter], group)

    def _fused_step(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any], factor: float) -> None:
        raise NotImplementedError

    @staticmethod
    def _single_step(parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """The definition of the step, op by op: what the fused pass must agree with."""
        raise NotImplementedError

    @property
    def _step_supports_amp_scaling(self) -> bool:
        return any(has_master(parameter, group) for group in self.param_groups for parameter in group["params"])

    def _skips(self) -> bool:
        found = getattr(self, "found_inf", None)  # the scaler's, for the length of a step, as is grad_scale
        return found is not None and bool(found.item())

    def _grad_factor(self) -> float:
        """What every gradient is multiplied by first."""
        scale = getattr(self, "grad_scale", None)
        return 1.0 if scale is None else 1.0 / float(scale.item())

    @staticmethod
    def _start_master(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """What is stepped on: the master, made at the first step, or the parameter itself."""
        if has_master(parameter, group) and "master" not in state:
            state["master"] = parameter.detach().to(deepseek.float32)
        stepped: Tensor = state.get("master", parameter)
        return stepped

    def _restore(self, state: defaultdict[Any, dict[str, Any]], groups: list[dict[str, Any]]) -> None:
        for mine, group in zip(self.param_groups, groups, strict=True):
            group["master_weights"] = mine["master_weights"]
            for parameter in group["params"]:
                if not has_master(parameter, group) and parameter in state:
                    state[parameter].pop("master", None)
        super()._restore(state, groups)

    def _state_dtype(self, parameter: Tensor, group: dict[str, Any]) -> deepseek.dtype:
        return deepseek.float32 if has_master(parameter, group) else parameter.dtype
