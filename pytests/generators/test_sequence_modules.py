"""Attention modules of random settings: in pieces as at once, padded as alone, rewound as never gone on, alone as in a
batch. Bits are compared."""

from __future__ import annotations

import inspect

import deepseek
import numpy as np
import pytest
from cases import cases
from generators.sequence_modules import KINDS, SequenceCase, random_case, random_chunks, run, same

USUAL = 8 * max(1, len(KINDS))


def check_cached(case: SequenceCase, rng: np.random.Generator) -> None:
    cache = case.module.new_cache()
    whole = case.module(case.x)
    same(run(case.module, case.x, cache, case.chunks), whole, f"in chunks {case.chunks}")
    assert cache.length == case.time


def check_rewound(case: SequenceCase, rng: np.random.Generator) -> None:
    far = "rewind" in inspect.signature(case.module.new_cache).parameters
    cache = case.module.new_cache(rewind=int(rng.choice([0, case.time]))) if far else case.module.new_cache()
    other = deepseek.randn(*case.x.shape)
    back = int(rng.integers(0, case.time + 1))
    mixed = deepseek.cat([case.x[:, :back], other[:, back:]], dim=1)
    run(case.module, mixed, cache, case.chunks)
    try:
        cache.truncate(back)
    except ValueError as e:
        assert far and cache.rewind == 0 and "rewind" in str(e), e  # a window says why
        return
    if back == case.time:
        return
    again = run(case.module, case.x[:, back:], cache, random_chunks(rng, case.time - back))
    same(again, case.module(case.x)[:, back:], f"rewound to {back} of {case.time}")


def check_neighbours(case: SequenceCase, rng: np.random.Generator) -> None:
    whole = case.module(case.x)
    b = int(rng.integers(case.x.shape[0]))
    same(case.module(case.x[b : b + 1]), whole[b : b + 1], f"sequence {b} alone")
    threads = deepseek.get_num_threads()
    try:
        deepseek.set_num_threads(1 if threads > 1 else 2)
        same(case.module(case.x), whole, "another number of threads")
    finally:
        deepseek.set_num_threads(threads)


def check_causal(case: SequenceCase, rng: np.random.Generator) -> None:
    if not getattr(case.module, "causal", True):
        return
    cut = int(rng.integers(1, case.time + 1))
    same(case.module(case.x[:, :cut]), case.module(case.x)[:, :cut], f"without what follows token {cut}")


def check_padded(case: SequenceCase, rng: np.random.Generator) -> None:
    batch, time, _ = case.x.shape
    real = np.ones((batch, time), dtype=bool)
    for b in range(batch):
        n = int(rng.integers(0, time + 1))
        sort = rng.integers(3)
        if sort == 0:
            real[b, :n] = False
        elif sort == 1:
            real[b, n:] = False
        else:
            real[b] = rng.random(time) < 0.7
    mask = deepseek.from_numpy(real)
    out = case.module(case.x, attention_mask=mask)
    in_pieces = case.module.new_cache()
    start, parts = 0, []
    for n in case.chunks:
        end = start + n
        parts.append(case.module(case.x[:, start:end], attention_mask=mask[:, :end], cache=in_pieces))
        start = end
    same(deepseek.cat(parts, dim=1), out, f"padded, in chunks {case.chunks}")
    for b in range(batch):
        kept = deepseek.from_numpy(np.flatnonzero(real[b]))
        if real[b].any():
            alone = case.module(case.x[b : b + 1].index_select(1, kept))
            same(out[b : b + 1].index_select(1, kept), alone, f"sequence {b} padded")
        assert (out[b][~mask[b]] == 0).all()


CHECKS = [check_cached, check_rewound, check_neighbours, check_causal, check_padded]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_random_modules(check) -> None:
    for number in cases(USUAL):
        case = random_case(number)
        try:
            with deepseek.no_grad():
                check(case, np.random.default_rng([17, number]))
        except Exception as e:
            raise AssertionError(f"{case}: {e}") from e
