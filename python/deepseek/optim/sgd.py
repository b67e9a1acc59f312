"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.missing import guard
from deepseek.optim._masters import WithMasters
from deepseek.optim.optimizer import ParamsT, check_one_number, check_options

__all__ = ["SGD"]


class SGD(WithMasters):
    """Stochastic gradient descent with momentum. (Sutskever et al., 2013)

    Args:
        params: the parameters or groups of them.
        lr: learning rate.
        momentum: factor of the running sum of gradients, 0 for none.
        dampening: how much less than 1 a new gradient counts in that sum.
        weight_decay: L2 penalty, added to the gradient.
        nesterov: look ahead along the momentum.
        maximize: ascend instead of descend.
        foreach, fused: one fused pass per group is the default; ``False`` updates op by op (slower, same result).
        differentiable: not supported.
        master_weights: keep a float32 copy of every bfloat16 or float16 parameter and step on that, with a float32
            momentum, so that steps too small for 16 bits add up; the parameter is the copy, rounded. See :class:`Adam`.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        master_weights: bool = False,
    ) -> None:
        check_one_number(lr)
        check_one_number(momentum, "momentum")
        check_one_number(dampening, "dampening")
        check_one_number(weight_decay, "weight_decay")
        if lr < 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if momentum < 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if weight_decay < 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        check_options("SGD", differentiable)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
            "master_weights": master_weights,
        }
        super().__init__(params, defaults)

    def _fused_step(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any], factor: float) -> None:
        if group["momentum"] == 0:
            self._call([], False, params, grads, group, factor)
            return
        # Parameters that meet their first gradient start their sum with it, the others go on.
        fresh = [self.state[parameter].get("momentum_buffer") is None for parameter in params]
        for first in (True, False):
            places = [place for place, is_fresh in enumerate(fresh) if is_fresh is first]
            if not places:
                continue
            chosen = [params[place] for place in places]
            if first:
                for parameter in chosen:
                    state = self.state[parameter]
                    state["momentum_buffer"] = deepseek.zeros_like(state.get("master", parameter))
            sums = [self.state[parameter]["momentum_buffer"] for parameter in chosen]
            self._call(sums, first, chosen, [grads[place] for place in places], group, factor)

    def _call(
        self,
        sums: list[Tensor],
        first: bool,
        params: list[Tensor],
        grads: list[Tensor],
        group: dict[str, Any],
        factor: float,
    ) -> None:
        _C._sgd_step(
            params,
            grads,
            sums,
            [self.state[parameter].get("master") for parameter in params] if group["master_weights"] else (),
            group["lr"],
            factor,
            momentum=float(group["momentum"]),
            dampening=float(group["dampening"]),
            weight_decay=float(group["weight_decay"]),
            nesterov=bool(group["nesterov"]),
            first=first,
            maximize=bool(group["maximize"]),
        )

    @staticmethod
    def _single_step(parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if group["maximize"]:
            grad = -grad
        if group["weight_decay"] != 0:
            grad = grad + parameter * float(group["weight_decay"])
        if group["momentum"] != 0:
            momentum = float(group["momentum"])
            total = state.get("momentum_buffer")
            if total is None:
                total = state["momentum_buffer"] = grad.detach().clone()
            else:
                total.mul_(momentum).add_(grad * (1 - group["dampening"]))
            grad = grad + total * momentum if group["nesterov"] else total
        parameter.sub_(grad * float(group["lr"]))


guard(__name__)
