"""Routers and mixtures of DeepSeek-V2, V3, V3.2 and V4 beside transformers', with the same weights: 50 random
configurations each, of which CI runs five."""

from __future__ import annotations

from typing import Any

import deepseek
import numpy as np
import pytest
import torch
from deepseek.moe import DeepseekMoE, DynamicRouter

transformers = pytest.importorskip("transformers")
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2  # noqa: E402
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3  # noqa: E402
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as v4  # noqa: E402
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as v32  # noqa: E402

NUMBERS = [pytest.param(n, marks=[] if n < 5 else pytest.mark.slow) for n in range(50)]
FAMILIES = ("v2", "v3", "v32", "v4", "v4 hash")


def configuration(family: str, number: int) -> Any:
    """A small model's, a function of the number."""
    draw = np.random.default_rng([number, FAMILIES.index(family)])
    groups = int(draw.choice([1, 2, 4])) if family in ("v2", "v3", "v32") else 1
    size = int(draw.integers(2, 7))
    kept = int(draw.integers(1, groups + 1))
    common = {
        "hidden_size": int(draw.integers(2, 9)) * 8,
        "moe_intermediate_size": int(draw.integers(2, 40)),
        "n_routed_experts": groups * size,
        "num_experts_per_tok": int(draw.integers(1, min(kept * size, 8) + 1)),
        "n_shared_experts": 1 if family.startswith("v4") else int(draw.integers(1, 4)),
        "routed_scaling_factor": float(draw.choice([1.0, 1.5, 2.5, 16.0])),
        "num_hidden_layers": 2,
        "vocab_size": 50,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    if family == "v2":
        method = "greedy" if groups == 1 else "group_limited_greedy"
        return transformers.DeepseekV2Config(**common, topk_method=method, n_group=groups, topk_group=kept)
    if family in ("v3", "v32"):
        kind = transformers.DeepseekV3Config if family == "v3" else transformers.DeepseekV32Config
        return kind(**common, n_group=groups, topk_group=kept, norm_topk_prob=bool(draw.integers(2)))
    common["num_key_value_heads"] = 1
    return transformers.DeepseekV4Config(
        **common, swiglu_limit=float(draw.choice([0.3, 1.0, 10.0])), mlp_layer_types=["hash_moe", "moe"]
    )


def theirs(family: str, config: Any) -> Any:
    return {
        "v2": lambda: v2.DeepseekV2Moe(config),
        "v3": lambda: v3.DeepseekV3MoE(config),
        "v32": lambda: v32.DeepseekV32MoE(config),
        "v4": lambda: v4.DeepseekV4SparseMoeBlock(config, 1),
        "v4 hash": lambda: v4.DeepseekV4SparseMoeBlock(config, 0),
    }[family]()


def pair(family: str, number: int) -> tuple[Any, DeepseekMoE, Any]:
    """transformers' block with random weights, ours with the same, and the configuration."""
    config = configuration(family, number)
    torch.manual_seed(number)
    other = theirs(family, config)
    with torch.no_grad():
        for name, tensor in other.state_dict().items():
            if name == "gate.tid2eid":
                rows = [torch.randperm(config.n_routed_experts)[: tensor.shape[1]] for _ in range(tensor.shape[0])]
                tensor.copy_(torch.stack(rows))
            else:  # scores that differ, and inner values around the clamp
                tensor.normal_(0, 1.0 if "bias" in name else 1.5 * tensor.shape[-1] ** -0.5)
    ours = DeepseekMoE.from_config(config, layer_idx={"v4": 1, "v4 hash": 0}.get(family))
    keys = ours.load_state_dict(as_ours(other))
    assert not keys.missing_keys and not keys.unexpected_keys
    return other, ours, config


def as_ours(module: Any) -> dict[str, Any]:
    return {name: deepseek.from_numpy(value.detach().numpy().copy()) for name, value in module.state_dict().items()}


def tokens(config: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng([number, 99])
    shape = (int(draw.integers(1, 4)), int(draw.integers(1, 12)))
    x = draw.normal(size=(*shape, config.hidden_size)).astype(np.float32)
    return x, draw.integers(0, config.vocab_size, shape)


def near(got: Any, want: Any, allowed: float, what: str) -> None:
    a, b = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert a.shape == b.shape, what
    assert np.abs(a - b).max(initial=0) <= allowed * max(1.0, np.abs(b).max(initial=0)), what


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_router(family: str, number: int) -> None:
    other, ours, config = pair(family, number)
    x, ids = tokens(config, number)
    router: DynamicRouter = ours.gate
    if family == "v4 hash":
        logits, weights, indices = other.gate(torch.from_numpy(x), torch.from_numpy(ids))
        got = router(deepseek.from_numpy(x), token_ids=deepseek.from_numpy(ids))
    else:
        logits, weights, indices = other.gate(torch.from_numpy(x))
        got = router(deepseek.from_numpy(x))
    near(got.logits.detach().numpy(), logits.detach().numpy(), 1e-5, "logits")
    order, mine = indices.numpy().argsort(1), got.indices.numpy().argsort(1)
    np.testing.assert_array_equal(
        np.take_along_axis(got.indices.numpy(), mine, 1), np.take_along_axis(indices.numpy(), order, 1)
    )
    near(
        np.take_along_axis(got.weights.detach().numpy(), mine, 1),
        np.take_along_axis(weights.detach().numpy(), order, 1), 1e-5, "weights",
    )  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_block(family: str, number: int) -> None:
    other, ours, config = pair(family, number)
    x, ids = tokens(config, number)
    a, b = torch.from_numpy(x).requires_grad_(), deepseek.from_numpy(x.copy()).requires_grad_()
    if family == "v4 hash":
        want, got = other(a, torch.from_numpy(ids)), ours(b, token_ids=deepseek.from_numpy(ids))
    else:
        want, got = other(a), ours(b)
    near(got.detach().numpy(), want.detach().numpy(), 1e-4, "output")
    pull = np.random.default_rng(number).normal(size=x.shape).astype(np.float32)
    want.backward(torch.from_numpy(pull))
    got.backward(deepseek.from_numpy(pull))
    near(b.grad.numpy(), a.grad.numpy(), 1e-3, "x")
    near(ours.gate.weight.grad.numpy(), other.gate.weight.grad.numpy(), 1e-3, "gate")
    inner, experts = config.moe_intermediate_size, other.experts
    near(ours.experts.gate_proj.grad.numpy(), experts.gate_up_proj.grad[:, :inner].numpy(), 1e-3, "gate_proj")
    near(ours.experts.up_proj.grad.numpy(), experts.gate_up_proj.grad[:, inner:].numpy(), 1e-3, "up_proj")
    near(ours.experts.down_proj.grad.numpy(), experts.down_proj.grad.numpy(), 1e-3, "down_proj")
    for name, parameter in ours.shared_experts.named_parameters():
        near(parameter.grad.numpy(), other.shared_experts.get_parameter(name).grad.numpy(), 1e-3, name)


def test_their_state_dict_is_ours_in_the_fused_layout() -> None:
    other, ours, _ = pair("v3", 0)
    ours.experts.layout = "fused"
    state = ours.state_dict()
    assert set(state) == set(other.state_dict())
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(state[name].numpy(), value.numpy())
