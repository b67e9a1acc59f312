"""DynamicSparseAttention with a cache, its input cut anywhere, gives the bits of one call without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import deepseek
import numpy as np
from cases import cases
from deepseek.attention import DynamicSparseAttention

USUAL = 40


@dataclass(frozen=True)
class Case:
    number: int
    batch: int
    time: int
    chunks: tuple[int, ...]
    rewinds: tuple[int, ...]  # after each chunk so many tokens are forgotten and given again
    dtype: str
    settings: dict[str, Any]


def random_case(number: int) -> Case:
    rng = np.random.default_rng(number)
    time = int(rng.choice([1, 17, 90, 200, 700]))
    chunks, left = [], time
    while left:
        chunks.append(int(min(left, rng.choice([1, 1, 2, 15, 16, 17, 64, 300]))))
        left -= chunks[-1]
    budget: dict[str, Any] = [
        {"sparsity_ratio": float(rng.choice([0.1, 0.5]))},
        {"max_keys": int(rng.choice([1, 16, 50, 128]))},
        {"max_keys": 96, "mass": 1.0},
        {"mass": float(rng.choice([0.3, 0.9]))},
    ][rng.integers(4)]
    groups = int(rng.choice([1, 2, 4, 16]))
    key_heads = int(rng.integers(1, 3))
    settings = budget | {
        "dim": 24,
        "num_heads": groups * key_heads,
        "num_key_value_heads": key_heads,
        "head_dim": int(rng.choice([8, 20])),
        "block_size": int(rng.choice([16, 32, 64])),
        "selector": str(rng.choice(["blocks", "blocks", "indexer"])),
        "rope_theta": [None, 1000.0][rng.integers(2)],
    }
    return Case(
        number,
        int(rng.integers(1, 3)),
        time,
        tuple(chunks),
        tuple(int(rng.integers(0, 40)) if rng.random() < 0.2 else 0 for _ in chunks),
        str(rng.choice(["float32", "bfloat16", "float64"])),
        settings,
    )


def check(case: Case) -> None:
    deepseek.manual_seed(case.number)
    dtype = getattr(deepseek, case.dtype)
    attention = DynamicSparseAttention(causal=True, **case.settings).to(dtype)
    x = deepseek.randn(case.batch, case.time, 24).to(dtype)
    with deepseek.no_grad():
        whole, cache, at = attention(x), attention.new_cache(), 0
        for chunk, rewind in zip(case.chunks, case.rewinds, strict=True):
            out = attention(x[:, at : at + chunk], cache=cache)
            assert (out == whole[:, at : at + chunk]).all(), (at, chunk)
            at += chunk
            back = min(rewind, at)
            if back:
                cache.truncate(at - back)
                again = attention(x[:, at - back : at], cache=cache)
                assert (again == whole[:, at - back : at]).all(), ("again", at, back)
        assert cache.length == case.time


def test_cached_is_uncached() -> None:
    for number in cases(USUAL):
        case = random_case(number)
        try:
            check(case)
        except Exception as e:
            raise AssertionError(str(case)) from e
