"""What the package and Tensor show: ops of the table, Python functions, and PyTorch's second names for both."""

from __future__ import annotations

from deepseek import _C, _functions, _tensor, _unique

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# PyTorch's other name -> the name of the op. In-place forms and methods follow where the op has them.
ALIASES = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "fix": "trunc",
    "ger": "outer",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "moveaxis": "movedim",
    "multiply": "mul",
    "negative": "neg",
    "not_equal": "ne",
    "row_stack": "vstack",
    "subtract": "sub",
    "true_divide": "div",
}
# Functions of _functions.py and _unique.py that are methods too.
FUNCTION_METHODS = (
    "allclose", "argwhere", "clamp_max", "clamp_min", "diag", "diag_embed", "equal", "fliplr", "flipud", "is_complex",
    "is_nonzero", "nonzero", "norm", "ravel", "split", "split_with_sizes", "std", "swapaxes", "swapdims",
    "tensor_split", "trace", "unique", "unique_consecutive", "var",
)  # fmt: skip
FUNCTIONS_ONLY = (
    "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_shapes", "broadcast_tensors", "cartesian_prod", "column_stack",
    "dstack", "hstack", "is_floating_point", "is_tensor", "logspace", "meshgrid", "numel", "rsub", "scalar_tensor",
    "std_mean", "tensordot", "var_mean", "vstack", "where",
)  # fmt: skip


def functions() -> dict[str, Any]:
    """Every function to show as ``deepseek.<name>``."""
    shown: dict[str, Any] = {name: getattr(_C, name) for name in _C._functions}
    for name in (*FUNCTION_METHODS, *FUNCTIONS_ONLY):
        shown[name] = getattr(_unique if name.startswith("unique") else _functions, name)
    for alias, name in ALIASES.items():
        for suffix in ("", "_"):
            if name + suffix in shown:
                shown[alias + suffix] = shown[name + suffix]
    return shown


def install_methods(shown: dict[str, Any]) -> None:
    """Attaches the Python-written methods, properties and second names to Tensor."""
    kind: Any = _C.Tensor
    for name in FUNCTION_METHODS:
        setattr(kind, name, shown[name])
    for name, method in _tensor.METHODS.items():
        setattr(kind, name, method)
    for name, getter in _tensor.PROPERTIES.items():
        setattr(kind, name, property(getter))
    for name, value in _tensor.CONSTANTS.items():
        setattr(kind, name, value)
    for alias, name in ALIASES.items():
        for suffix in ("", "_"):
            if hasattr(kind, name + suffix):
                setattr(kind, alias + suffix, getattr(kind, name + suffix))
