"""``Optimizer``, the base of all optimizers: parameter groups, state, saving and loading."""

from __future__ import annotations

import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.arguments import check_state_dict
from deepseek._binding.missing import guard, missing_member
from deepseek.jit.capture import is_recording, run_on_replay
from deepseek.nn.modules._hooks import Hook, RemovableHandle, _add

__all__ = ["Optimizer"]

ParamsT = Iterable[Any]


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """A ``step`` that runs the hooks around it and notes that it ran (the schedulers ask)."""

    @functools.wraps(step)
    def wrapped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if is_recording() and (args or kwargs or not self._is_captured_as_ops()):
            return run_on_replay(wrapped, (self, *args), kwargs)  # for real, on every replay
        for hook in list(self._step_pre_hooks.values()):
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(f"step pre-hook must return None or (new_args, new_kwargs), but got {changed}")
                args, kwargs = changed
        result = step(self, *args, **kwargs)
        self._step_called = True
        for hook in list(self._step_post_hooks.values()):
            hook(self, args, kwargs)
        return result

    return wrapped


def check_one_number(value: Any, name: str = "lr") -> None:
    """TypeError for an option that is no number, ValueError for a tensor of several elements."""
    if not isinstance(value, Tensor) and not _C._is_number(value):
        raise TypeError(f"{name} must be a number or a Tensor, not {_C._type_name(value)}")
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"Tensor {name} must be 1-element")


def _refuse_params(params: Any) -> NoReturn:
    way = "; pass its .parameters()" if hasattr(params, "parameters") else ""
    raise TypeError(
        "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
        f"{_C._given_for_tensor(params)}{way}"
    )


def _listed(params: Any) -> list[Any]:
    if not isinstance(params, Iterable):
        _refuse_params(params)
    return list(params)


