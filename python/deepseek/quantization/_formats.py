"""The formats that the core knows, as it describes them."""

from __future__ import annotations

from typing import NamedTuple

from deepseek import _C, dtype


class Format(NamedTuple):
    """How a format stores a matrix [N, K]."""

    doc: str  # what the codes are
    code: dtype
    per_byte: int  # codes in a byte
    rows: int  # rows that share a scale
    has_zeros: bool
    whole_numbers: bool  # codes are; else products are those of the dequantized weights
    blocks: tuple[int, ...]  # accepted block sizes, 0 for a whole row; the first is the default

    def bits(self, block: int) -> float:
        """Bits of a weight, those of its share of scales and zero points included; rows are taken to be long."""
        side = 32 + 8 * self.has_zeros
        return 8 / self.per_byte + (side / (block * self.rows) if block else 0)


_formats = {name: Format(**row) for name, row in _C._quant_formats().items()}
# name: the block size taken when none is given
FORMATS = {name: row.blocks[0] for name, row in _formats.items()}


def format_named(name: str) -> Format:
    return _formats[name]


def table() -> str:
    """The formats as a table for a docstring."""
    head = ("format", "block (default first)", "bits a weight", "codes")
    rows = [head]
    for name, row in _formats.items():
        sizes = ", ".join(str(block or "0: a whole row") for block in row.blocks)
        bits = ", ".join(f"{round(row.bits(block), 2):g}" for block in row.blocks)
        rows.append((name, sizes, bits, row.doc))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = " ".join("=" * width for width in widths)
    lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
