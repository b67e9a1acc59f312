"""A family of models is a configuration and a model: trainer, evaluation, generation and command line take any.

The second family is defined here, as a user would: everything that works for it knows no more than the protocol says.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
from pathlib import Path
from typing import ClassVar

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.attention import MultiHeadAttention
from deepseek.models import (
    CausalLM,
    CausalLMConfig,
    DecodeCache,
    DecodeState,
    LanguageModel,
    ModelConfig,
    ModelSize,
    config_class,
    config_from_dict,
    families,
    family,
    register,
    stream,
)
from deepseek.models.ranges import check_ranges, setting
from deepseek.train import (
    CheckpointError,
    ConfigError,
    TrainConfig,
    Trainer,
    bits_per_byte,
    find_checkpoint,
    load_config,
    load_model,
)

PACKAGE = Path(deepseek.__file__).parent


@dataclasses.dataclass(frozen=True)
class TinyConfig(CausalLMConfig):
    """One layer of attention.

    Attributes:
        vocab_size: Number of token ids.
        context: Longest sequence.
        width: Features of a token.
    """

    model_type: ClassVar[str] = "tiny"

    vocab_size: int = setting(256, 1, 2**20)
    context: int = setting(16, 1, 2**20, shapes=False)
    width: int = setting(8, 2, 2**20)

    def __post_init__(self) -> None:
        check_ranges("model", self, ValueError)

    def build(self) -> Tiny:
        return Tiny(self)

    def size(self, batch: int) -> ModelSize:
        parameters = 2 * self.vocab_size * self.width + 5 * self.width**2
        return ModelSize.of_floats(parameters, parameters, batch * self.context * 10 * self.width)


class Tiny(CausalLM):
    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.attention = MultiHeadAttention(config.width, 2, causal=True, rope_theta=100.0, gate=False)
        self.dense = nn.Linear(config.width, config.width, bias=False)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.steps: list[int] = []

    def new_cache(self) -> DecodeCache:
        return DecodeCache([self.attention.new_cache()])

    def forward(self, tokens: deepseek.Tensor, cache: DecodeCache | None = None) -> deepseek.Tensor:
        x = self.embed_tokens(tokens)
        x = x + self.attention(x, cache=None if cache is None else cache.caches[0])
        return self.lm_head(x + nn.functional.silu(self.dense(x)))

    def begin_step(self, step: int) -> None:
        self.steps.append(step)

    def end_step(self) -> None:
        self.steps.append(-1)


@pytest.fixture
def tiny(monkeypatch):
    """The family, known as long as the test runs."""
    monkeypatch.setattr(family, "_FAMILIES", dict(family._FAMILIES))
    return register(TinyConfig)


REST = '[data]\npath = "text"\neval_bytes = 300\n[run]\nsteps = 12\nbatch = 2\ncheckpoint_every = 3\n'


@pytest.fixture
def tiny_folder(tiny, tmp_path, monkeypatch):
    """A working directory with some text, and a configuration of each family."""
    (tmp_path / "text").mkdir()
    for number in range(120):
        (tmp_path / "text" / f"m{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 4)
    (tmp_path / "tiny.toml").write_text(f'[model]\nmodel_type = "tiny"\nwidth = 12\n{REST}')
    (tmp_path / "small.toml").write_text(f"[model]\ndim = 16\ncontext = 16\nngram_rows = 32\n{REST}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands():
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    from deepseek.cli import main

    return main


# --- the second family ------------------------------------------------------------------------------------------------
def test_a_second_family_trains_resumes_and_generates_by_the_same_commands(tiny_folder, capsys):
    main = commands()
    assert main(["train", "tiny.toml", "--dry-run", "--json"]) == 0
    size = json.loads(capsys.readouterr().out)
    assert main(["train", "tiny.toml", "--out", "run", "--json", "--set", "optim.lr=0.02"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 12 and 0 < result["held_out_bits_per_byte"] < 9 and result["busiest_expert"] is None
    model = load_model(find_checkpoint(tiny_folder / "run"))
    assert type(model) is Tiny and model.config == TinyConfig(width=12) and model.steps == [12]
    assert result["parameters"] == size["parameters"] == sum(p.numel() for p in model.parameters())

    assert main(["train", "run", "--set", "run.steps=15"]) == 0
    assert "continuing from run/step-12" in capsys.readouterr().err
    texts = []
    for temperature in ("0", "1", "1"):
        assert main(["generate", "--checkpoint", "run", "--max-bytes", "40", "--temperature", temperature]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[1] == texts[2] and all(len(text.encode()) >= 40 for text in texts)

    assert main(["train", "--out", "next", "--set", "data.path=text", "--set", "run.init_from=run",
                 "--set", "run.steps=1", "--set", "run.batch=1"]) == 0  # fmt: skip
    assert type(load_model(find_checkpoint(tiny_folder / "next"))) is Tiny


@pytest.mark.parametrize("stop", [1, 7])
def test_its_resumed_run_equals_an_undisturbed_one(tiny_folder, stop):
    config = load_config(tiny_folder / "tiny.toml")
    corpus = cli_corpus(tiny_folder)
    whole = Trainer(config, corpus)
    losses = [progress.bits_per_byte for progress in whole.steps()]
    first = Trainer(config, corpus)
    begun = [first.train_step() for _ in range(stop)]
    first.save(tiny_folder / "run", "train")
    second = Trainer(config, corpus)
    assert second.restore_newest(tiny_folder / "run").step == stop
    assert begun + [progress.bits_per_byte for progress in second.steps()] == losses
    there = second.model.state_dict()
    assert all(deepseek.equal(there[name], value) for name, value in whole.model.state_dict().items())
    assert whole.model.steps[:4] == [0, -1, 1, -1]
    decayed, others = whole.optimizer.param_groups
    assert (len(decayed["params"]), len(others["params"])) == (6, 1)  # an embedding is not decayed


def cli_corpus(folder):
    from deepseek.train import load_corpus

    return load_corpus(folder / "text")


@pytest.mark.parametrize("new", [10, 40])
def test_its_text_is_that_of_the_whole_forward(tiny, new):
    deepseek.manual_seed(1)
    model = TinyConfig().build().eval()
    got = [3, 1, 4, *stream(model, [3, 1, 4], new, temperature=0)]
    text, seen = [3, 1, 4], 0
    for length in range(3, 3 + new):
        if length - seen > 16:  # the context is full: its last half is read anew
            seen = length - 9
        with deepseek.no_grad():
            logits = model(deepseek.tensor([text[seen:]], dtype=deepseek.int64))
        text.append(int(logits[0, -1].argmax()))
    assert got == text
    assert model.generate(deepseek.tensor([[3, 1, 4]]), new, temperature=0)[0].tolist() == text
    assert bits_per_byte(model, np.arange(60, dtype=np.uint8)) > 0


# --- settings and the registry ----------------------------------------------------------------------------------------
def test_settings_of_another_family_start_from_its_defaults(tiny_folder):
    config = load_config(tiny_folder / "tiny.toml", ["model.context=9"])
    assert config.model == TinyConfig(context=9, width=12)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert load_config(None, ["model.context=9"], base=config).model == config.model
    assert load_config(None, ["model.model_type=demo"], base=config).model == ModelConfig()
    assert load_config(None, ["model.model_type=tiny"]).model == TinyConfig()
    assert load_config(None, ["model.model_type=demo", "model.dim=32"]).model == ModelConfig(dim=32)
    for override, message in [
        ("model.dim=3", "unknown setting 'model.dim'; known in this section: vocab_size, context, width"),
        ("model.width=1", "model.width must be at least 2"),
        ("model.width=1.5", "model.width must be an integer"),
    ]:
        with pytest.raises(ConfigError, match=message):
            load_config(tiny_folder / "tiny.toml", [override])


@pytest.mark.parametrize("given", ["llama", 3, [1]])
def test_an_unknown_family_is_named_with_the_known_ones(given, tmp_path, capsys):
    words = f"model.model_type must be one of {', '.join(families())}, got {given!r}"
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict({"model": {"model_type": given}})
    assert str(caught.value) == words
    with pytest.raises(ValueError) as raised:
        config_from_dict({"model_type": given})
    assert str(raised.value) == words
    main = commands()
    assert main(["train", "--dry-run", "--set", f"model.model_type={json.dumps(given)}"]) == 2
    assert words in capsys.readouterr().err


def test_a_run_cannot_change_its_family(tiny_folder, capsys):
    main = commands()
    assert main(["train", "tiny.toml", "--out", "run", "--set", "run.steps=1"]) == 0
    capsys.readouterr()
    assert main(["train", "small.toml", "--out", "run"]) == 2  # the file names no family, so the run's is meant
    assert "unknown setting 'model.dim'" in capsys.readouterr().err
    demo = ["--set", "model.model_type=demo"]
    assert main(["train", "run", *demo, "--set", "run.steps=1"]) == 1
    assert "was trained with model.model_type = 'tiny', not 'demo'" in capsys.readouterr().err
    assert main(["train", "small.toml", "--out", "new", *demo, "--set", "run.init_from=run"]) == 1
    assert "run.init_from: model.model_type = demo, run has tiny; without such settings" in capsys.readouterr().err
    trainer = Trainer(load_config(tiny_folder / "small.toml"), cli_corpus(tiny_folder))
    with pytest.raises(CheckpointError, match="model_type"):
        trainer.restore_newest(tiny_folder / "run")


def test_the_registry(tiny):
    assert families() == ["demo", "tiny"]
    assert config_class("demo") is ModelConfig and config_class("tiny") is TinyConfig
    assert config_from_dict({"width": 4, "model_type": "tiny"}) == TinyConfig(width=4)
    assert config_from_dict({}) == ModelConfig()  # written before there were families
    assert register(TinyConfig) is TinyConfig
    with pytest.raises(ValueError, match="there is a family 'tiny' already"):
        register(dataclasses.make_dataclass("Other", [], bases=(TinyConfig,), frozen=True))
    for wrong in (Tiny, TinyConfig(), CausalLMConfig, 3):
        with pytest.raises(TypeError, match="register takes a dataclass derived from CausalLMConfig"):
            register(wrong)
    with pytest.raises(ValueError, match="model_type must be 'tiny' for a TinyConfig, got 'demo'"):
        TinyConfig.from_dict({"model_type": "demo"})
    assert TinyConfig().misfits(ModelConfig()) == ["model_type"]
    assert TinyConfig().misfits(TinyConfig(context=3, width=4)) == ["width"]


def test_what_a_family_has_to_say_is_asked_for(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Empty(CausalLMConfig):
        model_type: ClassVar[str] = "empty"

    with pytest.raises(NotImplementedError, match="Empty does not say how its model is built"):
        Empty().build()
    with pytest.raises(NotImplementedError, match="Empty does not say how large"):
        Empty().size(1)
    with pytest.raises(NotImplementedError, match="CausalLM has no cache"):
        CausalLM().new_cache()
    assert Empty().remarks() == [] and not Empty().routed


# --- the code around --------------------------------------------------------------------------------------------------
def imports_of_models(path: Path) -> set[str]:
    """What a file imports from deepseek.models: "family.register" for `from deepseek.models.family import register`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepseek.models"):
            below = (node.module or "").removeprefix("deepseek.models").strip(".")
            found |= {f"{below}.{alias.name}".strip(".") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "deepseek":
            found |= {alias.name for alias in node.names if alias.name == "models"}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("deepseek.models")}
    return found


