"""Random calls of scaled_dot_product_attention, and what they give by the formula, in float64 with NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

DTYPES = ("float32", "float64", "bfloat16", "float16")
MASKS = ("none", "causal", "bool", "numbers", "-inf", "lowest", "lowest and more", "large", "padding", "f32 numbers")
LOWEST = {
    "float32": -3.4028234663852886e38,
    "float64": -1.7976931348623157e308,
    "bfloat16": -3.3895313892515355e38,
    "float16": -65504.0,
}


@dataclass
class AttentionCase:
    number: int
    dtype: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    grad: np.ndarray
    mask: np.ndarray | None
    mask_dtype: str
    is_causal: bool
    scale: float | None
    enable_gqa: bool
    order: tuple[int, ...]  # of the dims of query, key and value in memory
    what: str

    def __str__(self) -> str:
        mask = "" if self.mask is None else f" {self.mask_dtype}{list(self.mask.shape)}"
        return (
            f"case {self.number}: {self.dtype} q{list(self.q.shape)} k{list(self.k.shape)} v{list(self.v.shape)} mask: "
            f"{self.what}{mask} scale {self.scale} gqa {self.enable_gqa} order {self.order}"
        )


def random_case(number: int) -> AttentionCase:
    rng = np.random.default_rng(number)
    dtype = DTYPES[rng.integers(len(DTYPES))]
    dims = int(rng.choice([2, 3, 4, 4, 4, 5]))
    long = rng.random() < 0.06
    queries = int(rng.choice([1, 2, 3, 5, 17, 70]))
    keys = int(rng.integers(500, 1100)) if long else int(rng.choice([1, 2, 3, 7, 16, 65, 130]))
    size, value_size = int(rng.choice([1, 3, 8, 16, 33])), int(rng.choice([1, 4, 16, 20]))
    gqa = dims >= 3 and rng.random() < 0.3
    key_heads = int(rng.integers(1, 3))
    heads = key_heads * int(rng.integers(1, 4)) if gqa else key_heads
    lead = [int(rng.integers(1, 3)) for _ in range(dims - 3)]
    key_lead = [1 if rng.random() < 0.15 else s for s in lead]

    def tensor(batch: list[int], count: int, *sizes: int) -> np.ndarray:
        shape = [*batch, count, *sizes] if dims > 2 else list(sizes)
        return rounded(rng.normal(size=shape), dtype)

    q = tensor(lead, heads, queries, size)
    k, v = tensor(key_lead, key_heads, keys, size), tensor(key_lead, key_heads, keys, value_size)
    grad = tensor(lead, heads, queries, value_size)
    what = MASKS[rng.integers(len(MASKS))]
    order = tuple(int(d) for d in (rng.permutation(dims - 1) if rng.random() < 0.3 else range(dims - 1)))
    mask, mask_dtype = random_mask(rng, what, dtype, [*lead, heads] if dims > 2 else [], queries, keys)
    scale = None if rng.random() < 0.6 else float(np.round(rng.uniform(-0.5, 1), 2))
    return AttentionCase(
        number, dtype, q, k, v, grad, mask, mask_dtype, what == "causal", scale, gqa, (*order, dims - 1), what
    )


def rounded(a: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        bits = a.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)
    return a.astype(dtype).astype(np.float64)


def random_mask(
    rng: np.random.Generator, what: str, dtype: str, lead: list[int], queries: int, keys: int
) -> tuple[np.ndarray | None, str]:
    if what in ("none", "causal"):
        return None, ""
    shape = [s if rng.random() < 0.5 else 1 for s in lead]
    shape = [*shape[int(rng.integers(0, len(shape) + 1)) :], queries if rng.random() < 0.8 else 1, keys]
    off = rng.random(shape) < 0.5
    off[rng.random(shape[:-1]) < 0.25] = True  # queries that see nothing
    if what == "padding":
        off = np.broadcast_to(np.arange(keys) >= rng.integers(0, keys + 1), shape).copy()
    if what in ("bool", "padding"):
        return ~off, "bool"
    kind = "float32" if what == "f32 numbers" else dtype
    numbers = rounded(rng.normal(size=shape), kind)
    lowest = LOWEST[kind]
    if what == "-inf":
        numbers[off] = -np.inf
    elif what == "lowest":
        numbers = np.where(off, lowest, 0.0)
    elif what == "lowest and more":
        numbers[off] = lowest * rng.choice([1, 0.75, 0.5, 0.25], size=int(off.sum()))
        numbers[rng.random(shape) < 0.1] = -np.inf
    elif what == "large":
        numbers[off] = rng.choice([-1e4, 1e4, -2e4], size=int(off.sum()))
        if kind != "float16":
            numbers[off] *= rng.choice([1, 1e5, 1e20])
    return rounded(numbers, kind), kind


def accuracy(case: AttentionCase) -> str:
    """What scores and mask are added in: large numbers swallow scores, in float32 as in float64."""
    return "float64" if case.dtype == "float64" else "float32"


def formula(case: AttentionCase) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The result, and the gradients of query, key and value, whose shapes they have."""
    q, k, v = case.q, case.k, case.v
    groups = q.shape[-3] // k.shape[-3] if case.enable_gqa else 1
    if groups > 1:
        k, v = np.repeat(k, groups, -3), np.repeat(v, groups, -3)
    scale = 1 / math.sqrt(q.shape[-1]) if case.scale is None else case.scale
    scores = q @ np.swapaxes(k, -1, -2) * scale
    if case.is_causal:
        scores = np.where(np.arange(k.shape[-2]) <= np.arange(q.shape[-2])[:, None], scores, -np.inf)
    if case.mask is not None and case.mask.dtype == bool:
        scores = np.where(case.mask, scores, -np.inf)
    elif case.mask is not None:
        kind = accuracy(case)
        with np.errstate(over="ignore"):
            scores = (scores.astype(kind) + case.mask.astype(kind)).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        top = scores.max(-1, keepdims=True)
        terms = np.exp(scores - np.where(np.isinf(top), 0, top))
        weights = terms / np.where(terms.sum(-1, keepdims=True) == 0, 1, terms.sum(-1, keepdims=True))
    out = weights @ v
    by_weights = case.grad @ np.swapaxes(v, -1, -2)
    by_scores = weights * (by_weights - (case.grad * out).sum(-1, keepdims=True)) * scale
    dq, dk = by_scores @ k, np.swapaxes(by_scores, -1, -2) @ q
    dv = np.swapaxes(weights, -1, -2) @ case.grad
    if groups > 1:
        dk, dv = (a.reshape(*a.shape[:-3], -1, groups, *a.shape[-2:]).sum(-3) for a in (dk, dv))
    return out, dq, summed_to(dk, case.k.shape), summed_to(dv, case.v.shape)


