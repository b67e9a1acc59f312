"""Random attention modules of several kinds with random inputs: what a case is follows from its number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import deepseek
import numpy as np
from attention import block_references as references
from deepseek.attention import (
    HierarchicalAttention,
    MixtureOfBlockAttention,
    MultiHeadAttention,
    NativeSparseAttention,
)

DTYPES = ("float32", "float64", "bfloat16")
Array = np.ndarray


@dataclass
class ModuleCase:
    number: int
    what: str
    module: Any
    reference: Callable[[Array], Array]  # one sequence [L, dim]
    x: deepseek.Tensor  # [batch, L, dim]
    real: Array  # bool [batch, L]
    chunks: list[int]  # how the sequence is cut
    keywords: dict[str, Any]

    def __str__(self) -> str:
        return (
            f"case {self.number}: {self.what}, {self.x.dtype}, x {list(self.x.shape)}, "
            f"tokens {self.real.sum(1).tolist()}, chunks {self.chunks}"
        )


def pick(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def random_case(number: int, causal: bool = True) -> ModuleCase:
    rng = np.random.default_rng(number)
    deepseek.manual_seed(number)
    dtype = getattr(deepseek, DTYPES[rng.integers(len(DTYPES))])
    key_heads = int(rng.integers(1, 4))
    heads, head_dim = key_heads * int(rng.integers(1, 4)), 2 * int(rng.integers(1, 6))
    dim, batch, length = int(rng.integers(3, 12)), int(rng.integers(1, 4)), int(pick(rng, 1, 2, 17, 40, 70, 100))
    kind = pick(rng, multi_head, block_mixture, native_sparse, hierarchical)
    shared = {"head_dim": head_dim, "rope_theta": pick(rng, None, 100.0, 1e4), "bias": bool(rng.integers(2))}
    module, reference, keywords = kind(rng, causal, dim, heads, key_heads, shared)
    module = module.to(dtype)
    real = np.ones((batch, length), dtype=bool)
    for b in range(batch):
        sort = pick(rng, "none", "none", "left", "right", "holes")
        cut = int(rng.integers(0, length))
        if sort == "left":
            real[b, :cut] = False
        elif sort == "right":
            real[b, length - cut :] = False
        elif sort == "holes":
            real[b] = rng.random(length) < 0.7
    x = deepseek.tensor(rng.normal(size=(batch, length, dim))).to(dtype)
    return ModuleCase(
        number, f"{type(module).__name__} {keywords}", module, reference, x, real, random_chunks(rng, length), keywords
    )


def random_chunks(rng: np.random.Generator, length: int) -> list[int]:
    chunks: list[int] = []
    while sum(chunks) < length:
        chunks.append(min(int(pick(rng, 1, 1, 2, 5, 16, 33, 64)), length - sum(chunks)))
    return chunks


def multi_head(
    rng: np.random.Generator, causal: bool, dim: int, heads: int, key_heads: int, shared: dict[str, Any]
) -> tuple[Any, Callable[[Array], Array], dict[str, Any]]:
    module = MultiHeadAttention(
        dim,
        heads,
        num_key_value_heads=key_heads,
        causal=causal,
        gate=pick(rng, True, False, "softmax"),
        qk_norm=bool(rng.integers(2)),
        **shared,
    )
    return module, lambda x: references.multi_head(module, x, x, x), {}


def block_mixture(
    rng: np.random.Generator, causal: bool, dim: int, heads: int, key_heads: int, shared: dict[str, Any]
) -> tuple[Any, Callable[[Array], Array], dict[str, Any]]:
    module = MixtureOfBlockAttention(
        dim,
        heads,
        key_heads,
        block_size=pick(rng, 16, 32, 48),
        top_k=int(rng.integers(0, 4)),
        shared_selection=bool(rng.integers(2)),
        causal=causal,
        **shared,
    )
    return module, lambda x: references.block_mixture(module, x)[0], {}


def native_sparse(
    rng: np.random.Generator, causal: bool, dim: int, heads: int, key_heads: int, shared: dict[str, Any]
) -> tuple[Any, Callable[[Array], Array], dict[str, Any]]:
    stride = pick(rng, 2, 4, 8)
    initial, local = int(rng.integers(0, 3)), int(rng.integers(1, 3))
    module = NativeSparseAttention(
        dim,
        heads,
        key_heads,
        compress_block=stride * int(rng.integers(1, 5)),
        compress_stride=stride,
        select_block=pick(rng, 16, 32),
        num_selected=initial + local + int(rng.integers(0, 3)),
        num_initial=initial,
        num_local=local,
        window=int(rng.integers(1, 30)),
        shared_projections=bool(rng.integers(2)),
        value_head_dim=pick(rng, None, 3),
        **shared,
    )
    return module, lambda x: references.native_sparse(module, x)[0], {}


def hierarchical(
    rng: np.random.Generator, causal: bool, dim: int, heads: int, key_heads: int, shared: dict[str, Any]
) -> tuple[Any, Callable[[Array], Array], dict[str, Any]]:
    module = HierarchicalAttention(
        dim,
        heads,
        key_heads,
        layer_type=pick(rng, "local", "global", "selected", "task"),
        window=int(rng.integers(1, 40)),
        paragraph=pick(rng, 16, 32),
        top_k=int(rng.integers(0, 3)),
        tasks=["first", "second"],
        causal=causal,
        **shared,
    )
    return module, lambda x: references.hierarchical(module, x, "second"), {"task": "second"}
