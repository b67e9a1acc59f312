"""Sparse attention beside dense attention, of deepseek and of PyTorch: 32 blocks of 64 keys a query, causal.

16 query heads share one key head of size 128 (one of the four such groups of NSA's model). Each query reads the first
block, its own, the one before, and others drawn evenly. Four sorts of cases:

- "prefill 16K": all of 16,384 queries;
- "prefill 64K": of a prompt of 65,536 the 2,048 queries in the middle, which see the mean number of keys. PyTorch,
  which knows no position of a first query, runs them on 32,768 keys without a mask;
- "train 16K": forward and backward, of 4 query heads on one key head;
- "train-tokens 8K": the same of 16 query heads, each query with 1,024 single keys drawn evenly.

Dense attention takes seconds a call, so there are few turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _harness import main_beside

BLOCK, SELECTED, TOKENS, SIZE = 64, 32, 1024, 128
GOALS = {
    "prefill 16K": (4.0, 3.0),
    "prefill 64K": (9.0, 7.5),
    "train 16K": (2.5, None),
    "train-tokens 8K": (2.0, 2.0),
}  # PyTorch; our own dense
SIZES = {"8K": (8192, 0), "16K": (16384, 0), "64K": (2048, 32768 - 1024)}  # queries, position of the first


def select(T: Any, queries: int, start: int) -> Any:
    """Blocks of the queries: int64 [1, 1, queries, SELECTED]."""
    T.manual_seed(1)
    own = (T.arange(queries).reshape(-1, 1) + start) // BLOCK
    scores = T.rand(queries, (start + queries) // BLOCK)
    blocks = T.arange(scores.shape[1]).reshape(1, -1)
    always = (blocks == 0) | (blocks == own) | (blocks == own - 1)
    scores = T.where(always, scores + 2.0, scores)
    scores = T.where(blocks > own, scores - 2.0, scores)
    best, indices = T.topk(scores, SELECTED, dim=-1)
    return T.where(best < 0, -1, indices).reshape(1, 1, queries, SELECTED)


def select_tokens(T: Any, queries: int) -> Any:
    """Keys of the queries: int64 [1, queries, TOKENS]."""
    T.manual_seed(1)
    scores = T.where(T.arange(queries) > T.arange(queries).reshape(-1, 1), -1.0, T.rand(queries, queries))
    best, indices = T.topk(scores, TOKENS, dim=-1)
    return T.where(best < 0, -1, indices).reshape(1, queries, TOKENS)


def case(T: Any, kind: str, dtype: str, sparse: bool) -> Callable[[], Any]:
    """`sparse` or dense; of the module `T`, deepseek or torch."""

    def setup() -> Any:
        T.manual_seed(0)
        F, train, torch = T.nn.functional, kind.startswith("train"), T.__name__ == "torch"
        heads, (queries, start) = 4 if kind == "train 16K" else 16, SIZES[kind.split()[1]]
        keys = 32768 if torch and start else start + queries
        make = [T.randn(1, h, n, SIZE).to(getattr(T, dtype)) for h, n in ((heads, queries), (1, keys), (1, keys))]
        q, k, v = [t.requires_grad_(train) for t in make]
        tokens = select_tokens(T, queries) if sparse and "tokens" in kind else None
        blocks = select(T, queries, start) if sparse and tokens is None else None

        def forward() -> Any:
            if tokens is not None:
                return F.token_sparse_attention(q, k, v, tokens, is_causal=True)
            if sparse:
                return F.block_sparse_attention(q, k, v, blocks, block_size=BLOCK, is_causal=True, query_start=start)
            if not torch:
                return F.attention(q, k, v, is_causal=True, enable_gqa=True, query_start=start)
            wide = [t.expand(1, heads, keys, SIZE) for t in (k, v)]
            return F.scaled_dot_product_attention(q, *wide, is_causal=start == 0)

        def step() -> None:
            forward().backward(gradient)

        gradient = T.ones(1, heads, queries, SIZE, dtype=q.dtype)
        return step if train else forward

    return setup


def cases(T: Any, sparse: bool) -> dict[str, Callable[[], Any]]:
    return {f"{kind} {dtype}": case(T, kind, dtype, sparse) for kind in GOALS for dtype in ("float32", "bfloat16")}


def goal(name: str) -> float | None:
    kind = " ".join(name.split()[:2])
    return GOALS[kind][1 if name.endswith(" dense") else 0]


if __name__ == "__main__":
    main_beside(
        "sparse",
        "Sparse attention beside dense attention.",
        lambda T, worker: cases(T, worker == "sparse"),
        ("sparse", "dense"),
        goal,
        3,
    )
