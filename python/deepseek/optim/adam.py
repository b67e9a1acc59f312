"""Adam and AdamW."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.missing import guard
from deepseek.optim._masters import WithMasters
from deepseek.optim.optimizer import ParamsT, check_one_number, check_options, wants_loop

__all__ = ["Adam", "AdamW"]


def _count(step: int, capturable: bool) -> Any:
    return deepseek.tensor(float(step)) if capturable else step


class Adam(WithMasters):
    """Adam. (Kingma and Ba, 2014; AMSGrad: Reddi et al., 2018)

    Args:
        params: the parameters or groups of them.
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: L2 penalty added to the gradient, or a direct shrinking with ``decoupled_weight_decay``.
        amsgrad: divide by the largest mean square so far.
        maximize: ascend instead of descend.
        foreach, fused: one fused pass per group is the default; ``False`` updates op by op (slower, same result).
        capturable: :func:`deepseek.jit` records the ops of a step instead of calling it on every replay. All state is
            made at once and "step" is a tensor; give ``lr`` as a tensor if it changes, as a schedule does. Not with
            master_weights, which wait for the first step.
        differentiable: not supported.
        master_weights: keep a float32 copy of every bfloat16 or float16 parameter and step on that, with float32 state,
            so that steps too small for 16 bits add up; the parameter is the copy, rounded. Others are not affected.

    State of a parameter: "step" (int; if capturable a 0-d float32 tensor, as in PyTorch), "exp_avg", "exp_avg_sq", with
    amsgrad "max_exp_avg_sq" and with master_weights "master". A master is made from its parameter at the first step;
    whoever writes to the parameter later has to delete it from the state. ``load_state_dict`` keeps master_weights as
    this optimizer has it: a checkpoint without masters gets new ones at the next step, and masters that are not wanted
    are dropped.

    Raises:
        ValueError: an option outside its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        master_weights: bool = False,
    ) -> None:
        # Written as "not x >= 0" so that NaN is refused too.
        check_one_number(lr)
        check_one_number(eps, "eps")
        check_one_number(weight_decay, "weight_decay")
        if not lr >= 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not eps >= 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
            raise ValueError("betas must be either both floats or both Tensors")
        for place, beta in enumerate(betas):
            check_one_number(beta, f"betas[{place}]")
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {place}: {beta}")
        if not weight_decay >= 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        check_options(type(self).__name__, differentiable)
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
            "master_weights": master_weights,
        }
        super().__init__(params, defaults)

    def _restore(self, state: defaultdict[Any, dict[str, Any]], groups: list[dict[str, Any]]) -> None:
        super()._restore(state, groups)
        capturable = {id(parameter) for group in groups if group["capturable"] for parameter in group["params"]}
        for parameter, entry in state.items():
            if "step" in entry:  # PyTorch keeps it in a tensor, always
                entry["step"] = _count(int(entry["step"]), id(parameter) in capturable)
        self._start_capturable(groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._start_capturable(self.param_groups[-1:])

    def _start_capturable(self, groups: list[dict[str, Any]]) -> None:
        """A recorded step makes no state: what it does is done again on every replay."""
        for group in groups:
            if group["capturable"] and not group["master_weights"]:
                self._start(group["params"], group)

    def _is_capturable(self) -> bool:
        return all(
            group["capturable"] and not group["master_weights"] and not wants_loop(group) for group in self.param_groups
        )

    def _start(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in params:
            state = self.state[parameter]
            stepped = self._start_master(parameter, state, group)
            if "step" not in state:
                state["step"] = _count(0, group["capturable"])
                state["exp_avg"] = deepseek.zeros_like(stepped)
                state["exp_avg_sq"] = deepseek.zeros_like(stepped)
            if group["amsgrad"] and "max_exp_avg_sq" not in state:
                state["max_exp_avg_sq"] = deepseek.zeros_like(stepped)

    def _fused_step(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any], factor: float) -> None:
        states = [self.state[parameter] for parameter in params]
        for state in states:
            state["step"] += 1
        try:
            self._step_on(params, grads, states, group, factor)
        except BaseException:  # nothing was written
            for state in states:
                state["step"] -= 1
            raise

    @staticmethod
    def _step_on(
        params: list[Tensor], grads: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any], factor: float
    ) -> None:
        beta1, beta2 = group["betas"]
        _C._adam_step(
            params,
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else (),
            [state.get("master") for state in states] if group["master_weights"] else (),
            [state["step"] for state in states],
            group["lr"],
            factor,
            beta1=float(beta1),
            beta2=float(beta2),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            decoupled=bool(group["decoupled_weight_decay"]),
            maximize=bool(group["maximize"]),
        )

    @staticmethod
    def _single_step(parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, decay = float(group["lr"]), float(group["weight_decay"])
        beta1, beta2 = group["betas"]
        state["step"] += 1
        step, mean, mean_square = int(state["step"]), state["exp_avg"], state["exp_avg_sq"]
        if group["maximize"]:
            grad = -grad
        if decay != 0:
            if group["decoupled_weight_decay"]:
                parameter.mul_(1 - lr * decay)
            else:
                grad = grad + parameter * decay
        mean.mul_(beta1).add_(grad * (1 - beta1))
        mean_square.mul_(beta2).add_(grad * grad * (1 - beta2))
        if group["amsgrad"]:
            largest = state["max_exp_avg_sq"]
            largest.copy_(deepseek.maximum(largest, mean_square))
            mean_square = largest
        denominator = mean_square.sqrt() / math.sqrt(1 - beta2**step) + float(group["eps"])
        parameter.sub_(mean / denominator * (lr / (1 - beta1**step)))


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly. (Loshchilov and Hutter, 2017)

    The arguments are those of :class:`Adam`; ``weight_decay`` is 0.01 by default.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        master_weights: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            master_weights=master_weights,
        )

    def _restore(self, state: defaultdict[Any, dict[str, Any]], groups: list[dict[str, Any]]) -> None:
        super()._restore(state, groups)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True


guard(__name__)
