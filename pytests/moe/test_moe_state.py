"""State dicts of a mixture: both layouts of the checkpoints, what strict loading reports, files, copies."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import deepseek
import pytest
from deepseek.io import safetensors
from deepseek.moe import DeepseekMoE, Experts

E, D, W = 4, 6, 3


def layer_of(layout: str = "per_expert", seed: int = 0) -> DeepseekMoE:
    deepseek.manual_seed(seed)
    return DeepseekMoE(D, W, E, 2, n_shared_experts=2, topk_method="noaux_tc", scoring_func="sigmoid", layout=layout)


def same(a: DeepseekMoE, b: DeepseekMoE) -> bool:
    return all((p == q).all() for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_names_of_the_checkpoints() -> None:
    state = layer_of().state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes == {
        "gate.weight": (E, D),
        "gate.e_score_correction_bias": (E,),
        **{f"experts.{e}.{part}_proj.weight": (W, D) for e in range(E) for part in ("gate", "up")},
        **{f"experts.{e}.down_proj.weight": (D, W) for e in range(E)},
        **{f"shared_experts.{part}_proj.weight": (2 * W, D) for part in ("gate", "up")},
        "shared_experts.down_proj.weight": (D, 2 * W),
    }
    fused = {name: tuple(value.shape) for name, value in layer_of("fused").state_dict().items()}
    assert {name: shape for name, shape in fused.items() if name.startswith("experts.")} == {
        "experts.gate_up_proj": (E, 2 * W, D),
        "experts.down_proj": (E, D, W),
    }


@pytest.mark.parametrize("saved", ["per_expert", "fused"])
@pytest.mark.parametrize("loading", ["per_expert", "fused"])
def test_either_layout_loads(saved: str, loading: str, tmp_path: Path) -> None:
    first, second = layer_of(saved), layer_of(loading, seed=1)
    assert not same(first, second)
    state = first.state_dict()
    assert repr(second.load_state_dict(state)) == "<All keys matched successfully>"
    assert same(first, second)
    for name, save, load in (
        ("a.safetensors", safetensors.save_file, safetensors.load_file),
        ("a.pt", lambda tensors, path: deepseek.save(tensors, path), deepseek.load),
    ):
        third = layer_of(seed=2)
        save(dict(state), tmp_path / name)
        third.load_state_dict(load(tmp_path / name))
        assert same(first, third)


def test_gate_comes_first_in_the_fused_layout() -> None:
    experts = Experts(E, D, W, layout="fused")
    fused = experts.state_dict()["gate_up_proj"]
    assert (fused[:, :W] == experts.gate_proj).all() and (fused[:, W:] == experts.up_proj).all()


def test_entries_share_memory_with_the_layer() -> None:
    layer = layer_of()
    layer.state_dict()["experts.2.down_proj.weight"].fill_(7.0)
    assert (layer.experts.down_proj[2] == 7).all()


@pytest.mark.parametrize("layout", ["per_expert", "fused"])
def test_strict_reports(layout: str) -> None:
    state = dict(layer_of(layout).state_dict())
    gone = "experts.gate_up_proj" if layout == "fused" else "experts.3.up_proj.weight"
    wrong = "experts.down_proj" if layout == "fused" else "experts.0.down_proj.weight"
    del state[gone]
    state[wrong] = state[wrong].transpose(-1, -2)
    state["experts.9.gate_proj.weight"] = deepseek.zeros(W, D)
    with pytest.raises(RuntimeError) as caught:
        layer_of().load_state_dict(state)
    text = str(caught.value)
    assert f'Missing key(s) in state_dict: "{gone}". ' in text
    assert 'Unexpected key(s) in state_dict: "experts.9.gate_proj.weight". ' in text
    assert f"size mismatch for {wrong}" in text
    state[wrong] = state[wrong].transpose(-1, -2)
    keys = layer_of().load_state_dict(state, strict=False)
    assert keys.missing_keys == [gone] and keys.unexpected_keys == ["experts.9.gate_proj.weight"]


def test_nothing_given_is_all_missing() -> None:
    keys = Experts(2, D, W).load_state_dict({}, strict=False)
    assert keys.missing_keys == [f"{e}.{part}_proj.weight" for e in range(2) for part in ("gate", "up", "down")]


def test_assign_takes_the_dtype() -> None:
    layer, other = layer_of(), layer_of(seed=1)
    state = {name: value.bfloat16() for name, value in layer.state_dict().items()}
    other.load_state_dict(state, assign=True)
    assert other.experts.up_proj.dtype == deepseek.bfloat16
    assert (other.experts.up_proj == layer.experts.up_proj.bfloat16()).all()
    assert other.experts.up_proj.requires_grad


def test_keep_vars_and_copies() -> None:
    layer = layer_of()
    state = layer.state_dict(keep_vars=True)
    state["experts.1.up_proj.weight"].sum().backward()
    assert (layer.experts.up_proj.grad[1] == 1).all() and (layer.experts.up_proj.grad[0] == 0).all()
    assert same(layer, copy.deepcopy(layer))


def test_quantized_layers_say_what_is_missing() -> None:
    from deepseek.quantization import quantize_

    layer: Any = quantize_(layer_of(), "int8")
    with pytest.raises(RuntimeError, match=r"experts\.gate_proj\.codes"):
        layer.load_state_dict(layer_of().state_dict())
