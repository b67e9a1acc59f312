"""Finding the routers of a model, and watching what they choose."""

from __future__ import annotations

from typing import Any

from deepseek import Tensor, nn

__all__ = ["enabled_mask", "expert_count", "expert_stacks", "is_router", "named_routers", "router_owners"]


def is_router(module: nn.Module) -> bool:
    """Whether the module chooses experts: it counts them in a buffer ``load`` [experts] and has ``top_k``."""
    load = module._buffers.get("load")
    return load is not None and load.dim() == 1 and hasattr(module, "top_k")


def named_routers(model: nn.Module, caller: str) -> dict[str, Any]:
    """The routers of a model by their names in it, in the order of ``named_modules()``.

    Raises:
        TypeError: not a module.
        ValueError: a model without routers.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{caller}: model must be an nn.Module, got {type(model).__name__}")
    found = {name or "router": module for name, module in model.named_modules() if is_router(module)}
    if not found:
        raise ValueError(
            f"{caller}: {type(model).__name__} has no router, a module with a buffer `load` [experts] and `top_k` such "
            "as deepseek.moe.DynamicRouter"
        )
    return found


def expert_count(router: Any) -> int:
    """The number of experts a router chooses from."""
    return int(router.load.shape[0])


def enabled_mask(router: Any) -> list[bool]:
    """Which experts may be chosen; all, for a router that cannot disable any."""
    enabled: Tensor | None = router._buffers.get("enabled")
    return [True] * expert_count(router) if enabled is None else [bool(value) for value in enabled.tolist()]


def router_owners(model: nn.Module, caller: str) -> dict[str, tuple[Any, Any]]:
    """The routers of a model by name, each with the layer that holds it: ``{name: (layer, router)}``.

    Raises:
        TypeError, ValueError: see :func:`named_routers`; a model that is a router itself has no layer.
    """
    routers = named_routers(model, caller)
    holders = {id(child): module for module in model.modules() for child in module.children() if is_router(child)}
    for name, router in routers.items():
        if id(router) not in holders:
            raise ValueError(f"{caller}: {name!r} is a router without a layer around it; pass the layer or the model")
    return {name: (holders[id(router)], router) for name, router in routers.items()}


def expert_stacks(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The stacked weights ``[experts, …]`` of a layer's routed experts by their names in it, as far as they are
    parameters (quantized ones are not).

    They are what classes of the layer's modules name in ``expert_weights``, as :class:`Experts` does; nothing is
    guessed from shapes.
    """
    return {
        f"{path}.{name}" if path else name: weight
        for path, module in layer.named_modules()
        for name in getattr(type(module), "expert_weights", ())
        if isinstance(weight := getattr(module, name), nn.Parameter)
    }
