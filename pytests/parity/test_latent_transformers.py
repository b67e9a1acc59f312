"""DeepSeek V2, V3 and V3.2 attention and decoder layers against transformers, with the same weights: outputs,
gradients, both ways of computing, padding on either side, and decoding.

The uncached run is the oracle for decoding too: transformers' own cached V3.2 sometimes picks other keys.
"""

from __future__ import annotations

import importlib
from typing import Any

import deepseek
import numpy as np
import pytest
import torch
from deepseek import nn
from deepseek.moe import DeepseekMoE
from latent_oracle import VERSIONS, as_ours, random_oracle

pytest.importorskip("transformers")

CASES = [pytest.param(n, marks=[] if n % 10 == 0 else [pytest.mark.slow]) for n in range(50)]
OUTPUT, GRADIENT = 1e-4, 1e-3


def near(got: Any, want: Any, atol: float, what: str) -> None:
    a = got.detach().numpy() if hasattr(got, "detach") else got
    np.testing.assert_allclose(a, want.detach().numpy(), rtol=0, atol=atol, err_msg=what)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("number", CASES)
def test_attention(version: str, number: int) -> None:
    case = random_oracle(version, number)
    batch, time = int(case.rng.integers(1, 4)), int(case.rng.integers(1, 30))
    x = torch.from_numpy(case.rng.standard_normal((batch, time, case.config.hidden_size), dtype=np.float32))
    weight = torch.from_numpy(case.rng.standard_normal(x.shape, dtype=np.float32))
    x.requires_grad_()
    want = case.run(x)
    (want * weight).sum().backward()
    for absorb in (None, True, False):
        case.ours.absorb = absorb
        case.ours.zero_grad()
        mine = deepseek.tensor(x.detach().numpy()).requires_grad_()
        out = case.ours(mine)
        near(out, want, OUTPUT, f"{case}")
        (out * deepseek.tensor(weight.numpy())).sum().backward()
        near(mine.grad, x.grad, GRADIENT, f"{case}: gradient of x")
        for name, p in case.theirs.named_parameters():
            ours = case.ours.get_parameter(name).grad
            assert (ours is None) == (p.grad is None), f"{case}: {name}"
            if p.grad is not None:
                near(ours, p.grad, GRADIENT, f"{case}: gradient of {name}")
        with deepseek.no_grad():
            cache, parts, a = case.ours.new_cache(), [], 0
            while a < time:
                b = min(time, a + int(case.rng.choice([1, 1, 3, 9])))
                parts.append(case.ours(mine[:, a:b], cache=cache))
                a = b
            near(deepseek.cat(parts, dim=1), want, OUTPUT, f"{case}: cached")
            if absorb is not None:
                assert (deepseek.cat(parts, dim=1) == out).all(), f"{case}: bits of cached and uncached"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("number", CASES)
def test_padding(version: str, number: int, side: str) -> None:
    case = random_oracle(version, number)
    batch, time = 3, int(case.rng.integers(3, 24))
    x = case.rng.standard_normal((batch, time, case.config.hidden_size), dtype=np.float32)
    lengths = [time, *case.rng.integers(1, time, batch - 1)]
    real = np.stack([np.arange(time) >= time - n if side == "left" else np.arange(time) < n for n in lengths])
    want = case.run(torch.from_numpy(x), real).detach().numpy()
    mask = deepseek.tensor(real.astype(np.int64))
    got = case.ours(deepseek.tensor(x), attention_mask=mask).detach().numpy()
    np.testing.assert_allclose(got[real], want[real], rtol=0, atol=OUTPUT, err_msg=f"{case}")
    assert not got[~real].any()
    with deepseek.no_grad():
        cache, cut = case.ours.new_cache(), time // 2
        parts = [
            case.ours(deepseek.tensor(x[:, :cut]), attention_mask=mask[:, :cut], cache=cache),
            case.ours(deepseek.tensor(x[:, cut:]), attention_mask=mask, cache=cache),
        ]
    got = deepseek.cat(parts, dim=1).numpy()
    np.testing.assert_allclose(got[real], want[real], rtol=0, atol=OUTPUT, err_msg=f"{case}: cached")


