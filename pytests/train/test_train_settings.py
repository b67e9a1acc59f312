"""Settings of a run: from files and overrides, in range, and refused in words that help."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re

import pytest
from deepseek.models import LanguageModel, ModelConfig
from deepseek.models.ranges import Range
from deepseek.train import ConfigError, load_config
from deepseek.train.config import SECTIONS


def test_settings_from_files_and_overrides(tmp_path):
    toml = tmp_path / "a.toml"
    toml.write_text("[optim]\nlr = 1\n[model]\ndim = 64\nn_heads = 4\nngram_orders = [2]\n")
    read = load_config(toml, ["run.steps=7", "data.path=some/where", "model.ngram_orders=[2, 5]"])
    assert (read.optim.lr, read.model.dim, read.run.steps) == (1.0, 64, 7)
    assert read.data.path == "some/where"
    assert read.model.ngram_orders == (2, 5)
    (tmp_path / "a.json").write_text(json.dumps(read.to_dict()))
    assert load_config(tmp_path / "a.json") == read
    assert load_config(None, ["run.keep=4"], base=read).run == dataclasses.replace(read.run, keep=4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr", "section.name=value"),
        ("lr=3", "section.name=value"),
        ("optim.rate=3", "unknown setting 'optim.rate'"),
        ("optimizer.lr=3", "unknown section 'optimizer'"),
        ("optim.lr=fast", "must be a number"),
        ("optim.lr=true", "must be a number"),
        ("optim.lr=-1", "optim.lr must be above 0"),
        ("optim.lr=nan", "optim.lr must be above 0"),
        ("run.steps=1.5", "must be an integer"),
        ("run.steps=-1", "run.steps"),
        ("run.steps=0", "one of run.steps and run.seconds"),
        ("run.keep=1", "run.keep"),
        ("run.batch=0", "run.batch"),
        ("run.seed=-3", "run.seed"),
        ("data.held_out=1.0", "data.held_out"),
        ("data.suffix=3", "must be a string"),
        ("model.dim=7", "even multiple"),
        ("model.vocab_size=100", "vocab_size"),
        ("model.ngram_orders=3", "list of integers"),
    ],
)
def test_wrong_settings_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def numeric_settings() -> list[tuple[str, Range, bool, object]]:
    return [
        (f"{section}.{item.name}", item.metadata["range"], type(item.default) is float, item.default)
        for section, kind in SECTIONS.items()
        for item in dataclasses.fields(kind)
        if type(item.default) in (int, float, tuple)
    ]


@pytest.mark.parametrize(
    ("name", "allowed", "real", "default"), numeric_settings(), ids=lambda x: x if type(x) is str else ""
)
def test_every_number_has_a_finite_range(name, allowed, real, default):
    outside = [allowed.low if allowed.above else allowed.low - 1, allowed.high if allowed.below else allowed.high * 2]
    outside += [-1, 10**30, 10**400]
    outside += ["nan", "inf", "-inf", 1e300] if real else []
    for value in outside:
        number = int(value) if not real and not isinstance(value, str) else value
        text = f"[{number}]" if isinstance(default, tuple) else str(number)
        with pytest.raises(ConfigError, match=rf"^{re.escape(name)} must( all)? be {re.escape(str(allowed))}, got"):
            load_config(None, [f"{name}={text}"])
    assert all(number in allowed for number in (default if isinstance(default, tuple) else [default]))


@pytest.mark.parametrize("kind", ["dense", "mla", "nsa", "moba", "dsa", "v4", "dense ffn"])
@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(ModelConfig)])
def test_settings_say_whether_weights_depend_on_them(name, kind):
    if (kind, name) == ("moba", "n_heads"):
        return  # the same shapes, which mean something else
    attention, ffn = ("dense", "dense") if kind == "dense ffn" else (kind, "moe")
    base = ModelConfig(
        dim=32, n_heads=2, attention=attention, ffn=ffn, n_routed_experts=3, ngram_orders=(2, 3), ngram_rows=32,
        context=64, index_topk=64, qk_rope_head_dim=4, index_head_dim=8,
    )  # fmt: skip
    changed: dict[str, object] = {
        "attention": "mla" if attention != "mla" else "dense",
        "ffn": "dense" if ffn == "moe" else "moe",
        "block_size": 64,
        "qk_rope_head_dim": 8,
        "index_head_dim": 12,
        "o_groups": 2,
        "dim": 64,
        "n_heads": 4,
        "top_k": 1,
        "ngram_orders": (2,),
        "bias_update_rate": 0.5,
        "norm_eps": 0.1,
    }
    value = getattr(base, name)
    other = dataclasses.replace(base, **{name: changed.get(name, value + 1 if type(value) is int else 1.5)})

    def shapes(config):
        return {key: tuple(t.shape) for key, t in LanguageModel(config).state_dict().items()}

    assert other != base
    assert (shapes(other) != shapes(base)) == (base.misfits(other) == [name])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "steps = 1\n", r"'steps' is a setting, it belongs under \[run\]"),
        ("a.toml", "[optim\n", "cannot be read"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[1]", "tables"),
        ("a.json", '{"optim": 3}', "optim must be a table"),
        ("a.ini", "x", "must end in"),
        ("a.toml", b"\xff\xfe", "UTF-8"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_yaml_needs_its_package(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("optim:\n  lr: 0.5\n")
    if importlib.util.find_spec("yaml"):
        assert load_config(path).optim.lr == 0.5
    else:
        with pytest.raises(ConfigError, match="pyyaml"):
            load_config(path)
