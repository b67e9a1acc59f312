"""Op entries by family. Importing this package fills `core.REGISTRY`."""

from . import (  # noqa: F401
    arith_forms,
    comparison,
    create,
    diagonals,
    fused,
    index,
    int8_cache,
    internal,
    joining,
    matmul,
    nn,
    optim,
    pointwise,
    quant,
    random,
    reduce,
    scan,
    shape,
    sinkhorn,
    softmax_norm,
    sort,
    sparse,
    varlen,
    views,
)
from .core import REGISTRY, OpInfo, Sample

__all__ = ["REGISTRY", "OpInfo", "Sample"]
