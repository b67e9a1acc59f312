"""DeepSeek-V4's attention beside transformers': 50 random configurations of each kind of layer, with the same weights.

transformers runs uncached and is given the window's mask. Its compressor counts padding on the left into its
windows, so a sequence padded on the left gives something else there than without padding; here padding never counts.
Compared is padding on the right, where both agree.
"""

from __future__ import annotations

import re

import deepseek
import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from deepseek.attention import CompressedAttention
from deepseek.attention.compressed import attention_state_from_hub
from deepseek.attention.compressed.hub_names import ATTENTION_NAMES, HYPER_CONNECTION_NAMES
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from v4_cases import LAYER_TYPES, assert_near, random_case, random_config, run_theirs, weights

NUMBERS = [pytest.param(n, marks=[] if n % 10 == 0 else pytest.mark.slow) for n in range(50)]


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("number", NUMBERS)
def test_output_and_gradients(number, layer_type):
    case = random_case(number, layer_type)
    their_x, our_x = case.tensors()
    theirs, ours = run_theirs(case.config, case.theirs, their_x), case.ours(our_x)
    assert_near(ours, theirs, 1e-4)
    (theirs * torch.tensor(case.grad)).sum().backward()
    (ours * deepseek.tensor(case.grad)).sum().backward()
    assert_near(our_x.grad, their_x.grad, 1e-3, "x")
    mine = dict(case.ours.named_parameters())
    for name, parameter in case.theirs.named_parameters():
        if parameter.grad is None:  # nothing flows through the indexer's choice, or there were no entries
            assert mine[name].grad is None, name
        else:
            assert_near(mine[name].grad, parameter.grad, 1e-3, name)


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("number", NUMBERS)
def test_cached_in_random_pieces(number, layer_type):
    case = random_case(number, layer_type)
    their_x, our_x = case.tensors()
    rng, at, pieces, cache = np.random.default_rng(number), 0, [], case.ours.new_cache()
    with deepseek.no_grad():
        whole = case.ours(our_x)
        while at < our_x.shape[1]:
            n = int(rng.integers(1, 9))
            pieces.append(case.ours(our_x[:, at : at + n], cache=cache))
            at += n
        assert (deepseek.cat(pieces, dim=1) == whole).all()
    assert_near(whole, run_theirs(case.config, case.theirs, their_x), 1e-4)


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("number", NUMBERS)
def test_padding_on_the_right(number, layer_type):
    case = random_case(number, layer_type)
    their_x, our_x = case.tensors()
    batch, time = their_x.shape[:2]
    lengths = torch.tensor(np.random.default_rng(number).integers(1, time + 1, batch))
    real = torch.arange(time) < lengths.unsqueeze(1)
    with torch.no_grad(), deepseek.no_grad():
        theirs = run_theirs(case.config, case.theirs, their_x, real) * real.unsqueeze(-1)
        ours = case.ours(our_x, attention_mask=deepseek.tensor(real.numpy()))
    assert_near(ours, theirs, 1e-4)


def renamed(name: str) -> str:
    for step in get_checkpoint_conversion_mapping("deepseek_v4"):
        if type(step).__name__ == "WeightRenaming":
            name = re.sub(step.source_patterns[0], step.target_patterns[0].replace("\\", ""), name)
    return name


def test_hub_names_are_transformers():
    for hub, own in ATTENTION_NAMES.items():
        assert renamed(f"layers.3.attn.{hub}") == f"layers.3.self_attn.{own}"
    for hub, own in HYPER_CONNECTION_NAMES.items():
        prefix = "" if "head" in hub else "layers.3."
        assert renamed(prefix + hub) == prefix + own


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_a_checkpoint_of_the_hub_loads(layer_type):
    case = random_case(3, layer_type)
    hub_names = {own: hub for hub, own in ATTENTION_NAMES.items()}
    hub = {f"layers.5.attn.{hub_names[name]}": t for name, t in weights(case.theirs).items()}
    ours = CompressedAttention.from_config(case.config, 0)
    ours.load_state_dict(attention_state_from_hub(hub, 5))
    x = deepseek.tensor(case.x)
    assert (ours(x) == case.ours(x)).all()
    with pytest.raises(ValueError, match="dequantized first"):
        attention_state_from_hub({**hub, "layers.5.attn.wq_a.scale": x}, 5)


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_both_layouts_of_the_configuration(layer_type):
    ratio = {"sliding_attention": 0, "compressed_sparse_attention": 4, "heavily_compressed_attention": 128}[layer_type]
    config = random_config(0, layer_type).to_dict()
    config["compress_rates"] = None
    saved = CompressedAttention.from_config(config, 0)
    scaling = {
        k: v for k, v in config["rope_parameters"]["compress"].items() if k not in ("rope_theta", "attention_factor")
    }
    hub = {k: v for k, v in config.items() if k not in ("layer_types", "rope_parameters", "partial_rotary_factor")}
    hub |= {"compress_ratios": [ratio], "rope_scaling": scaling, "compress_rope_theta": config["compress_rope_theta"]}
    hub["qk_rope_head_dim"] = int(config["head_dim"] * config["partial_rotary_factor"])
    other = CompressedAttention.from_config(hub, 0)
    assert saved.extra_repr() == other.extra_repr()
    assert (saved.rotation.rotary.frequencies == other.rotation.rotary.frequencies).all()
    assert saved.rotation.rotary.factor == other.rotation.rotary.factor == 1.0
