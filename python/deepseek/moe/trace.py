"""A record of which experts tokens were sent to, for choosing experts and for placing them."""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deepseek import Tensor, cat, nn
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._routers import expert_count, named_routers


@public
@dataclass
class LayerTrace:
    """What one router chose.

    Attributes:
        num_experts: experts the router chooses from.
        indices: int64 ``[tokens, top_k]``; a slot without an expert (padding, hash routing's none) is negative.
        weights: ``[tokens, top_k]``, the gate values the experts' outputs were multiplied by.
    """

    num_experts: int
    indices: Tensor
    weights: Tensor


@dataclass
class _Parts:
    router: Any
    num_experts: int
    indices: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)


@public
class RoutingTrace(Mapping[str, LayerTrace]):
    """Records what the routers of a model choose while it is open, in training and in evaluation.

        with RoutingTrace(model) as trace, deepseek.no_grad():
            for batch in data:
                model(batch)
        trace["layers.3.mlp.gate"].indices     # int64 [tokens, top_k]

    A mapping from the routers' names in the model to :class:`LayerTrace`. Tokens are in the order of the calls.

    Args:
        model: any module whose routers return ``(weights, indices, ...)`` as :class:`DynamicRouter` does.

    Raises:
        TypeError: not a module.
        ValueError: a model without routers.
        RuntimeError: on leaving, if a router was never called; while recording, if one returns something else, or
            changes its ``top_k``.
    """

    def __init__(self, model: nn.Module) -> None:
        self._routers = named_routers(model, "RoutingTrace")
        self._parts = {name: _Parts(router, expert_count(router)) for name, router in self._routers.items()}
        self._layers: dict[str, LayerTrace] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> RoutingTrace:
        for name, router in self._routers.items():
            self._handles.append(router.register_forward_hook(self._recorder(name)))
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if kind is None:
            self._layers = {name: self._joined(name, parts) for name, parts in self._parts.items()}

    def _recorder(self, name: str) -> Any:
        parts = self._parts[name]

        def record(router: Any, args: Any, output: Any) -> None:
            if not isinstance(output, tuple) or len(output) < 2:
                raise RuntimeError(
                    f"RoutingTrace: router {name!r} must return (weights, indices, ...), got {type(output).__name__}"
                )
            weights, indices = output[0].detach(), output[1].detach()
            slots = indices.shape[-1]
            if parts.indices and parts.indices[0].shape[1] != slots:
                raise RuntimeError(
                    f"RoutingTrace: router {name!r} chose {parts.indices[0].shape[1]} experts a token before and "
                    f"{slots} now; record a model whose top_k stays"
                )
            parts.indices.append(indices.reshape(-1, slots).clone())
            parts.weights.append(weights.reshape(-1, slots).clone())

        return record

    @staticmethod
    def _joined(name: str, parts: _Parts) -> LayerTrace:
        if not parts.indices:
            raise RuntimeError(f"RoutingTrace: router {name!r} was not called while the trace was open")
        return LayerTrace(parts.num_experts, cat(parts.indices), cat(parts.weights))

    def __getitem__(self, name: str) -> LayerTrace:
        return self._layers[name]

    def __iter__(self) -> Any:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


guard(__name__)
