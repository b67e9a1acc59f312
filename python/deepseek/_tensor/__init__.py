"""What Python adds to Tensor, one file per purpose: ``@method`` marks what install() attaches to the C type."""

# ruff: noqa: F401  (importing them is what registers their methods)

from deepseek._tensor import (
    conversion,
    copying,
    gradients,
    indexing,
    inplace_views,
    new_tensors,
    protocols,
    storage,
)
