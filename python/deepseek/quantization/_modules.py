"""Modules whose weights are quantized, and the conversion of a model to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek
from deepseek import Tensor, nn
from deepseek.quantization._weight import QuantizedTensor, qlinear, quantize


class QuantizedWeight(nn.Module):
    """A :class:`QuantizedTensor` as a part of a module: codes, scales and zero points are buffers, so that
    ``state_dict()`` holds them. Functions that take a quantized weight take this as well.

    ``to()`` and its kin leave the scales in float32.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None

    def __init__(self, weight: QuantizedTensor) -> None:
        super().__init__()
        self.register_buffer("codes", weight.codes)
        self.register_buffer("scales", weight.scales)
        self.register_buffer("zeros", weight.zeros)
        self.format, self.block, self.shape = weight.format, weight.block, weight.shape

    def value(self) -> QuantizedTensor:
        """The weight; it shares memory with this module."""
        return QuantizedTensor(self.codes, self.scales, self.zeros, self.format, self.block, self.shape)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        for name, part in self._buffers.items():
            if part is not None:
                made = fn(part)
                if made.dtype == part.dtype:
                    self._buffers[name] = made
        return self

    def extra_repr(self) -> str:
        return f"{' x '.join(map(str, self.shape))}, {self.format}, block={self.block}"


class QuantizedLinear(nn.Module):
    """:class:`nn.Linear` with a quantized weight: (..., in_features) -> (..., out_features).

    Args:
        weight: [out_features, in_features].
        bias: (out_features,), or None.
    """

    bias: nn.Parameter | None

    def __init__(self, weight: QuantizedTensor, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = QuantizedWeight(weight)
        self.register_parameter("bias", bias)

    def forward(self, input: Tensor) -> Tensor:
        return qlinear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def quantize_(
    module: nn.Module,
    format: str = "int8",
    block: int | None = None,
    skip: Callable[[str, nn.Module], bool] | None = None,
) -> nn.Module:
    """Quantizes a model's weights in place, for inference.

    Every :class:`nn.Linear` becomes a :class:`QuantizedLinear`. A module whose class names the parameters that hold its
    stacked experts, as ``expert_weights = ("gate_proj", "up_proj", "down_proj")`` does in ``moe.Experts``, gets a
    :class:`QuantizedWeight` in place of each; its ``forward`` calls :func:`qmoe` then. Biases, norms, embeddings,
    routers and subclasses of ``Linear`` stay as they are, and so does a weight in the other places that share it (tied
    embeddings). To load a checkpoint of a quantized model, quantize a fresh one first.

    Args:
        module: the model; not a ``Linear`` itself, which cannot be replaced in place.
        format: a name of :data:`FORMATS`; see :mod:`deepseek.quantization`.
        block: values of K that share a scale; the format's default when None.
        skip: ``skip(name, module)`` keeps a module and all that is in it, e.g. ``lambda name, _: name == "head"``.

    Returns:
        ``module``.

    Raises:
        ValueError: ``module`` is a ``Linear``; an unknown format, or a block size it does not take.
    """
    if type(module) is nn.Linear:
        raise ValueError(
            "quantize_: a Linear cannot be replaced in place; use QuantizedLinear(quantize(m.weight), m.bias)"
        )
    layers: dict[int, QuantizedLinear] = {}  # a layer that is used twice stays one
    visited: set[int] = set()

    def convert(parent: nn.Module, path: str) -> None:
        if id(parent) in visited or (skip is not None and skip(path, parent)):
            return
        visited.add(id(parent))
        for name in getattr(type(parent), "expert_weights", ()):
            weight = getattr(parent, name)
            if isinstance(weight, Tensor):
                setattr(parent, name, QuantizedWeight(quantize(weight.detach(), format, block)))
        for name, child in list(parent._modules.items()):
            at = f"{path}.{name}" if path else name
            if child is None:
                continue
            if type(child) is not nn.Linear:
                convert(child, at)
            elif skip is None or not skip(at, child):
                if id(child) not in layers:
                    layers[id(child)] = QuantizedLinear(quantize(child.weight.detach(), format, block), child.bias)
                    layers[id(child)].train(child.training)
                setattr(parent, name, layers[id(child)])

    with deepseek.no_grad():
        convert(module, "")
    return module
