"""Between rows of width heads * size and heads: splitting, joining, turning by positions, cutting work into chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deepseek import Tensor, dtype
from deepseek.attention._pieces import Piece
from deepseek.attention.rotary import RotaryEmbedding
from deepseek.nn import Linear

_SCORES_AT_ONCE = 1 << 21  # numbers of a score matrix held at a time: 8 MiB of float32, which stays in the caches


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, time, heads * size] -> [batch, heads, time, size], a view."""
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[batch, heads, time, size] -> [batch, time, heads * size]."""
    return x.transpose(1, 2).flatten(-2)


def check_whole(name: str, **sizes: Any) -> None:
    """Raises for a size that is not a whole number; None is a size that was not given.

    Raises:
        TypeError: naming it.
    """
    for what, size in sizes.items():
        if size is not None and (isinstance(size, Tensor) or not hasattr(size, "__index__")):
            raise TypeError(f"{name}: {what} must be an int, got {size!r}")


def checked_heads(name: str, dim: int, num_heads: int, key_heads: int | None, head_dim: int | None) -> tuple[int, int]:
    """The number of key heads, ``num_heads`` when it is None, and features of a head, else ``dim / num_heads``.

    Raises:
        TypeError: a number that is not whole.
        ValueError: a number that is not positive, key heads that do not divide the heads, or heads that do not divide
            the width.
    """
    check_whole(name, width=dim, heads=num_heads, num_key_value_heads=key_heads, head_dim=head_dim)
    key_heads = num_heads if key_heads is None else key_heads
    if min(dim, num_heads, key_heads) < 1:
        raise ValueError(
            f"{name}: width and numbers of heads must be positive, got width {dim}, {num_heads} heads and {key_heads} "
            "key heads"
        )
    if num_heads % key_heads:
        raise ValueError(f"{name}: {key_heads} key heads must divide {num_heads} heads")
    if head_dim is None:
        if dim % num_heads:
            raise ValueError(f"{name}: {num_heads} heads must divide the width {dim}; or pass head_dim")
        head_dim = dim // num_heads
    if head_dim < 1:
        raise ValueError(f"{name}: head_dim must be positive, got {head_dim}")
    return key_heads, head_dim


def projections(
    dim: int,
    num_heads: int,
    key_heads: int,
    head_dim: int,
    value_head_dim: int | None = None,
    *,
    bias: bool,
    dtype: dtype | None = None,
) -> tuple[Linear, Linear, Linear]:
    """Layers that make queries, keys and values of rows of width ``dim``; made in this order, from one random stream.

    Args:
        dim: Width of the rows.
        num_heads: Heads of queries.
        key_heads: Heads of keys and values.
        head_dim: Features of a head.
        value_head_dim: Features of a value, ``head_dim`` by default.
        bias: Whether the layers have one.
        dtype: Of the parameters.
    """
    widths = num_heads * head_dim, key_heads * head_dim, key_heads * (value_head_dim or head_dim)
    query, key, value = (Linear(dim, width, bias=bias, dtype=dtype) for width in widths)
    return query, key, value


def rotary_for(head_dim: int, theta: float | None, scaling: Mapping[str, Any] | None) -> RotaryEmbedding | None:
    """Rotary embedding of all features of a head; None where ``theta`` is None."""
    return None if theta is None else RotaryEmbedding(head_dim, theta, scaling)


def rotated(rope: RotaryEmbedding | None, piece: Piece, *parts: Tensor) -> tuple[Tensor, ...]:
    """Each of ``parts`` [batch, heads, time, size] rotated by its tokens' positions; as it is without ``rope``."""
    if rope is None:
        return parts
    if piece.positions is None:
        tables = rope.tables_from(piece.start, piece.x.shape[1])
    else:
        tables = rope.tables(piece.positions)
    return tuple(rope.turn(x, tables) for x in parts)


def query_chunks(queries: int, scores_a_query: int, least: int = 16) -> Iterator[tuple[int, int]]:
    """(begin, end) of parts of the queries that have about 8 MiB of float32 scores at a time.

    At most 1024 queries, so that a part leaves out most of the keys that none of its queries sees.
    """
    size = min(max(least, _SCORES_AT_ONCE // max(scores_a_query, 1)), 1024)
    for begin in range(0, queries, size):
        yield begin, min(begin + size, queries)
