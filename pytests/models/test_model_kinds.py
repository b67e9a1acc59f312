"""The language model with each kind of attention: counts, causality, decoding on its caches, training and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import deepseek
import numpy as np
import pytest
from deepseek.models import DecodeState, LanguageModel, ModelConfig, stream
from deepseek.models.demo.size import model_size
from deepseek.train import TrainConfig, Trainer, find_checkpoint, load_config, load_corpus, load_model

SMALL = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "context": 64,
    "n_routed_experts": 4,
    "top_k": 2,
    "expert_dim": 10,
    "ngram_orders": [2, 3],
    "ngram_rows": 32,
    "ngram_dim": 4,
    "block_size": 16,
    "selected_blocks": 3,
    "window": 16,
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "index_n_heads": 3,
    "index_head_dim": 16,
    "index_topk": 16,
    "index_warmup": 3,
    "o_lora_rank": 12,
    "o_groups": 2,
    "hc_mult": 3,
}
KINDS = ("dense", "mla", "nsa", "moba", "dsa", "v4")
VARIANTS = [
    *({"attention": kind} for kind in KINDS),
    {"attention": "mla", "q_lora_rank": 0, "ffn": "dense", "ffn_dim": 24},
    {"attention": "v4", "hc_mult": 0, "n_layers": 1, "csa_ratio": 8, "index_topk": 8},
    {"attention": "dsa", "ffn": "dense", "index_warmup": 0},
    {"attention": "v4", "index_topk": 4},
]
each = pytest.mark.parametrize("changes", VARIANTS, ids=lambda c: "-".join(str(v) for v in c.values()))


def make(seed: int = 0, **changes) -> LanguageModel:
    deepseek.manual_seed(seed)
    model = LanguageModel(ModelConfig.from_dict({**SMALL, **changes}))
    model.begin_step(10)  # indexers pick keys
    return model


def tokens(batch: int, time: int, seed: int = 0) -> deepseek.Tensor:
    return deepseek.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, time)))


def array(tensor: deepseek.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


@each
def test_gradients_and_parameter_count(changes):
    model = make(**changes)
    ids = tokens(2, 64)
    logits = model(ids)
    assert list(logits.shape) == [2, 64, 256]
    loss, extra = model.loss(ids, ids), model.auxiliary_loss()
    assert (extra is not None) == (changes["attention"] in ("dsa", "v4"))
    (loss if extra is None else loss + extra).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert np.isfinite(array(parameter.grad)).all(), name
    size = model_size(model.config, batch=1)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert 0 < size.active <= size.parameters


@each
def test_logits_never_depend_on_later_tokens(changes):
    model = make(**changes).eval()
    first, second = array(tokens(1, 64)).copy(), array(tokens(1, 64)).copy()
    second[0, 41:] = (second[0, 41:] + 1) % 256
    with deepseek.no_grad():
        a, b = array(model(deepseek.from_numpy(first))), array(model(deepseek.from_numpy(second)))
    np.testing.assert_array_equal(a[:, :41], b[:, :41])
    assert np.abs(a[:, 41:] - b[:, 41:]).max() > 1e-3


@each
@pytest.mark.parametrize("cuts", [[1] * 64, [7, 13, 44], [40, *[1] * 24], [64]], ids=len)
def test_decoding_with_caches_gives_the_logits_of_the_full_forward(changes, cuts):
    model = make(**changes).eval()
    ids = tokens(2, 64)
    with deepseek.no_grad():
        whole = array(model(ids))
        state = DecodeState(model)
        pieces = np.concatenate([array(model(part, state)) for part in ids.split(cuts, dim=1)], axis=1)
    if changes["attention"] in ("mla", "dsa"):  # a short piece is absorbed, a long one expanded
        np.testing.assert_allclose(pieces, whole, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_array_equal(pieces, whole)
    assert state.position == 64
    assert state.nbytes > 0


@each
def test_generation_repeats_and_runs_past_the_context(changes):
    model = make(**changes)
    prompt = array(tokens(1, 30))[0].tolist()
    one, two = (list(stream(model, prompt, 90, temperature=1.0, seed=7)) for _ in range(2))
    assert one == two
    assert len(one) == 90
    model.eval()
    greedy = list(stream(model, prompt, 34, temperature=0.0))
    with deepseek.no_grad():
        logits = array(model(deepseek.tensor([prompt + greedy])))[0]
    best = np.partition(logits, -2, axis=-1)[:, -2:]
    for place, token in enumerate(greedy, start=len(prompt) - 1):
        if best[place, 1] - best[place, 0] > 1e-4:
            assert token == logits[place].argmax(), place


def test_past_the_context_other_kinds_than_dense_read_its_last_half_anew():
    model = make(attention="moba").eval()
    prompt = array(tokens(1, 64))[0].tolist()
    text = prompt + list(stream(model, prompt, 2, temperature=0.0))
    with deepseek.no_grad():
        logits = array(model(deepseek.tensor([text[65 - 33 : 65]])))
    assert text[65] == logits[0, -1].argmax()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for number in range(40):
        (folder / f"m{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 6)
    return load_corpus(folder, held_out_share=0.2)


def run_config(changes: dict, **run) -> TrainConfig:
    return TrainConfig.from_dict({"model": {**SMALL, **changes}, "run": {"steps": 8, "batch": 2, **run}})


@each
def test_a_resumed_run_equals_an_undisturbed_one(changes, corpus, tmp_path):
    whole = Trainer(run_config(changes), corpus)
    losses = [progress.bits_per_byte for progress in whole.steps()]
    assert losses[-1] < losses[0]
    first = Trainer(run_config(changes), corpus)
    early = [first.train_step() for _ in range(2)]  # within the indexers' warm-up
    first.save(tmp_path, "train")
    second = Trainer(run_config(changes), corpus)
    assert second.restore_newest(tmp_path).step == 2
    assert early + [progress.bits_per_byte for progress in second.steps()] == losses
    for (name, a), b in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert deepseek.equal(a, b), name


@each
def test_a_loaded_model_computes_what_was_saved(changes, corpus, tmp_path):
    trainer = Trainer(run_config(changes), corpus)
    for _ in range(4):
        trainer.train_step()
    trainer.save(tmp_path, "train")
    model, ids = load_model(find_checkpoint(tmp_path)), tokens(1, 64)
    trainer.model.begin_step(trainer.step)
    trainer.model.eval()
    with deepseek.no_grad():
        assert deepseek.equal(model(ids), trainer.model(ids))


# --- the indexers of dsa ----------------------------------------------------------------------------------------------


indexed = pytest.mark.parametrize("kind", ["dsa", "v4"])


@indexed
def test_the_indexers_loss_trains_the_indexers_alone(kind):
    model = make(attention=kind)
    ids = tokens(2, 64)
    model(ids)
    model.auxiliary_loss().backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
    assert touched
    assert all(".indexer." in name for name in touched)
    model.zero_grad()
    model.loss(ids, ids).backward()
    assert all(p.grad is None for name, p in model.named_parameters() if ".indexer." in name)


@indexed
def test_attention_is_dense_until_the_indexers_are_warm(kind):
    model, ids = make(attention=kind, index_topk=4).eval(), tokens(1, 64)
    with deepseek.no_grad():
        sparse = array(model(ids))
        model.begin_step(2)
        dense = array(model(ids))
        for name, parameter in model.named_parameters():
            if ".indexer." in name:
                parameter.normal_()
        assert np.array_equal(dense, array(model(ids)))  # whatever they would pick
        model.begin_step(3)
        assert not np.array_equal(dense, array(model(ids)))
    assert not np.array_equal(sparse, dense)


@indexed
def test_training_makes_the_indexers_like_the_attention(kind):
    model, ids = make(attention=kind, index_warmup=10**6), tokens(4, 64)
    model.begin_step(0)
    indexers = [p for name, p in model.named_parameters() if ".indexer." in name]
    optimizer = deepseek.optim.AdamW(indexers, lr=1e-2)
    losses = []
    for _ in range(60):
        model(ids)
        loss = model.auxiliary_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0], losses[::10]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "linear"}, "model.attention must be one of dense, mla, nsa, moba, dsa, v4, got linear"),
        ({"ffn": "glu"}, "model.ffn must be one of dense, moe"),
        ({"ffn": "dense", "ffn_dim": 0}, "ffn_dim"),
        ({"attention": "mla", "qk_rope_head_dim": 7}, "qk_rope_head_dim must be even"),
        ({"attention": "dsa", "q_lora_rank": 0}, "q_lora_rank must be at least 1"),
        ({"attention": "dsa", "index_head_dim": 6}, "index_head_dim must be even and at least"),
        ({"attention": "moba", "block_size": 24}, "multiple of 16"),
        ({"attention": "nsa", "selected_blocks": 2}, "selected_blocks must be at least 3"),
        ({"attention": "v4", "o_groups": 3}, "o_groups must divide"),
        ({"attention": "v4", "qk_rope_head_dim": 18, "index_head_dim": 32}, "at most model.dim / model.n_heads = 16"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict({**SMALL, **changes})


def test_settings_of_other_kinds_are_not_looked_at():
    assert ModelConfig(attention="moba", window=9, block_size=64, ffn_dim=5).unread() == ["ffn_dim", "window"]
    ModelConfig.from_dict({**SMALL, "attention": "dense", "q_lora_rank": 0, "qk_rope_head_dim": 7, "block_size": 17})
    mla = ModelConfig.from_dict({**SMALL, "attention": "mla"})
    assert mla.misfits(ModelConfig.from_dict({**SMALL, "attention": "mla", "block_size": 32})) == []
    assert mla.misfits(ModelConfig.from_dict({**SMALL, "attention": "mla", "kv_lora_rank": 8})) == ["kv_lora_rank"]
    assert mla.misfits(ModelConfig.from_dict({**SMALL, "attention": "dsa"})) == ["attention"]
    dense = ModelConfig.from_dict({**SMALL, "ffn": "dense"})
    assert dense.misfits(ModelConfig.from_dict({**SMALL, "ffn": "dense", "expert_dim": 12})) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ffn", ["dense", "moe"])
def test_the_defaults_of_each_kind_fit_together(kind, ffn):
    assert ModelConfig(attention=kind, ffn=ffn).to_dict()["attention"] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_estimate_is_near_the_measured_one(kind):
    config = ModelConfig(attention=kind, context=256, ngram_rows=512, index_warmup=0)
    deepseek.manual_seed(0)
    model, ids = LanguageModel(config), tokens(4, 256)
    with deepseek.no_grad():
        model.loss(ids, ids)
    before = deepseek.memory_stats()["allocated_bytes"]
    loss = model.loss(ids, ids)
    kept = deepseek.memory_stats()["allocated_bytes"] - before
    assert loss.item() > 0
    assert 0.9 * kept < model_size(config, batch=4).activation_bytes < 2 * kept


CONFIGS = sorted((Path(__file__).parents[2] / "examples" / "configs").glob("*.toml"))


def test_there_is_a_configuration_of_each_kind():
    assert {load_config(path).model.attention for path in CONFIGS} == set(KINDS) - {"dense"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_command_line_trains_continues_and_generates(path, corpus, tmp_path, monkeypatch, capsys):
    pytest.importorskip("typer")
    from deepseek.cli import main

    (tmp_path / "text").mkdir()
    for number in range(40):
        (tmp_path / "text" / f"m{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 40)
    monkeypatch.chdir(tmp_path)
    changes = ["data.path=text", "data.held_out=0.2", "data.eval_bytes=100", "run.steps=3", "run.batch=1"]
    changes += ["model.context=128", "model.ngram_rows=64", "model.index_warmup=1", "model.index_topk=16"]
    arguments = ["train", "--config", str(path), "--out", "run", "--json"]
    for change in changes:
        arguments += ["--set", change]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["steps"] == 3
    assert main(["train", "run", "--set", "run.steps=4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed_at_step"] == 3
    assert main(["generate", "--checkpoint", "run", "--prompt", "def f", "--max-bytes", "140"]) == 0
    assert capsys.readouterr().out.startswith("def f")
