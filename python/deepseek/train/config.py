"""Settings of a training run: TOML file, then ``--set`` overrides, checked before anything else happens."""

from __future__ import annotations

import json
import math
import os.path
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from deepseek.models.family import DEFAULT, CausalLMConfig, config_class
from deepseek.models.ranges import check_ranges, setting


class ConfigError(ValueError):
    """A setting is unknown, has the wrong type or lies outside its range."""


def _path() -> Any:
    """A field for the name of a file or folder, empty for none; ~ stands for the home folder, as in a shell."""
    return field(default="", metadata={"path": True})


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from: see :func:`deepseek.train.load_corpus`.

    Attributes:
        path: Folder or file to train on; empty: the standard library of the running Python.
        suffix: End of the names of the files that are read in a folder; empty: all files.
        held_out: Share of the files (of the bytes, where ``path`` is a file) that is not trained on but scored.
        eval_bytes: Held-out bytes that are scored at the end.
    """

    path: str = _path()
    suffix: str = ".py"
    held_out: float = setting(0.08, 0, 1, above=True, below=True)
    eval_bytes: int = setting(262144, 1, 2**40)

    def __post_init__(self) -> None:
        check_ranges("data", self, ConfigError)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule: linear warm-up, then linear decay to zero.

    Attributes:
        lr: Highest learning rate.
        table_lr: Highest learning rate of the n-gram tables, whose rows see few gradients.
        beta1: Decay of AdamW's mean of gradients.
        beta2: Decay of AdamW's mean of squared gradients.
        weight_decay: Of the matrices; norms, embedding and tables are not decayed.
        warmup: Share of the run in which the learning rate rises.
        clip: Highest norm of all gradients together; longer ones are scaled down.
    """

    lr: float = setting(3e-3, 0, 100, above=True)
    table_lr: float = setting(9e-3, 0, 100, above=True)
    beta1: float = setting(0.9, 0, 1, below=True)
    beta2: float = setting(0.97, 0, 1, below=True)
    weight_decay: float = setting(0.1, 0, 100)
    warmup: float = setting(0.03, 0, 1, below=True)
    clip: float = setting(1.0, 0, 1e9, above=True)

    def __post_init__(self) -> None:
        check_ranges("optim", self, ConfigError)


@dataclass(frozen=True)
class RunConfig:
    """Length, start and housekeeping.

    Attributes:
        steps: The run ends after this many steps; 0: no limit.
        seconds: The run ends after this much time spent in steps, if ``steps`` are not done before; 0: no limit.
        batch: Windows of ``model.context`` bytes per step.
        seed: Of the weights and of the order of the text.
        init_from: A run's folder, a step-N folder, or a file of weights (``deepseek.save`` of a ``state_dict()``, or
            safetensors) that a new run starts from; empty: random weights. Only weights are taken over.
        checkpoint_every: Steps between checkpoints; there is one at the end in any case.
        keep: Checkpoints that are kept (two at least: one could be lost with the disk); older ones are removed.
    """

    steps: int = setting(1500, 0, 10**12)
    seconds: float = setting(0.0, 0, 1e9)
    batch: int = setting(8, 1, 2**31 - 1)
    seed: int = setting(0, 0, 2**63 - 1)
    init_from: str = _path()
    checkpoint_every: int = setting(250, 1, 10**12)
    keep: int = setting(2, 2, 10**6)

    def __post_init__(self) -> None:
        check_ranges("run", self, ConfigError)
        if self.steps == 0 and self.seconds == 0:
            raise ConfigError("one of run.steps and run.seconds must be above 0, got 0 for both")