@pytest.mark.parametrize("number", CASES)
def test_selection(number: int) -> None:
    case = random_oracle("V32", number)
    time = int(case.rng.integers(2, 40))
    x = torch.from_numpy(case.rng.standard_normal((2, time, case.config.hidden_size), dtype=np.float32))
    chosen: list[torch.Tensor] = []
    case.theirs.indexer.register_forward_hook(lambda module, given, out: chosen.append(out))
    case.run(x)
    ours = case.ours
    source = ours.q_a_layernorm(ours.q_a_proj(deepseek.tensor(x.numpy())))
    indices = ours.indexer(deepseek.tensor(x.numpy()), source)
    for b in range(2):
        for t in range(time):  # theirs fills up with keys that are masked later
            want = sorted(i for i in chosen[0][b, t].tolist() if i <= t)
            assert sorted(i for i in indices[b, t].tolist() if i >= 0) == want, f"{case}: query {t}"


class Dense(nn.Module):
    """The feed-forward of the first layers."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: deepseek.Tensor) -> deepseek.Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """A decoder layer of DeepSeek."""

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, width: int, eps: float) -> None:
        super().__init__()
        self.self_attn, self.mlp = attention, feed_forward
        self.input_layernorm = nn.RMSNorm(width, eps=eps)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=eps)

    def forward(self, x: deepseek.Tensor, **rest: Any) -> deepseek.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), **rest)
        return x + self.mlp(self.post_attention_layernorm(x))


@pytest.mark.parametrize("kind", ["dense", "mixture"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("number", CASES)
def test_decoder_layer(version: str, number: int, kind: str) -> None:
    case = random_oracle(version, number)
    config, name = case.config, f"deepseek_{version.lower()}"
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    layer = getattr(module, f"Deepseek{version}DecoderLayer")(config, int(kind == "mixture"))
    with torch.no_grad():
        for key, tensor in layer.mlp.state_dict().items():  # experts are uninitialised
            tensor.normal_(0, 1.0 if "bias" in key else tensor.shape[-1] ** -0.5)
    mixture = kind == "mixture"
    inner = DeepseekMoE.from_config(config) if mixture else Dense(config.hidden_size, config.intermediate_size)
    ours = Layer(case.ours, inner, config.hidden_size, config.rms_norm_eps)
    ours.load_state_dict(as_ours(layer))

    def attention_first(**arguments: Any) -> tuple[torch.Tensor]:
        result = layer(**arguments)
        return (result[0] if isinstance(result, tuple) else result,)

    case.theirs = attention_first  # run() calls it as it calls the attention
    x = torch.from_numpy(case.rng.standard_normal((2, 11, config.hidden_size), dtype=np.float32)).requires_grad_()
    want = case.run(x)
    mine = deepseek.tensor(x.detach().numpy()).requires_grad_()
    out = ours(mine)
    near(out, want, OUTPUT, f"{case}")
    weight = case.rng.standard_normal(x.shape, dtype=np.float32)
    (want * torch.from_numpy(weight)).sum().backward()
    (out * deepseek.tensor(weight)).sum().backward()
    near(mine.grad, x.grad, GRADIENT, f"{case}: gradient of x")
    for key, p in layer.named_parameters():
        if "experts.gate_up_proj" not in key and p.grad is not None:
            near(ours.get_parameter(key).grad, p.grad, GRADIENT, f"{case}: gradient of {key}")
    with deepseek.no_grad():
        cache = case.ours.new_cache()
        parts = [ours(mine[:, t : t + 1], cache=cache) for t in range(11)]
    near(deepseek.cat(parts, dim=1), want, OUTPUT, f"{case}: cached")
