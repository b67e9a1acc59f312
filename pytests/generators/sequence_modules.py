"""Attention modules of random settings, and what must hold for each: the cache, padding, rewinding, neighbours.

A kind is a function of a random generator that makes a module. To check a new module, add a line to KINDS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import deepseek
import numpy as np
from deepseek import attention as A

Rng = np.random.Generator


def pick(rng: Rng, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def heads(rng: Rng) -> dict[str, Any]:
    """Keywords of a module with dim 32."""
    query, key = pick(rng, (1, 1), (2, 1), (4, 2), (4, 4))
    return {"dim": 32, "num_heads": query, "num_key_value_heads": key, "rope_theta": pick(rng, None, 10000.0)}


def multi_head(rng: Rng) -> Any:
    settings = heads(rng)
    del settings["dim"], settings["num_heads"]
    temperature = pick(rng, None, A.HeadTemperature(4), A.LengthTemperature(4))
    return A.MultiHeadAttention(
        32, 4, causal=True, gate=pick(rng, True, False, "softmax"), temperature=temperature,
        qk_norm=pick(rng, True, False), **{**settings, "num_key_value_heads": pick(rng, 1, 2, 4)},
    )  # fmt: skip


def block_mixture(rng: Rng) -> Any:
    return A.MixtureOfBlockAttention(
        **heads(rng),
        block_size=pick(rng, 16, 32),
        top_k=pick(rng, 0, 1, 2, 100),
        shared_selection=pick(rng, True, False),
    )


def native_sparse(rng: Rng) -> Any:
    stride = pick(rng, 4, 8, 16)
    return A.NativeSparseAttention(
        **heads(rng), compress_block=stride * pick(rng, 1, 2), compress_stride=stride, select_block=pick(rng, 16, 32),
        num_selected=pick(rng, 3, 4, 50), num_local=pick(rng, 1, 2), window=pick(rng, 1, 16, 100),
        shared_projections=pick(rng, True, False),
    )  # fmt: skip


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0, "mscale_all_dim": 0.8}


def latent(rng: Rng) -> Any:
    return A.MultiHeadLatentAttention(
        32, pick(rng, 1, 3), q_lora_rank=pick(rng, None, 12), kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4,
        v_head_dim=pick(rng, 8, 10), rope_scaling=pick(rng, None, YARN), rope_interleave=pick(rng, True, False),
        absorb=pick(rng, True, False),
    )  # fmt: skip


def latent_indexed(rng: Rng) -> Any:
    return A.MultiHeadLatentAttention(
        32, pick(rng, 1, 3), q_lora_rank=12, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8,
        index_topk=pick(rng, 1, 7, 40, 500), index_n_heads=2, index_head_dim=8, absorb=pick(rng, True, False),
    )  # fmt: skip


def compressed(rng: Rng) -> Any:
    return A.CompressedAttention(
        32, 4, pick(rng, "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"),
        head_dim=16, qk_rope_head_dim=4, q_lora_rank=8, o_lora_rank=6, o_groups=2, sliding_window=pick(rng, 1, 8, 50),
        compress_ratio=None, index_n_heads=2, index_head_dim=8, index_topk=pick(rng, 1, 5, 100),
    )  # fmt: skip


def dynamic(rng: Rng) -> Any:
    settings = heads(rng)
    budget = pick(
        rng, {"sparsity_ratio": 0.3}, {"max_keys": 1}, {"max_keys": 40}, {"max_keys": 64, "mass": 0.7}, {"mass": 0.9}
    )
    return A.DynamicSparseAttention(
        **settings, **budget, block_size=pick(rng, 16, 32), selector=pick(rng, "blocks", "blocks", "indexer"),
        causal=True, index_n_heads=2, index_head_dim=8,
    )  # fmt: skip


def hierarchical(rng: Rng) -> Any:
    return A.HierarchicalAttention(
        **heads(rng), layer_type=pick(rng, "local", "global", "selected"), window=pick(rng, 16, 32, 64),
    )  # fmt: skip


KINDS: dict[str, Callable[[Rng], Any]] = {
    "block_mixture": block_mixture,
    "compressed": compressed,
    "dynamic": dynamic,
    "hierarchical": hierarchical,
    "latent": latent,
    "latent_indexed": latent_indexed,
    "multi_head": multi_head,
    "native_sparse": native_sparse,
}


@dataclass
class SequenceCase:
    """One module with its input. ``repr`` says how to make it again."""

    kind: str
    number: int
    module: Any = field(repr=False)
    x: deepseek.Tensor = field(repr=False)
    chunks: list[int]

    @property
    def time(self) -> int:
        return self.x.shape[1]


def random_case(number: int) -> SequenceCase:
    rng = np.random.default_rng([16, number])
    kind = sorted(KINDS)[number % len(KINDS)]
    deepseek.manual_seed(number)
    module = KINDS[kind](rng)
    batch = int(rng.integers(1, 4))
    time = int(rng.choice([1, 2, 17, 64, 65, 130, 200]))
    x = deepseek.randn(batch, time, module.width)
    return SequenceCase(kind, number, module, x, random_chunks(rng, time))


def random_chunks(rng: Rng, time: int) -> list[int]:
    """Lengths that add up to ``time``, single tokens among them."""
    chunks: list[int] = []
    while (left := time - sum(chunks)) > 0:
        chunks.append(min(left, 1 if rng.random() < 0.4 else int(rng.integers(1, time + 1))))
    return chunks


def run(module: Any, x: deepseek.Tensor, cache: Any, chunks: list[int]) -> deepseek.Tensor:
    """The outputs of ``x`` given in pieces, joined."""
    parts, start = [], 0
    for n in chunks:
        parts.append(module(x[:, start : start + n], cache=cache))
        start += n
    return deepseek.cat(parts, dim=1)


def same(a: deepseek.Tensor, b: deepseek.Tensor, what: str) -> None:
    assert a.shape == b.shape, what
    assert bool(deepseek.isfinite(a).all()), f"{what}: not finite"
    equal = bool((a == b).all())
    assert equal, f"{what}: largest difference {float((a - b).abs().max())}"
