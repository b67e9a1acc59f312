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


def layer(T: Any, dim: int, hidden: int, experts: int, top_k: int, by: str) -> Any:
    """A layer as transformers builds it: a softmax router in float32, then `by` "grouped" products of stacked weights
    (gate and up in one) or a "loop" over experts with weights of their own."""
    F = T.nn.functional

    class Layer(T.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gate = T.nn.Parameter(T.randn(experts, dim) * dim**-0.5)
            shapes = ((2 * hidden, dim), (dim, hidden))
            made = [T.randn(experts, *shape) * shape[1] ** -0.5 for shape in shapes]
            if by == "grouped":
                self.gate_up, self.down = map(T.nn.Parameter, made)
            else:
                self.gate_up, self.down = (T.nn.ParameterList(w.clone() for w in stack.unbind(0)) for stack in made)

        def forward(self, x: Any) -> Any:
            scores = F.linear(x.float(), self.gate.float()).softmax(-1)
            weights, chosen = scores.topk(top_k, dim=-1)
            order, token, counts = sorted_pairs(T, chosen, experts)
            rows = x.index_select(0, token)
            out = self.grouped(rows, counts) if by == "grouped" else self.looped(rows, counts)
            weighted = out * weights.reshape(-1).index_select(0, order).unsqueeze(1).to(x.dtype)
            return T.zeros_like(x).index_add(0, token, weighted)

        def grouped(self, rows: Any, counts: Any) -> Any:
            ends = counts.cumsum(0).to(T.int32)
            a, b = T._grouped_mm(rows, self.gate_up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
            return T._grouped_mm(F.silu(a) * b, self.down.transpose(1, 2), offs=ends)

        def looped(self, rows: Any, counts: Any) -> Any:
            parts = []
            for r, gate_up, down in zip(rows.split(counts.tolist()), self.gate_up, self.down, strict=True):
                if r.shape[0]:
                    a, b = F.linear(r, gate_up).chunk(2, dim=-1)
                    parts.append(F.linear(F.silu(a) * b, down))
            return T.cat(parts)

    return Layer()
