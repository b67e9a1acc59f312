"""Caches: what was appended comes back, memory grows by doubling, a window forgets, rewinding and reordering."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from deepseek.attention import DenseCache, LatentCache, MultiHeadAttention, QuantizedCache, SlidingCache
from deepseek.attention.caches.stream import CHUNK, Stream
from deepseek.nn import functional as F


def rows(time: int, batch: int = 2, heads: int = 3, width: int = 4, start: int = 0) -> deepseek.Tensor:
    """Row t of every head is the number start + t."""
    numbers = deepseek.arange(start, start + time, dtype=deepseek.float32).reshape(1, 1, -1, 1)
    return numbers.expand(batch, heads, time, width).contiguous()


def numbers(tensor: deepseek.Tensor) -> list[int]:
    return [int(n) for n in tensor[0, 0, :, 0].tolist()]


@pytest.mark.parametrize("chunks", [[1] * 70, [70], [1, 64, 5], [5, 0, 65]])
def test_a_stream_returns_all_rows_and_doubles(chunks):
    stream, capacities = Stream(), set()
    with deepseek.no_grad():
        for n in chunks:
            all_rows, first = stream.append(rows(n, start=stream.length))
            assert first == 0
            assert numbers(all_rows) == list(range(stream.length))
            capacities.add(stream._data.shape[-2])
    assert stream.length == 70
    assert len(capacities) <= 3
    assert stream.nbytes == 70 * 2 * 3 * 4 * 4 <= stream.allocated


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("rewind", [0, 100])
def test_a_window_forgets_in_whole_chunks(grad, rewind):
    stream = Stream(128, rewind)
    rng = np.random.default_rng(0)
    with deepseek.set_grad_enabled(grad):
        for n in [3000, *rng.integers(1, 40, 120).tolist(), 2000, 1, 1]:
            before = stream.length
            held, first = stream.append(rows(n, start=before))
            assert first % CHUNK == 0
            assert first <= max(0, before - 128)
            assert numbers(held) == list(range(first, stream.length))
            assert stream.allocated <= 2 * 3 * 4 * 4 * (2 * (128 + rewind + CHUNK) + CHUNK)
    stream.truncate(stream.length - rewind)
    with pytest.raises(ValueError, match="make the cache with a larger rewind"):
        stream.truncate(500)


def test_rewound_and_refilled_gives_the_same():
    cache, fresh = DenseCache(), DenseCache()
    with deepseek.no_grad():
        cache.append(rows(10), rows(10))
        cache.append(rows(7, start=90), rows(7, start=90))
        cache.truncate(12)
        assert numbers(cache.append(rows(3, start=5), rows(3)).keys) == [*range(10), 90, 91, 5, 6, 7]
        fresh.append(rows(10), rows(10))
    with pytest.raises(ValueError, match="cannot truncate to 11 tokens, there are 10"):
        fresh.truncate(11)


def test_gradients_flow_through_a_stream():
    stream = Stream()
    first, second = (rows(2, start=s).requires_grad_() for s in (0, 2))
    stream.append(first)
    held, _ = stream.append(second)
    held.sum().backward()
    assert (first.grad == 1).all()
    assert (second.grad == 1).all()


def test_appending_never_changes_what_backward_needs():
    cache = DenseCache()
    q = deepseek.randn(2, 3, 1, 4, requires_grad=True)
    losses = []
    for t in range(3):
        held = cache.append(rows(1, start=t), rows(1, start=t))
        losses.append(F.attention(q, held.keys, held.values).sum())
    sum(losses).backward()
    assert q.grad is not None


def test_reorder_and_split():
    cache = LatentCache()
    latents = deepseek.arange(12, dtype=deepseek.float32).reshape(3, 2, 2)
    with deepseek.no_grad():
        cache.append(latents)
        cache.reorder([2, 0])
        assert (cache.append(latents[:2])[:, :2] == latents[[2, 0]]).all()
        two = cache.by_sequence(2)[1]
        two.append(latents[:1])
    assert cache.is_split
    assert cache.lengths == [4, 6]
    assert cache.length == 6
    cache.reorder([1, 1, 0])
    assert cache.lengths == [6, 6, 4]
    cache.truncate([5, 6, 0])
    assert cache.lengths == [5, 6, 0]
    for wrong in ([0, -1], [3]):
        with pytest.raises(IndexError, match="holds sequences 0 to 2, got"):
            cache.reorder(wrong)
    for wrong, error in (([0.0], TypeError), (deepseek.ones(3), TypeError), (deepseek.tensor(1), RuntimeError)):
        with pytest.raises(error):
            cache.reorder(wrong)
    with pytest.raises(ValueError, match="holds 3 sequences, got 2"):
        cache.by_sequence(2)


def test_a_cache_refuses_another_batch_or_dtype():
    cache = DenseCache()
    cache.append(rows(2), rows(2))
    with pytest.raises(ValueError, match="use a new cache for another batch"):
        cache.append(rows(1, batch=3), rows(1, batch=3))
    with pytest.raises(ValueError, match="float64"):
        cache.append(rows(1).double(), rows(1).double())


@pytest.mark.parametrize("dtype", ["int8", "fp8"])
def test_quantized_caches_hold_a_quarter_and_decode_as_they_prefill(dtype):
    deepseek.manual_seed(0)
    q, k, v = (deepseek.randn(2, h, 40, 16) for h in (4, 2, 2))

    def attend(cache, begin, end):
        held = cache.append(k[:, :, begin:end], v[:, :, begin:end])
        return F.attention(
            q[:, :, begin:end],
            held.keys,
            held.values,
            key_scale=held.key_scale,
            value_scale=held.value_scale,
            is_causal=True,
            enable_gqa=True,
            query_start=begin,
        )

    with deepseek.no_grad():
        cache = QuantizedCache(dtype)
        whole = attend(cache, 0, 40)
        steps = QuantizedCache(dtype)
        parts = [attend(steps, 0, 17), *(attend(steps, t, t + 1) for t in range(17, 40))]
        exact = F.attention(q, k, v, is_causal=True, enable_gqa=True)
    assert (deepseek.cat(parts, dim=2) == whole).all()
    assert (whole - exact).abs().max() < (0.05 if dtype == "int8" else 0.2)
    assert cache.nbytes == 2 * 2 * 40 * (16 + 16 + 4 + 4)
    with pytest.raises(RuntimeError, match="no gradients"):
        cache.append(k.requires_grad_(), v)


def test_bad_settings():
    with pytest.raises(ValueError, match="window must be positive"):
        SlidingCache(0)
    with pytest.raises(ValueError, match="'int8' or 'fp8'"):
        QuantizedCache("int4")


def test_a_cache_never_writes_into_what_it_was_given():
    cache, keys = DenseCache(), rows(5)
    before = keys.clone()
    cache.append(keys, rows(5))  # with gradients recorded: joined, not copied
    cache.truncate(2)
    with deepseek.no_grad():
        held = cache.append(rows(1, start=9), rows(1)).keys
    assert (keys == before).all()
    assert numbers(held) == [0, 1, 9]


def test_what_does_not_fit_changes_nothing():
    cache = DenseCache()
    cache.append(rows(5), rows(5))
    for keys, values, text in ((rows(3), rows(3, width=5), "holds rows of shape"), (rows(3), rows(2), "same tokens")):
        with pytest.raises(ValueError, match=text):
            cache.append(keys, values)
        assert cache.length == 5
        assert cache.append(rows(0), rows(0)).values.shape[-2] == 5


def test_a_split_cache_rewinds_all_sequences_or_none():
    cache = SlidingCache(4)
    with deepseek.no_grad():
        one, two = cache.by_sequence(2)
        one.append(rows(10, batch=1), rows(10, batch=1))
        two.append(rows(3000, batch=1), rows(3000, batch=1))
        two.append(rows(1, batch=1), rows(1, batch=1))
        with pytest.raises(ValueError, match="larger rewind"):
            cache.truncate([5, 20])
    assert cache.lengths == [10, 3001]
    cache.truncate([np.int64(5), 3001])
    assert cache.lengths == [5, 3001]


@pytest.mark.parametrize("mask", [[3, 1, 9, 9], [3, 9, 9]])
def test_a_refused_mask_leaves_the_cache_as_it_was(mask):
    attention, x = MultiHeadAttention(16, 2, causal=True), deepseek.randn(3, 5, 16)
    cache = attention.new_cache()
    attention(x, cache=cache)
    with pytest.raises(RuntimeError, match="or pairs"):
        attention(x, attention_mask=deepseek.ones(*mask, dtype=deepseek.bool), cache=cache)
    assert cache.length == 5
