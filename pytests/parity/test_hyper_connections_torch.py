"""Hyper-connections and their head beside transformers', 50 random configurations each, with the same weights."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from deepseek.attention import HyperConnection, HyperHead
from transformers import DeepseekV4Config
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as v4
from v4_cases import assert_near, fill, weights

NUMBERS = [pytest.param(n, marks=[] if n % 10 == 0 else pytest.mark.slow) for n in range(50)]


def random_case(number: int):
    rng = np.random.default_rng(number)
    config = DeepseekV4Config(
        hidden_size=int(rng.choice([3, 16, 40])),
        hc_mult=int(rng.choice([1, 2, 4, 4, 4, 7])),
        hc_sinkhorn_iters=int(rng.choice([1, 2, 20, 20])),
        hc_eps=float(rng.choice([1e-6, 1e-2])),
        rms_norm_eps=float(rng.choice([1e-6, 1e-3])),
    )
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 20)), config.hc_mult, config.hidden_size)
    return config, rng, rng.normal(size=shape).astype(np.float32)


def ours_like(kind, theirs, config):
    settings = {} if kind is HyperHead else {"hc_sinkhorn_iters": config.hc_sinkhorn_iters}
    ours = kind(config.hidden_size, config.hc_mult, hc_eps=config.hc_eps, rms_norm_eps=config.rms_norm_eps, **settings)
    ours.load_state_dict(weights(theirs))
    return ours


def compare(theirs, ours, their_x, our_x, their_loss, our_loss):
    their_loss.backward()
    our_loss.backward()
    assert_near(our_x.grad, their_x.grad, 1e-3, "x")
    mine = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert_near(mine[name].grad, parameter.grad, 1e-3, name)


@pytest.mark.parametrize("number", NUMBERS)
def test_around_a_block(number):
    config, rng, x = random_case(number)
    theirs = v4.DeepseekV4HyperConnection(config)
    fill(theirs, number)
    ours = ours_like(HyperConnection, theirs, config)
    their_x, our_x = torch.tensor(x).requires_grad_(), deepseek.tensor(x).requires_grad_()
    post, comb, collapsed = theirs(their_x)
    for a, b in zip(ours(our_x), (post, comb, collapsed), strict=True):
        assert_near(a, b, 1e-4)
    # a block that doubles, and the streams as transformers' decoder layer joins them
    joined = post.unsqueeze(-1) * (2 * collapsed).unsqueeze(-2) + comb.transpose(-1, -2) @ their_x
    ours_collapsed, kept = ours.read(our_x)
    ours_joined = ours.write(2 * ours_collapsed, our_x, kept)
    assert_near(ours_joined, joined, 1e-4)
    g = rng.normal(size=x.shape).astype(np.float32)
    compare(theirs, ours, their_x, our_x, (joined * torch.tensor(g)).sum(), (ours_joined * deepseek.tensor(g)).sum())


@pytest.mark.parametrize("number", NUMBERS)
def test_head(number):
    config, rng, x = random_case(number)
    theirs = v4.DeepseekV4HyperHead(config)
    fill(theirs, number)
    ours = ours_like(HyperHead, theirs, config)
    their_x, our_x = torch.tensor(x).requires_grad_(), deepseek.tensor(x).requires_grad_()
    want, got = theirs(their_x), ours(our_x)
    assert_near(got, want, 1e-4)
    g = rng.normal(size=want.shape).astype(np.float32)
    compare(theirs, ours, their_x, our_x, (want * torch.tensor(g)).sum(), (got * deepseek.tensor(g)).sum())
