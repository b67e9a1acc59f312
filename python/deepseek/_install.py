"""Attaches to Tensor what Python adds to it: methods, properties, and second names."""

from __future__ import annotations

import sys

from deepseek import (
    _C,
    _aliases,
    _composites,
    _einsum,
    _functions,
    _inplace_views,
    _missing,
    _tensor,
    _top,
    _torch_function,
    _torch_tensor,
    _unique,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Functions of _functions.py and _composites.py that are methods too.
FUNCTION_METHODS = (
    "adjoint", "allclose", "argwhere", "bincount", "clamp_max", "clamp_max_", "clamp_min", "clamp_min_", "diag",
    "diag_embed", "diff", "dist", "equal", "fliplr", "flipud", "float_power", "inner", "is_complex", "is_nonzero",
    "nanmean", "nansum", "nonzero", "norm", "positive", "ravel", "rot90", "split", "split_with_sizes", "std",
    "swapaxes", "swapdims", "tensor_split", "trace", "var",
)  # fmt: skip


def shown_ops() -> list[str]:
    """Ops to show as ``deepseek.<name>`` just as the core gives them."""
    wrapped = {name for module in (_composites, _einsum, _functions, _top, _unique) for name in module.__all__}
    return sorted(name for name in _C._functions if name not in wrapped)


def methods() -> dict[str, Any]:
    """Every method written in Python, by its name."""
    found: dict[str, Any] = {}
    for name in FUNCTION_METHODS:
        found[name] = getattr(_functions, name, None) or getattr(_composites, name)
    for name in _unique.__all__:
        found[name] = getattr(_unique, name)
    return {**found, **_inplace_views.METHODS, **_tensor.METHODS}


def aliases() -> dict[str, str]:
    """Second name of a method -> the method's own name."""
    ops = {name: op.__name__ for name, op in vars(_aliases).items() if type(op) is type(_C.add)}
    return {alias: name for alias, name in ops.items() if hasattr(_C.Tensor, name)}


def _signature(op: Any) -> Any:
    from deepseek._signatures import signature_of  # needs inspect

    return signature_of(op.__name__)


class _Documentation:
    """``__doc__`` of ops and their methods."""

    def __get__(self, op: Any, owner: Any) -> str:
        if op is None:
            return "An op of the table, as a function or a method."
        from deepseek._signatures import documentation_of

        return documentation_of(op.__name__)


class _TensorSignature:
    """``inspect.signature(Tensor)``, and not that of its subclasses."""

    def __get__(self, instance: object, owner: Any) -> Any:
        if owner is not _C.Tensor:
            raise AttributeError("__signature__")
        import inspect

        data = inspect.Parameter("data", inspect.Parameter.POSITIONAL_ONLY, default=())
        return inspect.Signature([data])


def install() -> None:
    """Called once, by the package."""
    if _missing.ModuleFinder not in sys.meta_path:  # not again when the package is reloaded
        sys.meta_path.append(_missing.ModuleFinder)
    _C.__all__ = shown_ops()
    kind: Any = _C.Tensor
    for name, method in methods().items():
        setattr(kind, name, method)
    for name, getter in _tensor.PROPERTIES.items():
        setattr(kind, name, property(getter))
    for name, value in _tensor.CONSTANTS.items():
        setattr(kind, name, value)
    kind.__torch_function__ = classmethod(_torch_function.usual)
    for alias, name in aliases().items():
        setattr(kind, alias, getattr(kind, name))
    function: Any = type(_C.add)
    # inspect and help() take what has __get__ for a function; as a class attribute it stays unbound, as built-ins do.
    function.__get__ = lambda op, instance, owner=None: op
    for op_type in (function, type(kind.add)):
        op_type.__signature__ = property(_signature)
        op_type.__doc__ = _Documentation()
    kind.__signature__ = _TensorSignature()
    present, names = vars(kind), kind.__base__
    for name in _torch_tensor.TENSOR_NAMES.split():
        if name not in present:
            setattr(names, name, _missing.NotYet("Tensor", name))
    metatype: Any = _C._TensorType
    metatype.__dir__ = _missing.without_missing
