"""Mixtures of experts in plain PyTorch, as models are written with it: the peers of ``nn.functional.moe``."""

from __future__ import annotations

from typing import Any


def sorted_pairs(T: Any, chosen: Any, experts: int) -> tuple[Any, Any, Any]:
    """The pairs (token, slot) in order of their expert, their tokens, and the number of each expert's pairs."""
    flat = chosen.reshape(-1)
    order = T.argsort(flat, stable=True)
    return order, order // chosen.shape[1], T.bincount(flat, minlength=experts)


def by_loop(T: Any, x: Any, gate: Any, up: Any, down: Any, chosen: Any, weights: Any) -> Any:
    """One dense feed-forward an expert. The weights of an expert each: lists, or stacked tensors, which are unbound."""
    F = T.nn.functional
    order, token, counts = sorted_pairs(T, chosen, len(gate))
    groups = x.index_select(0, token).split(counts.tolist())
    experts = zip(groups, *[w.unbind(0) if isinstance(w, T.Tensor) else w for w in (gate, up, down)], strict=True)
    rows = [F.linear(F.silu(F.linear(r, g)) * F.linear(r, u), d) for r, g, u, d in experts if r.shape[0]]
    weighted = T.cat(rows) * weights.reshape(-1).index_select(0, order).unsqueeze(1)
    return T.zeros_like(x).index_add(0, token, weighted.to(x.dtype))


def by_grouped_products(T: Any, x: Any, gate: Any, up: Any, down: Any, chosen: Any, weights: Any) -> Any:
    """Three products of all groups, by ``torch._grouped_mm``."""
    order, token, counts = sorted_pairs(T, chosen, len(gate))
    ends = counts.cumsum(0).to(T.int32)
    rows = x.index_select(0, token)
    a, b = (T._grouped_mm(rows, w.transpose(1, 2), offs=ends) for w in (gate, up))
    out = T._grouped_mm(T.nn.functional.silu(a) * b, down.transpose(1, 2), offs=ends)
    weighted = out * weights.reshape(-1).index_select(0, order).unsqueeze(1)
    return T.zeros_like(x).index_add(0, token, weighted.to(x.dtype))
