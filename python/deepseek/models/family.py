"""What a family of models is: its configuration and size, and the registry by ``model_type``. Loads no model."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

if TYPE_CHECKING:
    from deepseek.models.causal_lm import CausalLM

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class ModelSize:
    """Parameter counts and training memory.

    Attributes:
        parameters: All of them.
        active: Those that take part in the arithmetic of one token (a table lookup reads one row).
        weights_bytes: Memory of the weights, and also of their gradients.
        optimizer_bytes: Memory of AdamW's two averages.
        activation_bytes: Estimate of what one training step needs besides: what it keeps for the backward pass, and
            working memory of one layer.
    """

    parameters: int
    active: int
    weights_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @classmethod
    def of_floats(cls, parameters: int, active: int, activations: int) -> ModelSize:
        """The size where weights, averages and ``activations`` values are float32."""
        weights = _FLOAT * parameters
        return cls(parameters, active, weights, 2 * weights, _FLOAT * activations)

    @property
    def total_bytes(self) -> int:
        """Weights, gradients, optimizer state and activations."""
        return 2 * self.weights_bytes + self.optimizer_bytes + self.activation_bytes


@dataclass(frozen=True)
class CausalLMConfig:
    """The configuration of a family of language models: a frozen dataclass of settings, each with a default.

    A family derives from it, sets ``model_type``, has the settings (or properties) ``vocab_size`` and ``context``, and
    implements :meth:`build` and :meth:`size`. Settings are made by :func:`deepseek.models.ranges.setting`, which gives
    them a range and says whether weights depend on them, and explained under "Attributes:" of the docstring.

    Attributes:
        model_type: The name of the family, ``model.model_type`` of a run's settings.
    """

    model_type: ClassVar[str]

    if TYPE_CHECKING:  # a property that is there at run time would be the default of a dataclass's field

        @property
        def vocab_size(self) -> int:
            """Number of token ids."""

        @property
        def context(self) -> int:
            """Longest sequence the model is trained on, in tokens."""

    @property
    def routed(self) -> bool:
        """Whether tokens are sent to experts, whose load is worth showing."""
        return False

    def build(self) -> CausalLM:
        """A model of this configuration, with fresh weights."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its model is built")

    def size(self, batch: int) -> ModelSize:
        """Counts the parameters and estimates training memory for ``batch`` sequences of full context."""
        raise NotImplementedError(f"{type(self).__name__} does not say how large its model is")

    def remarks(self) -> list[str]:
        """What somebody who trains such a model may want to know about the settings; mostly nothing."""
        return []

    def misfits(self, other: CausalLMConfig) -> list[str]:
        """Names of the settings by which ``other`` has other weights than this model."""
        if other.model_type != self.model_type:
            return ["model_type"]
        return [
            item.name
            for item in fields(self)
            if self._shapes(item) and getattr(self, item.name) != getattr(other, item.name)
        ]

    def _shapes(self, item: Field[Any]) -> bool:
        """Whether the model's weights depend on a setting."""
        return bool(item.metadata.get("shapes", True))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain scalars and lists, as saved in checkpoints and TOML."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {"model_type": self.model_type, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a config; an unknown name is a ValueError that lists the known ones."""
        given = dict(values)
        model_type = given.pop("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(f"model.model_type must be {cls.model_type!r} for a {cls.__name__}, got {model_type!r}")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(f"unknown model setting {unknown[0]!r}; known: {', '.join(known)}")
        return cls(**given)


_Config = TypeVar("_Config", bound=CausalLMConfig)

# One line a family: its model_type, and its configuration, which is imported when somebody asks for it.
_FAMILIES: dict[str, str | type[CausalLMConfig]] = {
    "demo": "deepseek.models.demo.config:ModelConfig",
}
DEFAULT = "demo"  # of settings that name no family; all runs before there were several


def families() -> list[str]:
    """The ``model_type`` of every family there is."""
    return list(_FAMILIES)


def register(config: type[_Config]) -> type[_Config]:
    """Makes a family known by its configuration's ``model_type``: trainer and command line take it from there on.

    Raises:
        TypeError: It is no configuration.
        ValueError: Another family has this ``model_type``.
    """
    named = isinstance(getattr(config, "model_type", None), str)
    if not (named and isinstance(config, type) and issubclass(config, CausalLMConfig)):
        raise TypeError(f"register takes a dataclass derived from CausalLMConfig with a model_type, got {config!r}")
    if _FAMILIES.setdefault(config.model_type, config) is not config:
        raise ValueError(f"there is a family {config.model_type!r} already: {_FAMILIES[config.model_type]}")
    return config


def config_class(model_type: str) -> type[CausalLMConfig]:
    """The configuration of a family.

    Raises:
        ValueError: There is no such family.
    """
    found = _FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if found is None:
        raise ValueError(f"model.model_type must be one of {', '.join(_FAMILIES)}, got {model_type!r}")
    if isinstance(found, str):
        module, _, name = found.partition(":")
        found = _FAMILIES[model_type] = getattr(importlib.import_module(module), name)
    assert not isinstance(found, str)
    return found


def config_from_dict(values: Mapping[str, Any]) -> CausalLMConfig:
    """Builds the configuration of the family that ``values["model_type"]`` names."""
    return config_class(values.get("model_type", DEFAULT)).from_dict(values)