def summed_to(a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    for d, s in enumerate(shape):
        if s != a.shape[d]:
            a = a.sum(d, keepdims=True)
    return a


def tolerance(case: AttentionCase) -> float:
    """Of one value of the result, beside numbers of about 1. Beside large numbers of a mask scores keep few digits."""
    if case.what == "large" and case.dtype in ("float64", "float32"):
        return 1e-6 if case.dtype == "float64" else 2e-3
    return {"float64": 1e-11, "float32": 3e-5, "bfloat16": 6e-2, "float16": 8e-3}[case.dtype]


def call(case: AttentionCase, library: Any, attention: Any) -> tuple[Any, list[Any]]:
    """The result and the leaves, after its backward pass, of a library with PyTorch's names."""
    dtype = getattr(library, case.dtype)
    back = [int(d) for d in np.argsort(case.order)]

    def leaf(a: np.ndarray) -> Any:
        stored = library.tensor(np.ascontiguousarray(a.transpose(case.order))).to(dtype)
        return stored.permute(*back).detach().requires_grad_()

    leaves = [leaf(a) for a in (case.q, case.k, case.v)]
    mask = None if case.mask is None else library.tensor(case.mask).to(getattr(library, case.mask_dtype))
    out = attention(*leaves, attn_mask=mask, is_causal=case.is_causal, scale=case.scale, enable_gqa=case.enable_gqa)
    out.backward(library.tensor(case.grad).to(dtype))
    return out, leaves
