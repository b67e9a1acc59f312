"""Rotary position embedding, and how it is stretched to longer contexts. (Su et al., 2021; YaRN, Peng et al., 2023)"""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.nn import functional as F


@public
class RotaryEmbedding:
    """Cosines and sines of the angles by which pairs of features are turned.

    Args:
        dim: Features that are turned, even.
        theta: Base of the frequencies.
        scaling: The checkpoints' ``rope_scaling`` (or ``rope_parameters``): ``{"rope_type" or "type": ...}`` of type
            ``default``, ``linear`` (``factor``), ``llama3`` or ``yarn`` (``factor``,
            ``original_max_position_embeddings``, and optionally ``beta_fast``, ``beta_slow``, ``mscale``,
            ``mscale_all_dim``, ``attention_factor``, ``truncate``). None is ``default``. A ``rope_theta`` in it wins.
        interleaved: Features 2i and 2i + 1 are a pair; otherwise i and i + dim / 2.
        length: Tables of the positions below it are made now, not when they are used (which changes this object, so
            that :func:`deepseek.jit` would not capture it).

    Attributes:
        frequencies: float32 [dim / 2], angle per position.
        factor: What cosines and sines are multiplied by (YaRN).

    Raises:
        ValueError: ``dim`` is odd, or ``scaling`` lacks a setting.
        NotImplementedError: another type of scaling.
    """

    def __init__(
        self,
        dim: int,
        theta: float = 10000.0,
        scaling: Mapping[str, Any] | None = None,
        *,
        interleaved: bool = False,
        length: int = 0,
    ) -> None:
        if dim < 2 or dim % 2:
            raise ValueError(f"rotary embedding turns pairs of features: dim must be even and positive, got {dim}")
        settings = dict(scaling or {})
        kind = settings.get("rope_type", settings.get("type", "default"))
        if kind not in _KINDS:
            raise NotImplementedError(f"rope type {kind!r} is not implemented; there are {', '.join(_KINDS)}")
        theta = float(settings.get("rope_theta", theta))
        self.dim, self.theta, self.kind, self.interleaved = dim, theta, kind, interleaved
        plain = [theta ** -(i / dim) for i in range(0, dim, 2)]
        try:
            scaled, self.factor = _KINDS[kind](plain, dim, theta, settings)
        except KeyError as e:
            raise _lacks(kind, e.args[0], settings) from None
        self.frequencies = deepseek.tensor(scaled, dtype=deepseek.float32)
        self._last: tuple[tuple[int, int], tuple[Tensor, Tensor]] | None = None
        self._length = length
        with deepseek.no_grad():
            self._first = self.tables(deepseek.arange(length))

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, float32 [..., time, dim / 2], of integer positions [..., time]."""
        angles = positions.to(deepseek.float32).unsqueeze(-1) * self.frequencies
        cos, sin = deepseek.cos(angles), deepseek.sin(angles)
        return (cos, sin) if self.factor == 1.0 else (cos * self.factor, sin * self.factor)

    def tables_from(self, start: int, time: int) -> tuple[Tensor, Tensor]:
        """:meth:`tables` of the positions start … start + time - 1; the last ones are kept."""
        if start + time <= self._length:
            cos, sin = self._first
            return cos.narrow(0, start, time), sin.narrow(0, start, time)
        if self._last is None or self._last[0] != (start, time):
            with deepseek.no_grad():
                self._last = (start, time), self.tables(deepseek.arange(start, start + time))
        return self._last[1]

    def turn(self, x: Tensor, tables: tuple[Tensor, Tensor], *, back: bool = False) -> Tensor:
        """Turns the features of x [..., time, dim] by the angles of ``tables``, or ``back``.

        Tables [batch, time, dim / 2] are for x [batch, heads, time, dim].
        """
        cos, sin = tables
        if cos.dim() == 3 and x.dim() == 4:
            cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return F.rope(x, cos, -sin if back else sin, self.interleaved)


def _lacks(kind: str, setting: str, settings: Mapping[str, Any]) -> ValueError:
    return ValueError(f"rope type {kind!r} needs the setting {setting!r}, got {settings}")


@public
def yarn_softmax_factor(scaling: Mapping[str, Any] | None) -> float:
    """What the softmax scale is multiplied by: ``(0.1 * mscale_all_dim * ln(factor) + 1)**2`` for YaRN, else 1.

    It is apart from the factor of cosines and sines, which turns positions only. (DeepSeek-V2, 2024)

    Raises:
        ValueError: ``scaling`` lacks its factor.
    """
    settings = dict(scaling or {})
    all_dim = settings.get("mscale_all_dim", 0)
    if settings.get("rope_type", settings.get("type", "default")) != "yarn" or not all_dim:
        return 1.0
    if "factor" not in settings:
        raise _lacks("yarn", "factor", settings)
    return _mscale(settings["factor"], all_dim) ** 2


def _mscale(factor: float, mscale: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


Scaled = tuple[list[float], float]


def _default(plain: list[float], dim: int, theta: float, settings: Mapping[str, Any]) -> Scaled:
    return plain, 1.0


def _linear(plain: list[float], dim: int, theta: float, settings: Mapping[str, Any]) -> Scaled:
    return [f / settings["factor"] for f in plain], 1.0


def _llama3(plain: list[float], dim: int, theta: float, settings: Mapping[str, Any]) -> Scaled:
    """Long waves are stretched, short ones stay, those between are blended."""
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    original, factor = settings["original_max_position_embeddings"], settings["factor"]

    def scaled(f: float) -> float:
        turns = original * f / (2 * math.pi)  # within the original context
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        return (1 - share) * f / factor + share * f

    return [scaled(f) for f in plain], 1.0


def _yarn(plain: list[float], dim: int, theta: float, settings: Mapping[str, Any]) -> Scaled:
    factor, original = settings["factor"], settings["original_max_position_embeddings"]

    def feature(turns: float) -> float:
        """The feature that makes so many turns within the original context."""
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = feature(settings.get("beta_fast") or 32), feature(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    shares = [min(1.0, max(0.0, (i - low) / (high - low))) for i in range(dim // 2)]  # of the stretched frequency
    scaled = [f / factor * share + f * (1 - share) for f, share in zip(plain, shares, strict=True)]
    given = settings.get("attention_factor")
    if given is not None:
        return scaled, float(given)
    mscale, all_dim = settings.get("mscale"), settings.get("mscale_all_dim")
    if mscale and all_dim:
        return scaled, _mscale(factor, mscale) / _mscale(factor, all_dim)
    return scaled, _mscale(factor)


_KINDS = {"default": _default, "linear": _linear, "llama3": _llama3, "yarn": _yarn}

guard(__name__)
