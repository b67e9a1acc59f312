"""MultiHeadAttention: the source's call, gates, masks, cross attention, temperatures, cache, bad input."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from attention.block_references import multi_head
from deepseek.attention import (
    DenseCache,
    HeadTemperature,
    LatentCache,
    LengthTemperature,
    MultiHeadAttention,
    QuantizedCache,
    SlidingCache,
)
from deepseek.autograd import gradcheck
from deepseek.nn import functional as F

f64 = deepseek.float64


def numbers(*shape: int, seed: int = 0) -> deepseek.Tensor:
    return deepseek.tensor(np.random.default_rng(seed).normal(size=shape))


def close(got: deepseek.Tensor, want: np.ndarray, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=0, atol=atol)


def test_the_source_call_keeps_batch_and_width():
    """C12: the source summed the batch and the heads away."""
    m = MultiHeadAttention(d_model=512, n_heads=8)
    Q, K, V = deepseek.randn(2, 10, 512), deepseek.randn(2, 7, 512), deepseek.randn(2, 7, 512)
    assert list(m(Q, K, V).shape) == [2, 10, 512]
    assert m.causal is False
    assert m.gate.weight.shape == (8, 512)  # of the token, not of the d_k features of a head


@pytest.mark.parametrize("gate", [True, False, "softmax"])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_cross_attention(gate, key_heads):
    m = MultiHeadAttention(
        12, 4, num_key_value_heads=key_heads, gate=gate, qk_norm=key_heads == 2, bias=True, dtype=f64
    )
    Q, K, V = numbers(2, 5, 12), numbers(2, 9, 12, seed=1), numbers(2, 9, 12, seed=2)
    out = m(Q, K, V)
    for b in range(2):
        close(out[b], multi_head(m, Q[b].numpy(), K[b].numpy(), V[b].numpy()))


def test_the_gate_is_that_of_the_query_token():
    m = MultiHeadAttention(8, 2, dtype=f64)
    Q, K = numbers(1, 3, 8), numbers(1, 4, 8, seed=1)
    plain = MultiHeadAttention(8, 2, gate=False, dtype=f64)
    plain.load_state_dict({k: v for k, v in m.state_dict().items() if not k.startswith("gate")})
    m.out_proj.weight.data.copy_(deepseek.eye(8))
    plain.out_proj.weight.data.copy_(deepseek.eye(8))
    gates = deepseek.sigmoid(m.gate(Q)).repeat_interleave(4, dim=-1)
    close(m(Q, K), (plain(Q, K) * gates).detach().numpy())


def test_equal_weights_over_heads_change_nothing():
    m, plain = (MultiHeadAttention(8, 2, gate=g, dtype=f64) for g in ("softmax", False))
    plain.load_state_dict({k: v for k, v in m.state_dict().items() if not k.startswith("gate")})
    m.gate.weight.data.zero_(), m.gate.bias.data.zero_()
    x = numbers(2, 5, 8)
    close(m(x), plain(x).detach().numpy())


def test_without_gate_it_is_plain_attention_bit_for_bit():
    m = MultiHeadAttention(32, 4, gate=False)
    x = deepseek.randn(2, 50, 32)
    q, k, v = (p(x).unflatten(-1, (4, 8)).transpose(1, 2) for p in (m.query_proj, m.key_proj, m.value_proj))
    want = m.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
    assert (m(x) == want).all()
    assert (m(x, x, x) == want).all()


@pytest.mark.parametrize("temperature", [HeadTemperature, LengthTemperature])
@pytest.mark.parametrize("causal", [False, True])
def test_temperatures(temperature, causal):
    m = MultiHeadAttention(8, 4, causal=causal, temperature=temperature(4)).double()
    with deepseek.no_grad():
        for p in m.temperature.parameters():
            p.copy_(deepseek.tensor([0.1, 0.3, -0.2, 0.5]))
    x = numbers(1, 9, 8)
    close(m(x)[0], multi_head(m, *[x[0].numpy()] * 3), atol=1e-7)
    m(x).sum().backward()
    assert all((p.grad != 0).any() for p in m.temperature.parameters())


def test_masks_of_pairs(monkeypatch):
    m = MultiHeadAttention(8, 2, num_key_value_heads=1, dtype=f64)
    Q, K = numbers(2, 5, 8), numbers(2, 7, 8, seed=1)
    mask = np.random.default_rng(3).random((2, 2, 5, 7)) < 0.5
    mask[1, 0, 2] = False  # a query that sees no key
    out = m(Q, K, attention_mask=deepseek.tensor(mask))
    added = deepseek.where(deepseek.tensor(mask), 0.0, -np.inf).double()
    assert (m(Q, K, attention_mask=added) == out).all()
    monkeypatch.setattr("deepseek.attention._pieces.QUERIES_AT_ONCE", 2)
    with deepseek.no_grad():
        assert (m(Q, K, attention_mask=added) == out).all()
    for b in range(2):
        want = multi_head(m, Q[b].numpy(), *[K[b].numpy()] * 2, sees=lambda h, t, s, b=b: mask[b, h, t, s])
        close(out[b], want)


@pytest.mark.parametrize("side", ["left", "right", "holes"])
def test_padding_of_keys_equals_leaving_them_out(side):
    m = MultiHeadAttention(16, 2, rope_theta=100.0)
    Q, K, V = deepseek.randn(3, 4, 16), deepseek.randn(3, 20, 16), deepseek.randn(3, 20, 16)
    real = deepseek.ones(3, 20, dtype=deepseek.bool)
    real[1] = deepseek.arange(20) >= 6 if side == "left" else deepseek.arange(20) < 13
    if side == "holes":
        real[1, 5] = False
    real[2] = False  # no key at all
    out = m(Q, K, V, attention_mask=real)
    kept = real[1].nonzero().squeeze(-1)
    assert (out[1:2] == m(Q[1:2], K[1:2, kept], V[1:2, kept])).all()
    assert (out[0] == m(Q, K, V)[0]).all()
    assert (out[2] == 0).all()


def test_self_attention_drops_padding():
    m = MultiHeadAttention(16, 2)
    x = deepseek.randn(2, 6, 16)
    real = deepseek.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    out = m(x, attention_mask=real)
    assert (out[0, 2:] == m(x[:1, 2:])[0]).all()
    assert (out[1, :4] == m(x[1:, :4])[0]).all()
    assert (out[0, :2] == 0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_gradients(causal):
    m = MultiHeadAttention(4, 2, num_key_value_heads=1, causal=causal, rope_theta=10.0, qk_norm=True, dtype=f64)
    Q, K, V = (numbers(1, 3, 4, seed=i).requires_grad_() for i in range(3))
    assert gradcheck(lambda *a: m(*a[:3]), [Q, K, V, *m.parameters()])
    assert gradcheck(lambda x: m(x), [Q])


def test_cached_in_chunks_is_the_whole_with_masks_of_pairs():
    m = MultiHeadAttention(16, 2, causal=True, rope_theta=1e4)
    x = deepseek.randn(2, 30, 16)
    mask = deepseek.rand(2, 1, 30, 30) < 0.7
    want, cache, begin, outs = m(x, attention_mask=mask), m.new_cache(), 0, []
    for n in (1, 7, 1, 21):
        end = begin + n
        outs.append(m(x[:, begin:end], attention_mask=mask[:, :, begin:end, :end], cache=cache))
        begin = end
    assert (deepseek.cat(outs, dim=1) == want).all()


@pytest.mark.parametrize("dtype", ["int8", "fp8"])
def test_decoding_with_a_quantized_cache(dtype):
    """The bits of a prefill with such a cache, and near to attention without."""
    m, x = MultiHeadAttention(32, 4, num_key_value_heads=2, causal=True, rope_theta=1e4), deepseek.randn(2, 40, 32)
    whole, cache = QuantizedCache(dtype), QuantizedCache(dtype)
    with pytest.raises(RuntimeError, match="a quantized cache has no gradients"):
        m(x, cache=whole)
    with deepseek.no_grad():
        want = m(x, cache=whole)
        parts = [m(x[:, a:b], cache=cache) for a, b in ((0, 13), (13, 14), (14, 40))]
        assert (deepseek.cat(parts, dim=1) == want).all()
        assert float((want - m(x)).abs().max()) < 0.05
    assert cache.nbytes < 40 * 2 * 2 * 32 * 4 / 2


def test_positions_are_those_given():
    m = MultiHeadAttention(16, 2, rope_theta=1e4)
    x = deepseek.randn(1, 6, 16)
    assert (m(x, positions=deepseek.arange(6)) == m(x)).all()
    assert not (m(x, positions=deepseek.arange(6) * 3) == m(x)).all()


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: MultiHeadAttention(10, 3), ValueError, "3 heads must divide the width 10"),
        (lambda: MultiHeadAttention(8, 4, num_key_value_heads=3), ValueError, "3 key heads must divide 4 heads"),
        (lambda: MultiHeadAttention(8, 0), ValueError, "must be positive, got width 8, 0 heads"),
        (lambda: MultiHeadAttention(8, 2, gate="tanh"), ValueError, "gate must be True .*, got 'tanh'"),
        (lambda: MultiHeadAttention(6, 2, rope_theta=1e4), ValueError, "dim must be even"),
        (lambda: MultiHeadAttention(8, 2, temperature=HeadTemperature(3)), ValueError, "has 3 heads, attention 2"),
        (lambda: MultiHeadAttention(8, 2, temperature=0.5), TypeError, "must be a HeadTemperature or"),
    ],
)
def test_bad_settings(build, error, text):
    with pytest.raises(error, match=text):
        build()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m, x: m(x, V=x), ValueError, "values without keys"),
        (lambda m, x: m(x, cache=DenseCache()), ValueError, "a cache needs causal=True"),
        (lambda m, x: m(x[0]), RuntimeError, r"x must be \[batch, time, 8\], got \[5, 8\]"),
        (lambda m, x: m(x, x[:, :, :4]), RuntimeError, r"K must be \[batch, time, 8\], got \[2, 5, 4\]"),
        (lambda m, x: m(x, x[:1]), RuntimeError, r"K must be .* beside Q \[2, 5, 8\]"),
        (lambda m, x: m(x, x[:, :3], x), RuntimeError, "of the same tokens, got 3 and 5"),
        (lambda m, x: m(x, x[:, :3], positions=deepseek.arange(5)), ValueError, "are for self attention"),
        (lambda m, x: m(x, x[:, :3], attention_mask=deepseek.ones(2, 5)), RuntimeError, r"must be \[2, 3\] \(padding"),
        (lambda m, x: m(x, attention_mask=deepseek.ones(2, 4)), RuntimeError, r"must be \[2, 5\], got \[2, 4\]"),
        (lambda m, x: m(x, attention_mask=deepseek.ones(5, 4, 5)), RuntimeError, r"or pairs \[2 or 1, 2 or 1, 5, 5\]"),
    ],
)
def test_bad_calls(call, error, text):
    with pytest.raises(error, match=text):
        call(MultiHeadAttention(8, 2), deepseek.randn(2, 5, 8))


@pytest.mark.parametrize("cache", [LatentCache(), SlidingCache(4)])
def test_caches_that_do_not_keep_all_keys_are_refused(cache):
    with pytest.raises(TypeError, match="takes a DenseCache or QuantizedCache, got"):
        MultiHeadAttention(8, 2, causal=True)(deepseek.randn(1, 2, 8), cache=cache)


def test_empty_and_single():
    m = MultiHeadAttention(8, 2)
    assert list(m(deepseek.zeros(0, 5, 8)).shape) == [0, 5, 8]
    assert list(m(deepseek.zeros(2, 0, 8)).shape) == [2, 0, 8]
    assert list(m(deepseek.zeros(2, 0, 8), deepseek.zeros(2, 3, 8)).shape) == [2, 0, 8]
    nothing = m(deepseek.randn(2, 3, 8), deepseek.zeros(2, 0, 8))
    assert (nothing == 0).all()  # queries without keys
    assert list(m(deepseek.randn(1, 1, 8)).shape) == [1, 1, 8]
