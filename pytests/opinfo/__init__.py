"""Op entries by family. Importing this package fills `core.REGISTRY`."""

from . import (  # noqa: F401
    comparison,
    create,
    fused,
    index,
    int8_cache,
    internal,
    matmul,
    nn,
    optim,
    pointwise,
    quant,
    random,
    reduce,
    shape,
    sinkhorn,
    softmax_norm,
    sort,
    sparse,
    varlen,
)
from .core import REGISTRY, OpInfo, Sample

__all__ = ["REGISTRY", "OpInfo", "Sample"]
