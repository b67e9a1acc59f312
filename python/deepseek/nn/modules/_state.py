"""Saving and loading a module's state: ``state_dict``, ``load_state_dict`` and their hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import deepseek
from deepseek import Tensor
from deepseek._binding.arguments import check_state_dict
from deepseek.nn.modules._hooks import Hook, RemovableHandle, _add
from deepseek.nn.parameter import Parameter

_EXTRA_STATE_KEY = "_extra_state"


class StateDict(OrderedDict[str, Any]):
    """An ordered dict of tensors by dotted name, with room for the modules' version metadata."""

    _metadata: dict[str, dict[str, Any]]

    def copy(self) -> StateDict:
        other = StateDict(self)
        other._metadata = dict(getattr(self, "_metadata", {}))
        return other


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns: the names only the module has and the names only the state dict has."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    def __str__(self) -> str:
        return repr(self)


class StateMixin:
    """The state side of :class:`Module`."""

    _version: int = 1
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Any]
    _non_persistent_buffers_set: set[str]
    _state_dict_pre_hooks: OrderedDict[int, Hook]
    _state_dict_hooks: OrderedDict[int, Hook]
    _load_state_dict_pre_hooks: OrderedDict[int, Hook]
    _load_state_dict_post_hooks: OrderedDict[int, Hook]

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before this module's entries are written."""
        return _add(self._state_dict_pre_hooks, hook, prepend=False)

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after the entries of this module and its children
        are written; the hook changes ``state_dict`` in place."""
        return _add(self._state_dict_hooks, hook, prepend=False)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)``
        before this module loads; it may rename entries of ``state_dict`` in place."""
        return _add(self._load_state_dict_pre_hooks, hook, prepend=False)

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after this module has loaded; it may edit the two lists in place."""
        return _add(self._load_state_dict_post_hooks, hook, prepend=False)

    def get_extra_state(self) -> Any:
        """State beyond tensors. Overridden together with :meth:`set_extra_state`, it becomes part of state_dict."""
        raise RuntimeError(f"{type(self).__name__} defines no get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Take back what :meth:`get_extra_state` returned."""
        raise RuntimeError(
            f"the state dict carries extra state for {type(self).__name__}, which defines no set_extra_state()"
        )

    def _has_own(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(StateMixin, method)

    def _own_state(self) -> Iterator[tuple[str, Tensor]]:
        """This module's own parameters and persistent buffers, without its children's."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield name, parameter
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                yield name, buffer

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """All parameters and persistent buffers by dotted name.

        Args:
            destination: the mapping to write to; a new ordered one when omitted.
            prefix: put in front of every name.
            keep_vars: return the tensors themselves instead of detached aliases.

        The tensors share storage with the module: clone them to keep a snapshot.
        """
        if destination is None:
            destination = StateDict()
            destination._metadata = {}
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in list(self._state_dict_hooks.values()):
            hook(self, destination, prefix, local_metadata)
        return destination

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for name, tensor in self._own_state():
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if self._has_own("get_extra_state"):
            destination[prefix + _EXTRA_STATE_KEY] = self.get_extra_state()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy the tensors of ``state_dict`` into this module and its children.

        Args:
            state_dict: tensors by dotted name, also those of a PyTorch module; it is not changed.
            strict: refuse names that are missing or unexpected (a wrong shape is always refused).
            assign: put the given tensors in place of the module's instead of copying (keeps their dtype).

        Returns:
            The named tuple ``(missing_keys, unexpected_keys)``.

        Raises:
            TypeError: ``state_dict`` is not a mapping with names for keys.
            RuntimeError: one message with every missing, unexpected and mismatched name.
        """
        check_state_dict(state_dict)
        wrong = next((key for key in state_dict if not isinstance(key, str)), None)
        if wrong is not None:
            raise TypeError(f"Expected the keys of state_dict to be str, got {wrong!r} of type {type(wrong).__name__}.")
        load = _Load(dict(state_dict), getattr(state_dict, "_metadata", {}), strict, assign)
        load.run(self, "")
        keys = IncompatibleKeys(load.missing, load.unexpected)
        errors = list(load.errors)
        if strict:
            for kind, names in (("Unexpected", load.unexpected), ("Missing", load.missing)):
                if names:
                    errors.insert(0, f"{kind} key(s) in state_dict: " + ", ".join(f'"{n}"' for n in names) + ". ")
        if errors:
            listing = "\n\t".join(errors)
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{listing}")
        return keys

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load this module's own entries; override to read older layouts (``local_metadata["version"]``)."""
        for hook in list(self._load_state_dict_pre_hooks.values()):
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        assign = bool(local_metadata.get("assign_to_params_buffers", False))
        for name, current in list(self._own_state()):
            key = prefix + name
            if key not in state_dict:
                missing_keys.append(key)
                continue
            error = self._load_one(name, key, current, state_dict[key], assign)
            if error is not None:
                error_msgs.append(error)
        extra_key = prefix + _EXTRA_STATE_KEY
        if self._has_own("set_extra_state"):
            if extra_key in state_dict:
                self.set_extra_state(state_dict[extra_key])
            else:
                missing_keys.append(extra_key)
        elif extra_key in state_dict:
            unexpected_keys.append(extra_key)
        own = {name for name, _ in self._own_state()} | {_EXTRA_STATE_KEY}
        for key in state_dict:
            if key.startswith(prefix):
                head, dot, _ = key[len(prefix) :].partition(".")
                if (self._modules.get(head) is None) if dot else (head not in own):
                    unexpected_keys.append(key)

    def _load_one(self, name: str, key: str, current: Tensor, value: Any, assign: bool) -> str | None:
        """Load one tensor; the text of what is wrong with it, or None."""
        if not isinstance(value, Tensor) and hasattr(value, "__dlpack__"):
            try:
                value = deepseek.as_tensor(value)
            except (BufferError, TypeError, ValueError) as error:  # complex numbers, another device, …
                return f'While copying the parameter named "{key}", its value could not be read: {error}'
        if not isinstance(value, Tensor):
            return (
                f'While copying the parameter named "{key}", expected a Tensor or Tensor-like object from '
                f"checkpoint but received {type(value)}"
            )
        if current.dim() == 0 and value.dim() == 1 and len(value):  # checkpoints from before there were 0-d tensors
            value = value[0]
        if tuple(value.shape) != tuple(current.shape):
            return (
                f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
                f"the shape in current model is {current.shape}."
            )
        try:
            with deepseek.no_grad():
                if not assign:
                    current.copy_(value)
                elif name in self._parameters:
                    parameter = value if isinstance(value, Parameter) else Parameter(value, current.requires_grad)
                    setattr(self, name, parameter)
                else:
                    setattr(self, name, value)
        except Exception as error:  # collected, so that one report names every entry
            return (
                f'While copying the parameter named "{key}", whose dimensions in the model are {current.shape} and '
                f"whose dimensions in the checkpoint are {value.shape}, an exception occurred : {error.args}."
            )
        return None


class _Load:
    """One ``load_state_dict`` call: walks the tree and gathers everything that does not fit."""

    def __init__(self, state: dict[str, Any], metadata: Mapping[str, Any], strict: bool, assign: bool) -> None:
        self.state = state
        self.metadata = metadata
        self.strict = strict
        self.assign = assign
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.errors: list[str] = []

    def run(self, module: Any, prefix: str, state: dict[str, Any] | None = None) -> None:
        state = self.state if state is None else state
        local = dict(self.metadata.get(prefix[:-1], {}))
        if self.assign:
            local["assign_to_params_buffers"] = True
        module._load_from_state_dict(state, prefix, local, self.strict, self.missing, self.unexpected, self.errors)
        for name, child in module._modules.items():
            if child is not None:
                inner = f"{prefix}{name}."
                # Each child sees its own part only, so that the scan for unexpected names stays linear per level.
                self.run(child, inner, {key: value for key, value in state.items() if key.startswith(inner)})
        keys = IncompatibleKeys(self.missing, self.unexpected)
        for hook in list(module._load_state_dict_post_hooks.values()):
            if hook(module, keys) is not None:
                raise RuntimeError("a load_state_dict post-hook must edit its argument in place and return None")
