"""Sums of products: ``tensordot``, and ``einsum``, which runs as a chain of batched matrix products."""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
import operator

from deepseek import _C
from deepseek._binding.public import public
from deepseek._C import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


def _complement_dims(dims: Sequence[int], ndim: int) -> list[int]:
    """Dims that are not in ``dims``, in order."""
    taken = {d % ndim for d in dims}
    return [d for d in range(ndim) if d not in taken]


@public
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Products of a and b summed over pairs of dims: the last ``dims`` of a with the first of b, or two lists of dims.

    Raises:
        RuntimeError: paired dims of different sizes, or more dims than a tensor has.
    """
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.dim(), b.dim()):
            raise RuntimeError(f"tensordot expects dims >= 0 and at most the number of dimensions, but got dims={dims}")
        dims = (range(a.dim() - dims, a.dim()), range(dims))
    of_a, of_b = ([side] if isinstance(side, int) else list(side) for side in dims)
    for i, j in zip(of_a, of_b, strict=False):  # a size of 1 counts for all of the other's
        if a.size(i) == 1 and b.size(j) != 1:
            b = b.sum(j, keepdim=True, dtype=b.dtype)
        elif b.size(j) == 1 and a.size(i) != 1:
            a = a.sum(i, keepdim=True, dtype=a.dtype)
    if len(of_a) != len(of_b) or any(a.size(i) != b.size(j) for i, j in zip(of_a, of_b, strict=False)):
        raise RuntimeError(
            f"tensordot: contracted dimensions need to match, but dims {of_a} of {list(a.shape)} and {of_b} of "
            f"{list(b.shape)} do not"
        )
    kept_a, kept_b = _complement_dims(of_a, a.dim()), _complement_dims(of_b, b.dim())
    inner = math.prod(a.size(i) for i in of_a)
    left = a.permute([*kept_a, *of_a]).reshape(math.prod(a.size(i) for i in kept_a), inner)
    right = b.permute([*of_b, *kept_b]).reshape(inner, math.prod(b.size(j) for j in kept_b))
    # One number is a dot product as in PyTorch: autocast leaves that in its dtype.
    single = left.size(0) == right.size(1) == 1 and a.dtype == b.dtype
    product = left.reshape(-1).dot(right.reshape(-1)) if single else left @ right
    return product.reshape([*(a.size(i) for i in kept_a), *(b.size(j) for j in kept_b)])


# --- einsum -----------------------------------------------------------------------------------------------------------


# One label a dim: a letter, or "..0", "..1", … counted from the right for the dims of an ellipsis.
_Labels = list[str]


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # in the order of an implied output


@public
def einsum(equation: str | Tensor, *operands: Any) -> Tensor:
    """Sum of products of the operands' elements, in Einstein's notation.

    ``einsum("bij,bjk->bik", a, b)`` multiplies batches of matrices: letters that are not in the output are summed. A
    letter twice in one operand takes its diagonal, ``...`` stands for any dims, and without ``->`` the output has the
    letters that occur once, in alphabetical order. Operands are combined from left to right. The same with numbers for
    letters: ``einsum(a, [0, 1, 2], b, [0, 2, 3], [0, 1, 3])``; there ``...`` is Python's, and the last list may be
    left out.

    Args:
        equation: index letters of each operand, separated by commas, then optionally ``->`` and those of the output.
        operands: tensors, or one list of them.

    Raises:
        TypeError: operands that are not tensors.
        ValueError: no operands, or a number outside 0 to 51.
        RuntimeError: letters that do not fit the operands.
    """
    if isinstance(equation, Tensor):
        equation, operands = _from_sublists((equation, *operands))
    if not isinstance(equation, str):
        raise TypeError(
            "einsum(): the first argument must be the equation (str), or the first operand (Tensor) followed by its "
            f"list of subscripts; got {_C._type_name(equation)}"
        )
    if not operands:
        raise ValueError("einsum(): no operands were given; write einsum(equation, tensor, ...)")
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(f"einsum(): operand {i} must be a Tensor, not {_C._given_for_tensor(t)}")
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = _input_labels(left.split(","), tensors)
    output = _output_labels(right, inputs) if arrow else _implied_output(left, inputs)
    sizes = _sizes(inputs, tensors)
    terms = [_without_repeats(t, labels, sizes) for t, labels in zip(tensors, inputs, strict=True)]
    tensor, labels = terms[0]
    for i, (other, other_labels) in enumerate(terms[1:], 1):
        later = set(output).union(*(part for _, part in terms[i + 1 :]))
        tensor, labels = _product(tensor, labels, other, other_labels, later)
    tensor, labels = _sum_out(tensor, labels, set(output))
    # A label of the output that only size-1 dims had is gone by now.
    result = tensor.permute([labels.index(x) for x in output if x in labels])
    return result.reshape([sizes[x] for x in output])


def _from_sublists(arguments: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The equation and the operands of ``einsum(a, [0, 1], b, [1, 2], [0, 2])``."""

    def written(subscripts: Any, what: str) -> str:
        if isinstance(subscripts, (str, Tensor)) or not hasattr(subscripts, "__iter__"):
            raise TypeError(
                f"einsum(): {what} must be a list of subscripts (numbers from 0 to 51, or ...), not "
                f"{_C._type_name(subscripts)}"
            )
        return "".join(letter(subscript, what) for subscript in subscripts)

    def letter(subscript: Any, what: str) -> str:
        if subscript is Ellipsis:
            return "..."
        if isinstance(subscript, bool) or not hasattr(subscript, "__index__"):
            raise TypeError(f"einsum(): {what} has {subscript!r}; subscripts must be numbers from 0 to 51, or ...")
        if not 0 <= operator.index(subscript) < len(_LETTERS):
            raise ValueError(f"einsum(): {what} has {subscript}; subscripts must be within the valid range [0, 52)")
        return _LETTERS[operator.index(subscript)]

    if len(arguments) < 2:
        raise ValueError("einsum(): an operand must be followed by its list of subscripts, as in einsum(a, [0, 1])")
    lists = arguments[1::2]
    equation = ",".join(written(subscripts, f"the list of operand {i}") for i, subscripts in enumerate(lists))
    if len(arguments) % 2:
        equation += "->" + written(arguments[-1], "the list of the output")
    return equation, tuple(arguments[: 2 * len(lists) : 2])


