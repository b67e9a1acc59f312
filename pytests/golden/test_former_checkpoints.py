"""Checkpoints written before the mixture of experts came from deepseek.moe load, compute the same and train on.

golden/former/ was written by the code of then: six steps of a tiny model on the text below. ``expected.json`` holds
logits of the saved weights, and the losses of the six steps that followed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import deepseek
import numpy as np
import pytest
from deepseek.io import safetensors
from deepseek.models import LanguageModel, ModelConfig
from deepseek.models.demo.former_names import renamed
from deepseek.train import TrainConfig, Trainer, find_checkpoint, load_corpus, load_model, load_weights

FORMER = Path(__file__).with_name("former")
each = pytest.mark.parametrize("kind", ["moe", "dense"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for number in range(40):
        (folder / f"m{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 4)
    return load_corpus(folder, ".py", 0.2)


def expected(kind: str) -> dict[str, list[float]]:
    return json.loads((FORMER / kind / "expected.json").read_text())


def logits(model: LanguageModel) -> np.ndarray:
    ids = deepseek.arange(32).reshape(2, 16) * 7 % 256
    with deepseek.no_grad():
        return model.eval()(ids)[:, -1, :8].numpy().ravel()


@each
def test_the_model_computes_what_it_did(kind):
    model = load_model(find_checkpoint(FORMER / kind))
    np.testing.assert_allclose(logits(model), expected(kind)["logits"], rtol=1e-4, atol=1e-5)


@each
def test_a_run_goes_on_as_it_would_have(kind, corpus, tmp_path):
    shutil.copytree(FORMER / kind, tmp_path / "run")
    found = find_checkpoint(tmp_path / "run")
    trainer = Trainer(TrainConfig.from_dict(found.info["config"]), corpus)
    assert trainer.begin(tmp_path / "run").step == 6
    losses = [progress.bits_per_byte * 1.0 for progress in trainer.steps()]
    np.testing.assert_allclose(losses, expected(kind)["losses"], rtol=2e-4)
    trainer.save(tmp_path / "run", "train")
    again = Trainer(trainer.config, corpus)
    assert again.restore_newest(tmp_path / "run").step == 12  # written with the names of today


@each
@pytest.mark.parametrize("suffix", ["ds", "safetensors"])
def test_a_new_run_starts_from_such_weights_alone(kind, suffix, tmp_path):
    found = find_checkpoint(FORMER / kind)
    weights, file = found.load("model"), tmp_path / f"weights.{suffix}"
    safetensors.save_file(weights, file) if suffix == "safetensors" else deepseek.save(weights, str(file))
    model = LanguageModel(TrainConfig.from_dict(found.info["config"]).model)
    load_weights(model, file)
    np.testing.assert_allclose(logits(model), expected(kind)["logits"], rtol=1e-4, atol=1e-5)


def test_names_of_today_stay_as_they_are():
    found = find_checkpoint(FORMER / "moe")
    once = renamed(found.load("model"))
    assert renamed(once) is once
    assert not any(".router." in name for name in once)
    optimizer = found.load("training")["optimizer"]
    assert LanguageModel(ModelConfig()).renamed_optimizer(optimizer, once) == optimizer


def test_moments_follow_their_parameters():
    found = find_checkpoint(FORMER / "moe")
    config, weights = TrainConfig.from_dict(found.info["config"]), found.load("model")
    model = LanguageModel(config.model)
    named = list(model.named_parameters())
    then = model.parameter_groups([(n, v) for n, v in weights.items() if not n.endswith("router.bias")])
    today = model.parameter_groups(named)
    assert sorted(map(len, then)) == sorted(map(len, today))
    made = model.renamed_optimizer(found.load("training")["optimizer"], weights)
    shapes = {name: value.shape for name, value in named}
    for group, names in zip(made["param_groups"], today, strict=True):
        for place, name in zip(group["params"], names, strict=True):
            assert made["state"][place]["exp_avg"].shape == shapes[name], name
