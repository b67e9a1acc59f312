"""Where we differ from PyTorch on purpose, or because PyTorch's answer is one of several: each with its reason.

An entry that no sample needs any more fails the full run, so the table cannot go stale.
"""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Known:
    op: str  # the entry's name in torch's database, a regular expression
    text: str  # found in "[form dtype] what differs <- (call)", a regular expression
    reason: str

    def concerns(self, op: str) -> bool:
        return re.fullmatch(self.op, op) is not None

    def explains(self, op: str, text: str) -> bool:
        return self.concerns(op) and re.search(self.text, text) is not None


SVD = "needs singular values; there are no matrix decompositions yet"

KNOWN = (
    Known(r"norm\|nuc", "NotImplementedError", SVD),
    Known(r"linalg\.norm", "NotImplementedError", SVD),
    Known(r"linalg\.norm\|subgradients_at_zero", "NotImplementedError", SVD),
    Known(r"linalg\.matrix_norm", "NotImplementedError", SVD),
    Known(
        r"(lin|log)space.*", "raised TypeError", "a tensor with dims is no number: a TypeError, as in every other op"
    ),
    Known(r"__r(mod|pow|sub)__", "object but received a '(int|float)'", "a method of a tensor called on a number"),
    Known("narrow", "start must be", "a position that is no integer is a TypeError here; a 0-d bool counts as 0 or 1"),
    Known(
        r"nn\.functional\.scaled_dot_product_attention",
        r"^\S+ \[(function|gradient) float32\] (values|input)",
        "scores of the samples reach 200, where float32 has steps of 1.5e-5: both round, neither is always nearer",
    ),
    Known(
        r"nn\.functional\.scaled_dot_product_attention",
        r"^\S+ \[function bfloat16\] values",
        "weights are rounded to bfloat16 for their product with the values, as PyTorch's own fused kernel does",
    ),
    Known("topk", r"\] \[1\] values", "which of equal elements is taken is not defined; ours is the first"),
    Known("kthvalue", r"\] \[1\] values", "which of equal elements is taken is not defined; ours is the first"),
    Known("sort", r"\] \[1\] values", "torch's default sort is not stable; ours always is"),
    Known("argsort", r"\] values", "torch's default sort is not stable; ours always is"),
)


def explanation(op: str, text: str) -> Known | None:
    return next((k for k in KNOWN if k.explains(op, text)), None)