def _letters(text: str, what: str) -> tuple[str, str | None]:
    """The letters before and after ``...``; None after when there is no ellipsis."""
    before, dots, after = text.partition("...")
    for letter in before + after:
        if not (letter.isascii() and letter.isalpha()):
            raise RuntimeError(
                f"einsum(): invalid subscript given for {what}: {letter!r}; subscripts must be in [a-zA-Z]"
            )
    return before, after if dots else None


def _input_labels(parts: Sequence[str], tensors: Sequence[Tensor]) -> list[_Labels]:
    if len(parts) != len(tensors):
        word = "fewer" if len(tensors) < len(parts) else "more"
        raise RuntimeError(
            f"einsum(): {word} operands were provided than specified in the equation ({len(tensors)} for {len(parts)})"
        )
    result = []
    for i, (part, t) in enumerate(zip(parts, tensors, strict=True)):
        before, after = _letters(part, f"operand {i}")
        named = len(before) + len(after or "")
        if named > t.dim() or (after is None and named != t.dim()):
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({named}) does not match the number of dimensions "
                f"({t.dim()}) for operand {i}" + (" and no ellipsis was given" if after is None else "")
            )
        dots = [f"..{j}" for j in reversed(range(t.dim() - named))]
        result.append([*before, *dots, *(after or "")])
    return result


def _ellipsis(inputs: Iterable[_Labels]) -> _Labels:
    found = {x for labels in inputs for x in labels if x.startswith("..")}
    return sorted(found, key=lambda x: -int(x[2:]))


