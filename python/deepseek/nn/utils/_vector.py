"""All parameters as one vector, and back."""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Iterable

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.public import public


@public
def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The parameters, flattened one after the other: a tensor of shape (total,) through which gradients flow."""
    return deepseek.cat([parameter.reshape(-1) for parameter in parameters])


@public
def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Set the parameters to consecutive slices of ``vec``, a tensor of shape (total,), with which they share memory.

    Raises:
        TypeError: ``vec`` is not a tensor.
        ValueError: ``vec`` does not hold exactly the parameters' elements.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected vec to be a Tensor, but got: {_C._type_name(vec)}")
    holders = list(parameters)
    total = sum(parameter.numel() for parameter in holders)
    if vec.numel() != total:
        raise ValueError(f"vec has {vec.numel()} elements, the parameters have {total}")
    start = 0
    for parameter in holders:
        count = parameter.numel()
        parameter.data = vec.detach()[start : start + count].view(parameter.shape)
        start += count
