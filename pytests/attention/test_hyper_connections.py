"""Hyper-connections against their equations, their gradients, and which way the streams are mixed."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from attention.compressed_reference import hyper_weights, rms_norm, sigmoid, weights_of
from deepseek.attention import HyperConnection, HyperHead, sinkhorn
from deepseek.autograd import gradcheck, gradgradcheck


def randomized(module):
    with deepseek.no_grad():
        for p in module.parameters():
            p.copy_(deepseek.randn(*p.shape, dtype=p.dtype) * p.shape[-1] ** -0.5)
    return module


def made(width: int = 6, mult: int = 4, **settings) -> HyperConnection:
    deepseek.manual_seed(0)
    return randomized(HyperConnection(width, mult, **settings).double())


def streams(*shape: int) -> deepseek.Tensor:
    return deepseek.tensor(np.random.default_rng(1).normal(size=shape))


@pytest.mark.parametrize("mult, rounds, eps", [(4, 20, 1e-6), (1, 20, 1e-6), (3, 1, 1e-2), (7, 2, 1e-6)])
def test_against_the_equations(mult, rounds, eps):
    module = made(5, mult, hc_sinkhorn_iters=rounds, hc_eps=eps, rms_norm_eps=1e-3)
    x, w = streams(2, 3, mult, 5), weights_of(module)
    collapsed, kept = module.read(x)
    joined = module.write(collapsed.sin(), x, kept)
    for b in range(2):
        for t in range(3):
            token = x[b, t].numpy()
            pre, post, comb = hyper_weights(w, token, rounds, eps, 1e-3)
            block = pre @ token
            np.testing.assert_allclose(collapsed[b, t].detach().numpy(), block, atol=1e-12)
            want = post[:, None] * np.sin(block) + np.stack([comb[:, k] @ token for k in range(mult)])
            np.testing.assert_allclose(joined[b, t].detach().numpy(), want, atol=1e-12)


def test_head_against_the_equations():
    module, x = randomized(HyperHead(5, 4, hc_eps=1e-2, rms_norm_eps=1e-3).double()), streams(2, 3, 4, 5)
    w = weights_of(module)
    h = rms_norm(x.numpy().reshape(2, 3, 20), 1e-3) @ w["hc_fn"].T
    shares = sigmoid(h * w["hc_scale"] + w["hc_base"]) + 1e-2
    want = (shares[..., None] * x.numpy()).sum(2)
    np.testing.assert_allclose(module(x).detach().numpy(), want, atol=1e-12)


def test_trap_the_streams_are_mixed_by_comb_transposed():
    module, x = made(), streams(1, 2, 4, 6)
    post, comb, _ = module(x)
    assert float((comb - comb.transpose(-1, -2)).abs().max()) > 0.1
    mixed = module.write(deepseek.zeros(1, 2, 6, dtype=deepseek.float64), x, (post, comb))
    assert deepseek.allclose(mixed, deepseek.einsum("btjk,btjd->btkd", comb, x))
    assert not deepseek.allclose(mixed, deepseek.einsum("btkj,btjd->btkd", comb, x))


def test_trap_columns_are_normed_first_and_last():
    """After the last step columns sum to 1 (but for eps), rows nearly; with one round only columns do."""
    logits = streams(50, 4, 4)
    one = sinkhorn(logits, 1, 1e-9)
    assert float((one.sum(dim=-2) - 1).abs().max()) < 1e-7
    assert float((one.sum(dim=-1) - 1).abs().max()) > 0.1
    many = sinkhorn(logits, 200, 1e-9)
    assert float((many.sum(dim=-2) - 1).abs().max()) < 1e-7
    assert float((many.sum(dim=-1) - 1).abs().max()) < 1e-4


def test_gradients():
    module, x = made(3, 4), streams(2, 2, 4, 3).requires_grad_()

    def whole(x, *_):
        collapsed, kept = module.read(x)
        return module.write(collapsed * 2, x, kept)

    assert gradcheck(whole, (x, *module.parameters()))
    head = randomized(HyperHead(3, 4).double())
    assert gradcheck(lambda x, *_: head(x), (x, *head.parameters()))
    logits = streams(3, 4, 4).requires_grad_()
    assert gradcheck(lambda x: sinkhorn(x, 5), (logits,))
    assert gradgradcheck(lambda x: sinkhorn(x, 2), (logits,))


def test_the_norm_of_the_streams_does_not_grow():
    """Mixing alone, hundreds of times: doubly stochastic matrices have norm 1."""
    module, x = made(), streams(1, 5, 4, 6)
    nothing, start = deepseek.zeros(1, 5, 6, dtype=deepseek.float64), float(x.norm())
    with deepseek.no_grad():
        for _ in range(300):
            post, comb, _ = module(x)
            x = module.write(nothing, x, (post, comb))
    assert float(x.norm()) <= start * 1.01


def test_weights_are_float32_for_streams_in_bfloat16():
    module, x = made().float(), streams(1, 4, 4, 6).bfloat16()
    post, comb, collapsed = module(x)
    assert post.dtype is comb.dtype is deepseek.float32
    assert collapsed.dtype is deepseek.bfloat16
    assert module.write(collapsed, x, (post, comb)).dtype is deepseek.bfloat16
    low = made().float().bfloat16()  # a model that is cast whole
    assert {p.dtype for p in low.parameters()} == {deepseek.float32}
    assert (low(x)[1] == comb).all()
    assert {p.dtype for p in HyperHead(6).half().parameters()} == {deepseek.float32}


def test_autocast_changes_nothing():
    module, x = made().float(), streams(1, 4, 4, 6).float()
    want = module(x)
    out = module.write(want[2], x, want[:2])
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        assert all((a == b).all() for a, b in zip(module(x), want, strict=True))
        assert (module.write(want[2], x, want[:2]) == out).all()
        assert module.write(want[2].bfloat16(), x, want[:2]).dtype is deepseek.float32


def test_extreme_logits_give_numbers():
    """A softmax of 0 and 1 leaves eps in every place."""
    logits = deepseek.tensor([[[1e4, -1e4], [1e4, -1e4]], [[0.0, 0.0], [0.0, 0.0]]]).requires_grad_()
    out = sinkhorn(logits)
    out.sum().backward()
    assert out.isfinite().all()
    assert logits.grad.isfinite().all()


def test_tokens_do_not_see_each_other():
    module, x = made().float(), streams(2, 19, 4, 6).float()
    whole = module(x)
    for t in range(19):
        for a, b in zip(module(x[1:, t : t + 1]), whole, strict=True):
            assert (a == b[1:, t : t + 1]).all()


def test_wrong_calls():
    with pytest.raises(ValueError, match="hc_mult must be positive, got 0"):
        HyperConnection(8, 0)
    with pytest.raises(ValueError, match="hidden_size must be positive, got -1"):
        HyperHead(-1)
    for module in (HyperConnection(8), HyperHead(8)):
        with pytest.raises(RuntimeError, match=r"streams must be \[batch, time, 4, 8\], got \[1, 2, 3, 8\]"):
            module(deepseek.zeros(1, 2, 3, 8))
    with pytest.raises(RuntimeError, match=r"must be matrices \[..., n, n\]"):
        sinkhorn(deepseek.zeros(3, 4))
    with pytest.raises(RuntimeError, match="rounds must be from 1"):
        sinkhorn(deepseek.zeros(3, 3), 0)
    assert HyperConnection(8)(deepseek.zeros(2, 0, 4, 8))[2].shape == (2, 0, 8)