def _output_labels(text: str, inputs: list[_Labels]) -> _Labels:
    before, after = _letters(text, "the output")
    known = {x for labels in inputs for x in labels}
    for letter in before + (after or ""):
        if (before + (after or "")).count(letter) > 1:
            raise RuntimeError(f"einsum(): output subscript {letter} appears more than once in the output")
        if letter not in known:
            raise RuntimeError(
                f"einsum(): output subscript {letter} does not appear in the equation for any input operand"
            )
    return [*before, *(() if after is None else _ellipsis(inputs)), *(after or "")]


def _implied_output(left: str, inputs: list[_Labels]) -> _Labels:
    letters = left.replace("...", "").replace(",", "")
    return [*_ellipsis(inputs), *(x for x in sorted(set(letters)) if letters.count(x) == 1)]


def _sizes(inputs: list[_Labels], tensors: Sequence[Tensor]) -> dict[str, int]:
    """Size of each label; dims of size 1 broadcast."""
    sizes: dict[str, int] = {}
    for i, (labels, t) in enumerate(zip(inputs, tensors, strict=True)):
        for label, n in zip(labels, t.shape, strict=True):
            known = sizes.get(label, 1)
            if n != known and n != 1 and known != 1:
                name = "an ellipsis dim" if label.startswith("..") else f"subscript {label}"
                raise RuntimeError(
                    f"einsum(): operands do not broadcast: {name} has size {n} for operand {i} (shape {list(t.shape)}) "
                    f"which does not broadcast with previously seen size {known}"
                )
            sizes[label] = n if known == 1 else known
    return sizes


def _without_repeats(t: Tensor, labels: _Labels, sizes: dict[str, int]) -> tuple[Tensor, _Labels]:
    """Diagonals taken of repeated labels, broadcast dims of size 1 dropped."""
    labels = list(labels)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            if t.size(i) != t.size(j):
                raise RuntimeError(
                    f"einsum(): subscript {label} is repeated for an operand but the sizes don't match, "
                    f"{t.size(j)} != {t.size(i)}"
                )
            t = t.diagonal(0, i, j)  # its dim comes last
            labels = [x for k, x in enumerate(labels) if k not in (i, j)] + [label]
    dropped = [i for i, x in enumerate(labels) if t.size(i) == 1 and sizes[x] != 1]
    if dropped:
        t, labels = t.squeeze(dropped), [x for i, x in enumerate(labels) if i not in dropped]
    return t, labels


def _sum_out(t: Tensor, labels: _Labels, wanted: set[str]) -> tuple[Tensor, _Labels]:
    gone = [i for i, x in enumerate(labels) if x not in wanted]
    return (t.sum(gone), [x for x in labels if x in wanted]) if gone else (t, labels)


def _product(a: Tensor, la: _Labels, b: Tensor, lb: _Labels, later: set[str]) -> tuple[Tensor, _Labels]:
    """The product of two terms, summed over what neither the output nor a later term needs."""
    a, la = _sum_out(a, la, later.union(lb))
    b, lb = _sum_out(b, lb, later.union(la))
    batch = [x for x in la if x in lb and x in later]
    inner = [x for x in la if x in lb and x not in later]
    rows = [x for x in la if x not in lb]
    columns = [x for x in lb if x not in la]

    def arranged(t: Tensor, labels: _Labels, groups: list[_Labels]) -> Tensor:
        """[product of the sizes of each group]"""
        moved = t.permute([labels.index(x) for group in groups for x in group])
        return moved.reshape([math.prod(t.size(labels.index(x)) for x in group) for group in groups])

    if inner:
        left, right = arranged(a, la, [batch, rows, inner]), arranged(b, lb, [batch, inner, columns])
        product = _C.bmm(left, right)
    else:  # nothing to sum: an outer product
        product = arranged(a, la, [batch, rows]).unsqueeze(2) * arranged(b, lb, [batch, columns]).unsqueeze(1)
    sizes = {**dict(zip(lb, b.shape, strict=True)), **dict(zip(la, a.shape, strict=True))}
    labels = [*batch, *rows, *columns]
    return product.reshape([sizes[x] for x in labels]), labels
