"""Samples into batches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import deepseek
from deepseek import _C, Tensor


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")  # an array cannot exist before numpy was imported
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _rebuilt(original: Any, values: list[Any]) -> Any:
    if hasattr(original, "_fields"):  # a named tuple
        return type(original)(*values)
    return tuple(values) if isinstance(original, tuple) else values


def default_collate(batch: list[Any]) -> Any:
    """A list of samples as one batch, through nested tuples, lists and mappings.

    Tensors, arrays and numbers gain a first dimension (float -> float64, int -> int64); text and bytes stay lists.

    Raises:
        RuntimeError: sequences of different lengths.
        TypeError: a sample of another type.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return deepseek.stack(batch)
    if _is_array(first):
        if first.dtype.kind in "SUO":
            raise TypeError(f"default_collate: arrays of {first.dtype} cannot become a tensor")
        return deepseek.stack([deepseek.as_tensor(value) for value in batch])
    if isinstance(first, float):
        return deepseek.tensor(batch, dtype=deepseek.float64)
    if isinstance(first, int):  # bool too, which becomes a bool tensor
        return deepseek.tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return {key: default_collate([sample[key] for sample in batch]) for key in first}
    if isinstance(first, Sequence):
        lengths = {len(sample) for sample in batch}
        if len(lengths) != 1:
            raise RuntimeError(f"each element in list of batch should be of equal size, got {sorted(lengths)}")
        return _rebuilt(first, [default_collate(list(column)) for column in zip(*batch, strict=True)])
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {_C._type_name(first)}"
    )


def default_convert(data: Any) -> Any:
    """Arrays inside one sample as tensors; everything else stays."""
    if isinstance(data, (Tensor, str, bytes)):
        return data
    if _is_array(data):
        return data if data.dtype.kind in "SUO" else deepseek.as_tensor(data)
    if isinstance(data, Mapping):
        return {key: default_convert(value) for key, value in data.items()}
    if isinstance(data, Sequence):
        return _rebuilt(data, [default_convert(value) for value in data])
    return data