# The settings of the model are those of its family; here, of the one that is taken where none is named.
SECTIONS: dict[str, Any] = {
    "model": config_class(DEFAULT),
    "data": DataConfig,
    "optim": OptimConfig,
    "run": RunConfig,
}


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run."""

    model: CausalLMConfig = field(default_factory=SECTIONS["model"])
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.model.vocab_size < 256:
            raise ConfigError(f"model.vocab_size must be at least 256 to hold bytes, got {self.model.vocab_size}")

    def to_dict(self) -> dict[str, Any]:
        """Returns nested plain values."""
        return {
            "model": self.model.to_dict(),
            "data": asdict(self.data),
            "optim": asdict(self.optim),
            "run": asdict(self.run),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Builds a config from nested values; raises ConfigError naming the setting that is wrong."""
        unknown = sorted(set(values) - set(SECTIONS))
        if unknown:
            homes = [name for name, kind in SECTIONS.items() if unknown[0] in {item.name for item in fields(kind)}]
            way = f"; {unknown[0]!r} is a setting, it belongs under [{homes[0]}]" if homes else ""
            raise ConfigError(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}{way}")
        built: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            given = values.get(section, {})
            if not isinstance(given, Mapping):
                raise ConfigError(f"{section} must be a table of settings, got {given!r}")
            try:
                built[section] = _section(section, given, kind)
            except ConfigError:
                raise
            except ValueError as error:
                raise ConfigError(str(error)) from None
        return cls(**built)


def _section(section: str, given: Mapping[str, Any], kind: Any) -> Any:
    if section == "model":
        kind = config_class(given.get("model_type", DEFAULT))
        given = {name: value for name, value in given.items() if name != "model_type"}
    return kind(**{name: _typed(f"{section}.{name}", value, kind) for name, value in given.items()})


def _typed(path: str, value: Any, kind: Any) -> Any:
    """Checks one value against the type of its default; a whole number is accepted where a float is expected."""
    name = path.split(".", 1)[1]
    items = {item.name: item for item in fields(kind)}
    if name not in items:
        known = ", ".join(items)
        raise ConfigError(f"unknown setting {path!r}; known in this section: {known} (deepseek config explains them)")
    default = items[name].default
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
            raise ConfigError(f"{path} must be {TYPE_NAMES[tuple]}, got {value!r}")
        return tuple(value)
    if type(default) is float and type(value) is int:
        return float(value) if abs(value) < 2**1023 else math.inf  # its range has the word then
    if type(value) is not type(default):
        raise ConfigError(f"{path} must be {TYPE_NAMES[type(default)]}, got {value!r}")
    return os.path.expanduser(str(value)) if items[name].metadata.get("path") else value


TYPE_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false", tuple: "a list of integers"}


def load_config(path: str | Path | None, overrides: Iterable[str] = (), base: TrainConfig | None = None) -> TrainConfig:
    """Reads a TOML or JSON file over the defaults and applies overrides like ``optim.lr=0.002``.

    Args:
        path: File ending in .toml or .json (.yaml when PyYAML is installed); None takes the base alone.
        overrides: ``section.name=value`` with a TOML value; a word that is not TOML is taken as a string.
        base: Where values not given come from; None takes the defaults.

    Raises:
        ConfigError: The file cannot be read or a setting is wrong.
    """
    given: dict[str, Any] = {}
    if path is not None:
        _merge(given, _read(Path(path)))
    for override in overrides:
        name, sign, text = override.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (sign and dot and section and key):
            raise ConfigError(f"--set needs section.name=value, got {override!r}")
        _merge(given, {section: {key: _parse_value(text.strip())}})
    values = (base or TrainConfig()).to_dict()
    family, model = values["model"]["model_type"], given.get("model")
    if isinstance(model, dict) and model.get("model_type", family) != family:
        values["model"] = {}  # of another family: its settings mean nothing there
    _merge(values, given)
    return TrainConfig.from_dict(values)


def _merge(values: dict[str, Any], update: Mapping[str, Any]) -> None:
    for section, settings in update.items():
        if isinstance(settings, Mapping) and isinstance(values.get(section), dict):
            values[section].update(settings)
        else:
            values[section] = settings  # from_dict names what is wrong with it


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    try:
        values = _parsers(path)(text)
    except ConfigError:
        raise
    except ValueError as error:  # both TOML and JSON errors are ValueErrors
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must hold tables of settings")
    return values


def _parsers(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".toml":
        return tomllib.loads
    if suffix == ".json":
        return json.loads
    if suffix in (".yaml", ".yml"):
        return _yaml_loads(path)
    raise ConfigError(f"{path} must end in .toml or .json")


def _yaml_loads(path: Path) -> Any:
    try:
        import yaml  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        raise ConfigError(f"{path} is YAML, which needs the package pyyaml; TOML and JSON need nothing") from None

    def loads(text: str) -> Any:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from None

    return loads
