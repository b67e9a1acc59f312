"""The language model: shapes, causality, decoding with a cache, routing, and generation."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from deepseek.models import DecodeState, LanguageModel, ModelConfig, stream
from deepseek.models.demo.layers import NgramMemory
from deepseek.models.demo.size import model_size
from deepseek.models.generation import choose
from deepseek.moe import DeepseekMoE

SMALL = {
    "vocab_size": 50,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 2,
    "context": 16,
    "n_routed_experts": 4,
    "top_k": 2,
    "expert_dim": 10,
    "ngram_orders": (2, 4),
    "ngram_rows": 64,
    "ngram_dim": 6,
}


def small(**changes) -> ModelConfig:
    return ModelConfig(**{**SMALL, **changes})


def make(seed: int = 0, **changes) -> LanguageModel:
    deepseek.manual_seed(seed)
    return LanguageModel(small(**changes))


def tokens(batch: int, time: int, seed: int = 0) -> deepseek.Tensor:
    rng = np.random.default_rng(seed)
    return deepseek.from_numpy(rng.integers(0, SMALL["vocab_size"], (batch, time), dtype=np.int64))


def array(tensor: deepseek.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


VARIANTS = [
    {},
    {"n_routed_experts": 0, "top_k": 0},
    {"n_shared_experts": 0},
    {"n_shared_experts": 2, "top_k": 1},
    {"ngram_orders": ()},
    {"n_heads": 1, "n_layers": 1},
    {"ffn": "dense", "ffn_dim": 20},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_logits_shape_gradients_and_parameter_count(changes):
    model = make(**changes)
    ids = tokens(3, 16)
    logits = model(ids)
    assert list(logits.shape) == [3, 16, 50]
    model.loss(ids, ids).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert np.isfinite(array(parameter.grad)).all(), name
    size = model_size(small(**changes), batch=1)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert 0 < size.active <= size.parameters


@pytest.mark.parametrize("changes", VARIANTS)
def test_logits_never_depend_on_later_tokens(changes):
    model = make(**changes)
    first, second = array(tokens(1, 16)).copy(), array(tokens(1, 16)).copy()
    second[0, 9:] = (second[0, 9:] + 1) % 50
    with deepseek.no_grad():
        a, b = array(model(deepseek.from_numpy(first))), array(model(deepseek.from_numpy(second)))
    np.testing.assert_allclose(a[:, :9], b[:, :9], rtol=1e-5, atol=1e-6)
    assert np.abs(a[:, 9:] - b[:, 9:]).max() > 1e-3


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("cuts", [[1] * 16, [2, 5, 9], [7, *[1] * 9], [15, 1], [16]])
def test_decoding_with_a_cache_gives_the_logits_of_the_full_forward(changes, cuts):
    model = make(**changes).eval()
    ids = tokens(2, 16)
    with deepseek.no_grad():
        whole = array(model(ids))
        state = DecodeState(model)
        pieces = [array(model(part, state)) for part in ids.split(cuts, dim=1)]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=1e-5, atol=1e-6)


def test_a_token_sees_the_trained_context_however_far_the_text_runs_on():
    model = make(n_layers=1, ngram_orders=()).eval()
    ids = tokens(1, 40)
    with deepseek.no_grad():
        whole = array(model(ids))
        state = DecodeState(model)
        pieces = [array(model(part, state)) for part in ids.split([3, 20, *[1] * 17], dim=1)]
        last = array(model(ids[:, 40 - 16 :]))  # distances are what counts, not where the text began
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole[:, -1], last[:, -1], rtol=1e-3, atol=1e-4)
    assert state.position == 40


def test_the_cache_of_a_long_text_stays_small():
    model = make().eval()
    state = DecodeState(model)
    with deepseek.no_grad():
        for _ in range(8):
            model(tokens(1, 256), state)
    assert state.position == 2048
    assert state.nbytes <= 2 * 2 * 24 * 4 * 1024  # layers, keys and values, dim, floats, rows


def test_a_decode_state_needs_its_model():
    with pytest.raises(TypeError, match="the model it decodes with, got ModelConfig"):
        DecodeState(small())


def _swiglu(x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    opened = gate @ x
    return down @ (opened / (1 + np.exp(-opened)) * (up @ x))


def test_mixture_of_experts_equals_its_definition_token_by_token():
    deepseek.manual_seed(3)
    layer = LanguageModel(small()).blocks[0].feed_forward
    assert isinstance(layer, DeepseekMoE)
    bias = np.array([0.3, -0.2, 0.0, 0.1], dtype=np.float32)
    with deepseek.no_grad():
        layer.gate.e_score_correction_bias.copy_(deepseek.from_numpy(bias))
    x = np.random.default_rng(1).standard_normal((2, 5, 24)).astype(np.float32)
    got = array(layer(deepseek.from_numpy(x)))

    state = {name: array(value) for name, value in layer.state_dict().items()}
    gate, up = np.split(state["experts.gate_up_proj"], 2, axis=1)
    shared = [state[f"shared_experts.{name}_proj.weight"] for name in ("gate", "up", "down")]
    for place in np.ndindex(2, 5):
        row = x[place].astype(np.float64)
        affinity = 1 / (1 + np.exp(-(state["gate.weight"] @ row)))
        chosen = np.argsort(-(affinity + bias))[:2]
        expected = _swiglu(row, *shared)
        for expert in chosen:
            weight = affinity[expert] / affinity[chosen].sum()
            expected = expected + weight * _swiglu(row, gate[expert], up[expert], state["experts.down_proj"][expert])
        np.testing.assert_allclose(got[place], expected, rtol=1e-4, atol=1e-5)


def test_rebalancing_moves_every_routers_bias_against_its_load():
    model = make(bias_update_rate=0.01)
    loads = [np.array([10, 0, 5, 5]), np.array([0, 2, 9, 9])]
    for block, load in zip(model.blocks, loads, strict=True):
        block.feed_forward.gate.load.copy_(deepseek.from_numpy(load))
    model.rebalance_experts()
    model.rebalance_experts()  # nothing was routed since
    for block, moved in zip(model.blocks, ([-1, 1, 0, 0], [1, 1, -1, -1]), strict=True):
        bias = array(block.feed_forward.gate.e_score_correction_bias)
        np.testing.assert_allclose(bias, 0.01 * np.array(moved), atol=1e-8)


def test_ngram_rows_are_a_hash_of_exactly_the_last_n_tokens():
    memory = NgramMemory(small())
    history = [4, 9, 2]
    sequence = [7, 7, 30, 1]
    rows = [array(r)[0] for r in memory.hashes(deepseek.tensor([history + sequence], dtype=deepseek.int64))]
    full = history + sequence
    for index, order in enumerate((2, 4)):
        for time in range(len(sequence)):
            window = full[: 3 + time + 1][-order:]
            value = window[-1]
            for older in reversed(window[:-1]):
                value = (value * 1000003 + older + 1) % 2147483647
            assert rows[index][time] == value % 64


@pytest.mark.parametrize("length", [3, 16, 40])
def test_greedy_generation_takes_the_likeliest_token_of_the_full_forward(length):
    model = make(seed=1).eval()
    prompt = array(tokens(1, length, seed=5))[0].tolist()
    first = next(iter(stream(model, prompt, 1, temperature=0.0)))
    with deepseek.no_grad():
        logits = array(model(deepseek.tensor([prompt[-16:]], dtype=deepseek.int64)))
    assert first == int(logits[0, -1].argmax())


def test_generation_repeats_with_the_seed_and_runs_past_the_context():
    model = make()
    prompt = tokens(1, 5)
    one, two = (array(model.generate(prompt, 40, temperature=1.0, seed=7)) for _ in range(2))
    other = array(model.generate(prompt, 40, temperature=1.0, seed=8))
    assert one.shape == (1, 45)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one[:, :5], array(prompt))
    assert (one != other).any()


def test_generation_leaves_the_global_random_state_alone():
    model = make()
    deepseek.manual_seed(11)
    expected = array(deepseek.rand(4))
    deepseek.manual_seed(11)
    model.generate(tokens(1, 3), 4, temperature=1.0)
    np.testing.assert_array_equal(array(deepseek.rand(4)), expected)


LOGITS = np.log(np.array([0.1, 0.4, 0.3, 0.2], dtype=np.float32))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "expected"),
    [
        (1.0, 0, 1.0, [0.1, 0.4, 0.3, 0.2]),
        (1.0, 2, 1.0, [0, 4 / 7, 3 / 7, 0]),
        (1.0, 0, 0.5, [0, 4 / 7, 3 / 7, 0]),
        (1.0, 0, 0.39, [0, 1, 0, 0]),
        (1.0, 1, 1.0, [0, 1, 0, 0]),
        (0.5, 0, 1.0, [1 / 30, 16 / 30, 9 / 30, 4 / 30]),
        (0.0, 0, 1.0, [0, 1, 0, 0]),
    ],
)
def test_sampling_frequencies(temperature, top_k, top_p, expected):
    rng = np.random.default_rng(0)
    draws = [choose(LOGITS, rng, temperature, top_k, top_p) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(draws, minlength=4) / 4000, expected, atol=0.03)
    assert all(expected[token] > 0 for token in draws)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [50]}, "prompt"),
    ],
)
def test_generation_refuses_what_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        list(stream(make(), **{"prompt": [1], "max_new_tokens": 1, **arguments}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 25}, "even multiple"),
        ({"dim": 6, "n_heads": 2}, "even multiple"),
        ({"top_k": 5}, "top_k"),
        ({"top_k": 0}, "top_k"),
        ({"n_routed_experts": 0, "n_shared_experts": 0}, "both be 0"),
        ({"n_layers": 0}, "n_layers"),
        ({"ngram_orders": (1, 2)}, "ngram_orders"),
    ],
)
def test_configuration_errors_name_the_setting(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_configuration_round_trip_and_unknown_names():
    config = small()
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown model setting 'depth'"):
        ModelConfig.from_dict({"depth": 3})


def test_state_dict_restores_the_model_exactly():
    one, two = make(seed=0), make(seed=1)
    two.load_state_dict(one.state_dict())
    ids = tokens(2, 16)
    with deepseek.no_grad():
        np.testing.assert_array_equal(array(one(ids)), array(two(ids)))


def test_it_learns_a_pattern():
    model = make()
    optimizer = deepseek.optim.AdamW(model.parameters(), lr=1e-2)
    pattern = np.tile(np.arange(7), 10)
    inputs = deepseek.from_numpy(np.stack([pattern[s : s + 16] for s in range(8)]).astype(np.int64))
    targets = deepseek.from_numpy(np.stack([pattern[s + 1 : s + 17] for s in range(8)]).astype(np.int64))
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = model.loss(inputs, targets)
        loss.backward()
        optimizer.step()
        model.rebalance_experts()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(50), abs=0.5)  # knows nothing at first
    assert losses[-1] < 0.1


@pytest.mark.parametrize(
    ("batch", "settings"),
    [
        (4, {"context": 128, "expert_dim": 64, "ngram_rows": 512}),
        (4, {"dim": 128, "context": 256, "expert_dim": 64, "ngram_rows": 512}),
        (4, {"context": 128, "expert_dim": 64, "ngram_rows": 512, "n_routed_experts": 0}),
        (8, {"context": 32, "expert_dim": 128, "ngram_rows": 512}),
        (2, {"dim": 128, "n_layers": 6, "context": 64, "ngram_rows": 512}),
        (4, {"context": 128, "top_k": 4, "n_shared_experts": 0, "vocab_size": 1000, "ngram_orders": (2,)}),
    ],
)
def test_the_memory_estimate_is_near_the_measured_peak(batch, settings):
    deepseek.manual_seed(0)  # how many tokens an expert gets decides what is packed
    config = ModelConfig(**settings)
    model = LanguageModel(config)
    optimizer = deepseek.optim.AdamW(model.parameters())
    ids = deepseek.randint(0, config.vocab_size, (batch, config.context))
    kept = []

    def step() -> None:
        before = deepseek.memory_stats()["allocated_bytes"]
        loss = model.loss(ids, ids)
        kept.append(deepseek.memory_stats()["allocated_bytes"] - before)
        loss.backward()
        optimizer.step()

    step()
    optimizer.zero_grad()
    before = deepseek.memory_stats()["allocated_bytes"]
    deepseek.reset_peak_memory_stats()
    step()
    measured = deepseek.memory_stats()["peak_bytes"] - before
    size = model_size(config, batch=batch)
    assert kept[1] < size.activation_bytes < 2 * kept[1]
    # Activations go while gradients come, so their sum is enough and neither is much too large.
    assert 0.8 * measured < size.weights_bytes + size.activation_bytes
    assert max(size.weights_bytes, size.activation_bytes) < 1.4 * measured