def test_trainer_evaluation_and_commands_know_no_family():
    files = [*PACKAGE.glob("train/*.py"), *PACKAGE.glob("cli/*.py"), *PACKAGE.glob("models/*.py")]
    used = {(path.name, name) for path in files if path != PACKAGE / "models" / "__init__.py"
            for name in imports_of_models(path)}  # fmt: skip
    assert len(used) > 10
    of_the_demo = {cls.__name__ for cls in (DecodeState, LanguageModel, ModelConfig)} | {"models"}
    for name, imported in used:
        assert imported not in of_the_demo and not imported.startswith("demo"), f"{name} imports {imported}"


def test_the_demos_modules_keep_their_former_names():
    from deepseek.models import language_model
    from deepseek.models.config import ModelConfig as same
    from deepseek.models.size import ModelSize as size

    assert same is ModelConfig and size is ModelSize and language_model.LanguageModel is LanguageModel


@pytest.mark.parametrize("attention", ["dense", "mla", "nsa", "moba", "dsa", "v4"])
def test_decoding_allocates_its_memory_and_does_not_join_it_anew(attention):
    model = ModelConfig(dim=32, attention=attention, context=512, n_routed_experts=0, ngram_rows=16).build().eval()
    cache = model.new_cache()
    addresses: dict[str, list[int]] = {}
    with deepseek.no_grad():
        for token in range(200):
            model(deepseek.tensor([[token]]), cache)
            for name, memory in streams(cache).items():
                addresses.setdefault(name, []).append(0 if memory is None else memory.data_ptr())
    assert len(addresses) > 2 and cache.position == 200
    for name, places in addresses.items():
        # Memory for 64 rows, then doubled; rows of a window are moved together now and then.
        assert sum(a != b for a, b in itertools.pairwise(places)) <= 200 / 32, name


def streams(cache: DecodeState) -> dict[str, deepseek.Tensor | None]:
    found = {f"{layer}.{name}": s._data for layer, one in enumerate(cache.caches) for name, s in one._streams().items()}
    return {**found, "tail": cache._tokens._data}


def test_the_tail_of_a_text_is_its_last_tokens():
    model = ModelConfig(dim=16, n_routed_experts=0, ngram_rows=16, ngram_orders=(2, 4)).build().eval()
    state = DecodeState(model)
    assert state.tail is None
    seen = [0, 0, 0]
    with deepseek.no_grad():
        for part in ([5, 6], [7], [8, 9, 10, 11, 12], *([n % 200] for n in range(150))):
            model(deepseek.tensor([part]), state)
            seen += part
            assert state.tail.tolist() == [seen[-3:]]
