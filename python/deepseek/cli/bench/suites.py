"""What is compared with what: the rows of ``deepseek bench attention`` and ``deepseek bench moe``."""

from __future__ import annotations

from dataclasses import dataclass

from deepseek.cli.bench import attention_cases


@dataclass(frozen=True)
class Peer:
    """Something a row is compared with.

    Attributes:
        name: What it is called in the table.
        library: ``deepseek`` or ``torch``, whose case it is.
        case: Its name there.
        goal: The ratio to reach: times as fast, or, where ``most``, at most this share.
        most: The goal is a highest value.
        needs: Package that its interpreter has to have, beside the library.
    """

    name: str
    library: str
    case: str
    goal: float | None = None
    most: bool = False
    needs: str = ""


@dataclass(frozen=True)
class Row:
    """One thing that is measured.

    Attributes:
        what: Said in the table.
        case: Of deepseek.
        peers: What it is compared with.
        measure: ``seconds`` of a call, ``peak`` (most bytes of a call in a process of its own) or ``value``.
    """

    what: str
    case: str
    peers: tuple[Peer, ...]
    measure: str = "seconds"


@dataclass(frozen=True)
class Growth:
    """How time grows with length, as the power of it, and the share of one part of the longest.

    Attributes:
        what: Said in the table.
        cases: (length, case) of deepseek.
        part: The case whose share is told.
        goal: The highest power.
    """

    what: str
    cases: tuple[tuple[int, str], ...]
    part: str
    goal: float


@dataclass(frozen=True)
class Suite:
    """All rows about one thing."""

    name: str
    about: str
    rows: tuple[Row | Growth, ...]


def suite(name: str, full: bool) -> Suite:
    """The suite ``attention`` or ``moe``; ``full`` goes to 65,536 tokens."""
    return _attention(full) if name == "attention" else _moe()


def _attention(full: bool) -> Suite:
    length, lengths = attention_cases.length(full), attention_cases.lengths(full)
    # Goals beside our own dense attention and PyTorch's: prefill f32, bf16, training f32, bf16.
    goals = (
        ((11.0, 13.0), (None, 24.0), (None, 10.0), (None, 10.0))
        if full
        else ((3.2, 4.0), (None, 7.0), (None, 3.5), (None, 5.0))
    )
    kinds = [(kind, dtype) for kind in ("prefill", "train") for dtype in ("f32", "bf16")]
    rows: list[Row | Growth] = [
        _pair(
            f"sparse {'training step' if kind == 'train' else kind}, {length:,} tokens {dtype}",
            f"{kind} {dtype}",
            *goal,
        )
        for (kind, dtype), goal in zip(kinds, goals, strict=True)
    ]
    rows.append(_pair(f"sparse decode after {attention_cases.decode_length(full):,} tokens f32", "decode", 11.0, 18.0))
    rows.append(
        Growth(
            f"sparse prefill, {lengths[0]:,} to {lengths[-1]:,} tokens",
            tuple((length, f"prefill {length}") for length in lengths),
            f"selection {lengths[-1]}",
            1.25,
        )
    )
    before = attention_cases.latent_length(full)
    layer = Peer("transformers", "torch", "latent decode", 8.0 if full else None, needs="transformers")
    rows.append(Row(f"latent attention, decode after {before:,} tokens f32", "latent decode", (layer,)))
    keys = Peer("keys and values of all heads", "deepseek", "expanded bytes", 1 / 8, most=True)
    rows.append(Row("latent cache, bytes a token f32", "latent bytes", (keys,), "value"))
    if full:
        memory = Peer("torch, dense", "torch", "whole training", 0.4, most=True)
        rows.append(Row("peak memory, sparse training 16,384 tokens f32", "whole training", (memory,), "peak"))
    c = attention_cases
    about = (
        f"{c.HEADS} query heads of {c.SIZE} on {c.KEY_HEADS} key heads, width {c.DIM}; sparse: {c.BUDGET:,} keys a "
        f"query in blocks of {c.BLOCK}, selection included; of a text the {c.MIDDLE:,} tokens in its middle, which see "
        "the mean number of keys; latent: the layer of DeepSeek-V2-Lite"
    )
    return Suite("attention", about, tuple(rows))


def _pair(what: str, case: str, own: float | None, torch: float | None) -> Row:
    """Sparse beside our own dense attention and PyTorch's."""
    peers = (Peer("own dense", "deepseek", f"{case} dense", own), Peer("torch, dense", "torch", f"{case} dense", torch))
    return Row(what, f"{case} sparse", peers)


def _moe() -> Suite:
    rows: list[Row | Growth] = []
    for dtype, goal, peer in (("f32", 2.0, "f32"), ("bf16", 1.5, "bf16"), ("int8", 2.7, "bf16")):
        grouped = Peer(f"torch, grouped products {peer}", "torch", f"forward {peer}", goal)
        rows.append(Row(f"forward {dtype}", f"forward {dtype}", (grouped,)))
    for dtype, goal in (("f32", 2.0), ("bf16", 1.7)):
        loop = Peer(f"torch, loop over experts {dtype}", "torch", f"training {dtype}", goal)
        rows.append(Row(f"training step {dtype}", f"training {dtype}", (loop,)))
    for dtype in ("f32", "bf16"):
        dense = Peer(
            "own dense layer of as many parameters", "deepseek", f"dense {dtype}", 3.2 if dtype == "f32" else None
        )
        rows.append(Row(f"8 experts, 2 a token, forward {dtype}", f"8 experts {dtype}", (dense,)))
    own = Peer("own f32", "deepseek", "demo f32", 1.5)
    rows.append(Row("training step of the demo's model, bf16 autocast", "demo bf16", (own,)))
    return Suite("moe", "512 tokens; 64 experts of 1024 -> 512 -> 1024, 6 a token, router included", tuple(rows))
