"""Finding the routers of a model, and watching what they choose."""

from __future__ import annotations

from typing import Any

from deepseek import Tensor, nn

__all__ = ["enabled_mask", "expert_count", "is_router", "named_routers"]


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
