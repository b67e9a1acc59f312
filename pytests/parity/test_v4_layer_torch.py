"""DeepSeek-V4's whole decoder layer beside transformers': hyper-connections around attention and around experts that a
router or the token ids choose. 50 random configurations of each kind of attention, with the same weights."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
import torch
from deepseek import nn

pytest.importorskip("transformers")

from deepseek.attention import CompressedAttention, HyperConnection
from deepseek.moe import DeepseekMoE
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as v4
from v4_cases import LAYER_TYPES, assert_near, fill, random_config, run_theirs, weights

NUMBERS = [pytest.param(n, marks=[] if n % 10 == 0 else pytest.mark.slow) for n in range(50)]


class Layer(nn.Module):
    """The blocks put together, with the names of transformers' layer."""

    def __init__(self, config):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        hyper = {"hc_sinkhorn_iters": config.hc_sinkhorn_iters, "hc_eps": config.hc_eps, "rms_norm_eps": eps}
        self.self_attn = CompressedAttention.from_config(config, 0)
        self.mlp = DeepseekMoE.from_config(config, 0)
        self.input_layernorm = nn.RMSNorm(width, eps)
        self.post_attention_layernorm = nn.RMSNorm(width, eps)
        self.attn_hc = HyperConnection(width, config.hc_mult, **hyper)
        self.ffn_hc = HyperConnection(width, config.hc_mult, **hyper)

    def forward(self, streams, token_ids, cache=None):
        collapsed, kept = self.attn_hc.read(streams)
        streams = self.attn_hc.write(self.self_attn(self.input_layernorm(collapsed), cache=cache), streams, kept)
        collapsed, kept = self.ffn_hc.read(streams)
        ids = None if self.mlp.gate.tid2eid is None else token_ids
        return self.ffn_hc.write(self.mlp(self.post_attention_layernorm(collapsed), token_ids=ids), streams, kept)


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("number", NUMBERS)
def test_decoder_layer(number, layer_type):
    rng = np.random.default_rng([number, 11])
    experts = int(rng.integers(2, 9))
    config = random_config(
        number,
        layer_type,
        mlp_layer_types=[str(rng.choice(["moe", "hash_moe"]))],
        n_routed_experts=experts,
        num_experts_per_tok=int(rng.integers(1, experts + 1)),
        moe_intermediate_size=int(rng.choice([8, 20])),
        routed_scaling_factor=1.5,
        swiglu_limit=float(rng.choice([0.5, 10.0])),
        hc_mult=int(rng.choice([2, 4])),
    )
    theirs = v4.DeepseekV4DecoderLayer(config, 0)
    fill(theirs, number)
    with torch.no_grad():
        for name, buffer in theirs.mlp.gate.named_buffers():
            if name == "tid2eid":
                rows = [rng.permutation(experts)[: config.num_experts_per_tok] for _ in range(config.vocab_size)]
                buffer.copy_(torch.tensor(np.stack(rows)))
            else:
                buffer.copy_(torch.tensor(rng.normal(size=buffer.shape) * 0.2))
    ours = Layer(config)
    ours.load_state_dict(weights(theirs))
    batch, time = int(rng.integers(1, 4)), int(rng.choice([1, 5, 30, 61]))
    shape = (batch, time, config.hc_mult, config.hidden_size)
    x, grad = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    ids = rng.integers(0, config.vocab_size, (batch, time))

    their_x, our_x = torch.tensor(x).requires_grad_(), deepseek.tensor(x).requires_grad_()
    want = run_theirs(config, theirs, their_x, input_ids=torch.tensor(ids))
    got = ours(our_x, deepseek.tensor(ids))
    assert_near(got, want, 1e-4)
    (want * torch.tensor(grad)).sum().backward()
    (got * deepseek.tensor(grad)).sum().backward()
    assert_near(our_x.grad, their_x.grad, 1e-3, "x")
    mine = {name: p.grad for name, p in ours.named_parameters()}
    both = [mine.pop(f"mlp.experts.{part}_proj") for part in ("gate", "up")]
    mine["mlp.experts.gate_up_proj"] = deepseek.cat(both, dim=1)
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:
            assert_near(mine[name], parameter.grad, 1e-3, name)

    cache, at, pieces = ours.self_attn.new_cache(), 0, []
    with deepseek.no_grad():
        while at < time:
            n = int(rng.integers(1, 20))
            pieces.append(ours(our_x[:, at : at + n], deepseek.tensor(ids[:, at : at + n]), cache))
            at += n
    assert (deepseek.cat(pieces, dim=1) == got).all()
