"""torch's own database of ops and samples, and which of our functions each entry means."""

from __future__ import annotations

import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

import deepseek
import deepseek.linalg
import deepseek.nn.functional
import torch

# torch's test utilities name this package as a base class of their own tests, which are not used here.
if "expecttest" not in sys.modules:
    sys.modules["expecttest"] = types.ModuleType("expecttest")
    sys.modules["expecttest"].TestCase = unittest.TestCase  # type: ignore[attr-defined]

from torch.testing._internal.common_methods_invocations import op_db

T = deepseek.Tensor
# Entries whose function takes its arguments in another order, or exists only as a method.
OURS: dict[str, Callable[..., Any]] = {
    "__getitem__": T.__getitem__,
    "einsum": lambda tensors, equation: deepseek.einsum(equation, tensors),
    "where": lambda x, condition, other: deepseek.where(condition, x, other),
    "nn.functional.embedding": lambda weight, i, **kw: deepseek.nn.functional.embedding(i, weight, **kw),
    "expand": T.expand,
    "resize_": lambda x, shape: x.clone().resize_(shape),
    "resize_as_": lambda x, other: x.clone().resize_as_(other),
    "zero_": lambda x: x.clone().zero_(),
    "uniform": T.uniform_,
    "exponential": T.exponential_,
    "normal|in_place": T.normal_,
    "normal|number_mean": lambda std, mean, *a, **k: deepseek.normal(mean, std, *a, **k),
    "repeat": lambda x, dims: x.repeat(dims),
    "view": lambda x, shape: x.view(shape),
    "T": lambda x: x.T,
    "H": lambda x: x.H,
    "mT": lambda x: x.mT,
    "mH": lambda x: x.mH,
}
RANDOM = (
    *("bernoulli", "multinomial", "normal", "uniform", "exponential", "randn", "rand_like", "randn_like", "randint"),
    *(
        "randint_like",
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "resize_",
        "resize_as_",
    ),
    *("nn.functional.dropout", "rand", "randperm", "empty_permuted"),
)
# What is out of scope as a whole, or has no meaning here.
NON_GOALS = ("jiterator", "to_sparse", "torch.ops.", "torch._", "cfloat", "cdouble", "chalf")


def full_name(op: Any) -> str:
    return op.name + (f"|{op.variant_test_name}" if op.variant_test_name else "")


def lookup(name: str) -> Callable[..., Any] | None:
    """Our function of torch's name; None when there is none."""
    place: Any = deepseek
    *path, last = name.split(".")
    for part in path:
        try:
            place = getattr(place, part)
        except AttributeError:
            return None
    for where in (place, T) if not path else (place,):
        found = getattr(where, last, None)
        if callable(found) and not isinstance(found, type):
            return found
    return None


def ours(op: Any) -> Callable[..., Any] | None:
    name = full_name(op)
    return OURS.get(name) or OURS.get(op.name) or lookup(op.name)


ENTRIES = {full_name(op): op for op in op_db if not op.name.startswith(NON_GOALS)}
SHARED = {name: op for name, op in ENTRIES.items() if ours(op) is not None}


def is_random(op: Any, sample: Any) -> bool:
    return op.name in RANDOM or bool(sample.kwargs.get("dropout_p"))


def inplace_of(op: Any) -> Callable[..., Any] | None:
    """Our in-place form of an entry: the method ``name_`` or the argument ``inplace``."""
    method = getattr(T, op.name + "_", None)
    if method is not None or not op.name.startswith("nn.functional."):
        return method
    function = ours(op)

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        return function(x, *args, **kwargs, inplace=True)  # type: ignore[misc]

    return call


__all__ = ["ENTRIES", "SHARED", "inplace_of", "is_random", "lookup", "ours", "torch"]
