"""Latent attention cut into calls at random, rewound, reordered and padded: the bits of one call without a cache."""

from __future__ import annotations

import deepseek
import numpy as np
from cases import cases
from deepseek.attention import MultiHeadLatentAttention

USUAL = 60
WIDTH = 16


def module(rng: np.random.Generator) -> MultiHeadLatentAttention:
    deepseek.manual_seed(int(rng.integers(1 << 30)))
    picks = rng.random() < 0.6
    return MultiHeadLatentAttention(
        WIDTH,
        int(rng.integers(1, 4)),
        8 if picks or rng.random() < 0.5 else None,
        int(rng.choice([4, 12, 32])),
        int(rng.choice([3, 8])),
        int(rng.choice([2, 8])),
        int(rng.choice([3, 8])),
        rope_interleave=bool(rng.random() < 0.5),
        index_topk=int(rng.choice([1, 3, 8, 40, 600])) if picks else None,
        index_n_heads=int(rng.choice([1, 4])),
        index_head_dim=int(rng.choice([8, 12])),
        index_precision=str(rng.choice(["float", "int8"])),
        absorb=bool(rng.random() < 0.5),
    )


def random_mask(rng: np.random.Generator, batch: int, time: int) -> np.ndarray | None:
    kind = rng.choice(["none", "left", "right", "holes"])
    lengths = rng.integers(1, time + 1, batch)
    if kind == "none":
        return None
    if kind == "holes":
        return rng.random((batch, time)) < 0.7
    return np.stack([np.arange(time) >= time - n if kind == "left" else np.arange(time) < n for n in lengths])


def check(number: int) -> None:
    rng = np.random.default_rng(number)
    one = module(rng)
    batch, time = int(rng.integers(1, 4)), int(rng.choice([1, 7, 25, 60, 650]))
    x, mask = deepseek.randn(batch, time, WIDTH), random_mask(rng, batch, time)
    real = None if mask is None else deepseek.tensor(mask)

    def part(a: int, b: int) -> deepseek.Tensor | None:
        return None if real is None else real[:, a:b]

    want = one(x, attention_mask=real)
    cache, done, got = one.new_cache(), 0, deepseek.zeros(batch, time, WIDTH)
    rewinds = int(rng.integers(0, 4))
    while done < time:
        n = int(rng.choice([1, 1, 2, 7, 40, 300]))
        end = min(time, done + n)
        got[:, done:end] = one(x[:, done:end], attention_mask=part(done, end), cache=cache)
        done = end
        if rewinds and rng.random() < 0.5:
            rewinds -= 1
            done = int(rng.integers(0, done + 1))
            kept = [done] * batch if mask is None else mask[:, :done].sum(1).tolist()
            cache.truncate(kept if cache.is_split else done)
            if rng.random() < 0.5:
                cache.reorder(list(range(batch)))
    assert (got == want).all(), f"{one}, {batch} x {time}, mask {mask}"


def test_random_latent_attention() -> None:
    with deepseek.no_grad():
        for number in cases(USUAL):
            try:
                check(number)
            except Exception as e:
                raise AssertionError(f"case {number}") from e