class Optimizer:
    """Base class of optimizers. A subclass calls ``super().__init__(params, defaults)`` and defines ``step``.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts with "params" and that group's own options.
        defaults: the options of groups that do not set them.

    ``param_groups`` is a list of dicts, ``state`` maps a parameter to its dict.
    """

    @property
    def _watched_names(self) -> tuple[str, ...]:
        """What deepseek.jit watches though nobody names it: zero_grad() goes by the first, a recorded step by all."""
        recorded = ("param_groups", "state", "_step_pre_hooks", "_step_post_hooks") if self._is_capturable() else ()
        return ("_groups_added", *recorded)

    def _is_capturable(self) -> bool:
        """Whether steps change tensors alone, so that what is recorded of one is all that a replay has to do."""
        return False

    def _is_captured_as_ops(self) -> bool:
        """Whether the ops of a step are recorded; otherwise deepseek.jit calls it on every replay."""
        hooked = self._step_pre_hooks or self._step_post_hooks
        scaled = getattr(self, "grad_scale", None) is not None or getattr(self, "found_inf", None) is not None
        return self._is_capturable() and not hooked and not scaled

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            _refuse_params(params)
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._step_pre_hooks: OrderedDict[int, Hook] = OrderedDict()
        self._step_post_hooks: OrderedDict[int, Hook] = OrderedDict()
        self._step_called = False
        self._groups_added = 0
        groups = _listed(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(dict(group) if isinstance(group, dict) else group)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing_member(self, name, "optim.Optimizer")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters from their gradients.

        Args:
            closure: computes the loss again (and its gradients) and returns it.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no step()")

    def _loss(self, closure: Callable[[], Any] | None) -> Any:
        if closure is None:
            return None
        with deepseek.enable_grad():
            return closure()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or set them to zeros with ``set_to_none=False``."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if set_to_none:
                    parameter.grad = None
                else:
                    if not parameter.grad.is_leaf:
                        parameter.grad = parameter.grad.detach()
                    parameter.grad.requires_grad_(False).zero_()

    # Groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: a dict with "params" and any options that differ from the defaults.

        Raises:
            TypeError: not a dict, an unordered set of parameters, or something that is not a tensor.
            ValueError: a tensor that is not a leaf, or a parameter that is already in a group.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        self._take_params(param_group)
        for parameter in param_group["params"]:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {_C._given_for_tensor(parameter)}"
                )
            if not parameter.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, value in self.defaults.items():
            param_group.setdefault(name, value)
        ids = [id(parameter) for parameter in param_group["params"]]
        known = {id(parameter) for group in self.param_groups for parameter in group["params"]}
        if len(set(ids)) != len(ids) or known & set(ids):
            raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(param_group)
        self._groups_added += 1

    def _take_params(self, group: dict[str, Any]) -> None:
        """Make ``group["params"]`` a list of tensors, and keep the names if pairs were given."""
        params = group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, (set, frozenset)):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in "
                "sets will change between runs. Please use a list instead."
            )
        params = _listed(params)
        named = [isinstance(entry, tuple) for entry in params]
        if any(named):
            if not all(named):
                raise ValueError("all optimizer params should be with/without names. Some param names are missing")
            group["param_names"] = [name for name, _ in params]
            params = [parameter for _, parameter in params]
        if self.param_groups and ("param_names" in group) != ("param_names" in self.param_groups[0]):
            raise ValueError("all optimizer param groups should be with/without names")
        group["params"] = params

    # Hooks

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return new ``(args, kwargs)``."""
        return _add(self._step_pre_hooks, hook, prepend=False)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return _add(self._step_post_hooks, hook, prepend=False)

    # Saving and loading

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {number: dict}, "param_groups": [dict]}`` with parameters replaced by running numbers.

        The tensors are the optimizer's own: clone them to keep a snapshot.
        """
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for parameter in group["params"]:
                numbers.setdefault(id(parameter), len(numbers))
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [numbers[id(parameter)] for parameter in group["params"]]
            groups.append(packed)
        state = {(numbers[id(key)] if isinstance(key, Tensor) else key): value for key, value in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` of an optimizer with the same groups returned; its tensors are copied.

        Floating-point state is converted to its parameter's dtype, or to float32 where the optimizer steps on float32
        copies ("step" is left as it is).

        Raises:
            TypeError: no dict.
            ValueError: not the state of an optimizer, or the groups differ in number or in size.
        """
        check_state_dict(state_dict)
        for key in ("state", "param_groups"):
            if key not in state_dict:
                found = ", ".join(map(repr, state_dict)) or "nothing at all"
                raise ValueError(f"no state of an optimizer: it has no {key!r}, but {found}")
        saved_groups = state_dict["param_groups"]
        if len(saved_groups) != len(self.param_groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: "
                f"{len(saved_groups)} in the state dict, {len(self.param_groups)} in the optimizer"
            )
        for place, (mine, saved) in enumerate(zip(self.param_groups, saved_groups, strict=True)):
            if len(mine["params"]) != len(saved["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                    f"group {place} has {len(saved['params'])} parameters, expected {len(mine['params'])}"
                )
        numbers = chain.from_iterable(group["params"] for group in saved_groups)
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        by_number = dict(zip(numbers, parameters, strict=True))
        dtypes = {id(p): self._state_dtype(p, group) for group in self.param_groups for p in group["params"]}
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for number, value in state_dict["state"].items():
            # JSON turns integer keys into text; both are understood.
            if isinstance(number, str) and number.isdigit() and number not in by_number:
                number = int(number)
            parameter = by_number.get(number)
            if parameter is None:
                state[number] = _copied(value)
            else:
                dtype = dtypes[id(parameter)] if parameter.is_floating_point() else None
                state[parameter] = _copied(value, dtype)
        groups = []
        for mine, saved in zip(self.param_groups, saved_groups, strict=True):
            group = {key: deepcopy(value) for key, value in saved.items() if key != "params"}
            if "param_names" in mine:
                group.setdefault("param_names", mine["param_names"])
            group["params"] = mine["params"]
            groups.append(group)
        self._restore(state, groups)

    def _state_dtype(self, parameter: Tensor, group: dict[str, Any]) -> deepseek.dtype:
        """What loaded floating-point state of the parameter becomes."""
        return parameter.dtype

    def _restore(self, state: defaultdict[Any, dict[str, Any]], groups: list[dict[str, Any]]) -> None:
        """Install loaded state; a subclass may complete options that an older version did not save."""
        for group in groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self.state = state
        self.param_groups = groups

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for place, group in enumerate(self.param_groups):
            if place:
                lines.append("")
            lines.append(f"Parameter Group {place}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _copied(value: Any, dtype: deepseek.dtype | None = None, key: str = "") -> Any:
    """A copy of loaded state, floating-point tensors in the dtype; other libraries' tensors become ours."""
    if not isinstance(value, Tensor) and hasattr(value, "__dlpack__"):
        value = deepseek.as_tensor(value)
    if isinstance(value, Tensor):
        if dtype is not None and key != "step" and value.is_floating_point():
            value = value.to(dtype)
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _copied(entry, dtype, name) for name, entry in value.items()}
    return deepcopy(value)


def grads_of(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of the group that have a gradient, and the gradients."""
    with_grad = [parameter for parameter in group["params"] if parameter.grad is not None]
    return with_grad, [parameter.grad for parameter in with_grad]


def check_options(name: str, differentiable: bool) -> None:
    """Refuse torch's options that have no meaning here when they are switched on."""
    if differentiable:
        raise NotImplementedError(f"{name}: differentiable=True is not supported; leave it differentiable=False")


def wants_loop(group: dict[str, Any]) -> bool:
    """Whether the group asks for the op-by-op form: ``fused=False``, or ``foreach=False`` without ``fused``."""
    return group["fused"] is False or (group["fused"] is None and group["foreach"] is False)


guard(__name__)
