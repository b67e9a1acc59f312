"""Linear, embedding, normalisation, dropout, padding and distances."""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Iterable, Sequence

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.arguments import check_tensor
from deepseek._binding.autocast import autocast_float32, runs_without_autocast
from deepseek._binding.public import public
from deepseek.nn.functional._activation import _maybe_inplace


@public
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: input (..., in), weight (out, in), bias (out), result (..., out)."""
    return _C.linear(input, weight, bias)


@public
def moe(
    input: Tensor,
    gate_weight: Tensor,
    up_weight: Tensor,
    down_weight: Tensor,
    topk_indices: Tensor,
    topk_weights: Tensor,
    *,
    swiglu_limit: float | None = None,
    wide: bool = False,
) -> Tensor:
    """Mixture of SwiGLU experts: ``sum_k topk_weights[t, k] * expert[topk_indices[t, k]](input[t])``.

    ``expert(x) = swiglu(x @ gate^T, x @ up^T, swiglu_limit) @ down^T``. (Shazeer et al., 2017; DeepSeekMoE, Dai et al.,
    2024) A token's experts are added in float32, or float64 for float64.

    Args:
        input: (T, D), one row a token.
        gate_weight: (E, F, D) for E experts.
        up_weight: (E, F, D).
        down_weight: (E, D, F).
        topk_indices: (T, K) int64, the experts of each token; -1 is no expert: nothing is computed for it, and its
            routing weight gets no gradient.
        topk_weights: (T, K), what each of them counts.
        swiglu_limit: as in :func:`swiglu`.
        wide: do not round the sum: float32 for 16-bit input.

    Returns:
        (T, D).

    Raises:
        IndexError: an expert index is out of range.
        ValueError: ``swiglu_limit`` is not positive.
    """
    return _C.moe(input, gate_weight, up_weight, down_weight, topk_indices, topk_weights, swiglu_limit, wide)


@public
@runs_without_autocast
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x1^T W_k x2 + b_k``: input1 (..., i), input2 (..., j), weight (out, i, j), result (..., out)."""
    check_tensor("bilinear", "input1", input1)
    check_tensor("bilinear", "input2", input2)
    check_tensor("bilinear", "weight", weight)
    if bias is not None:
        check_tensor("bilinear", "bias", bias)
    found = [t.dtype for t in (input1, input2, weight, bias) if t is not None]
    if any(dtype is not found[0] for dtype in found):
        raise RuntimeError(f"bilinear: all tensors must have the same dtype, got {found}; convert with .to(dtype)")
    if input1.dtype in (deepseek.float16, deepseek.bfloat16):  # rounded once, at the end
        wide = None if bias is None else bias.float()
        return bilinear(input1.float(), input2.float(), weight.float(), wide).to(input1.dtype)
    left = deepseek.einsum("...i,kij->...kj", input1, weight)
    result = (left * input2.unsqueeze(-2)).sum(-1, dtype=input1.dtype)
    return result if bias is None else result + bias


@public
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of a table: input (...) of int64 or int32 indices, weight (V, E), result (..., E).

    Args:
        padding_idx: the row that receives no gradient; may count from the end.
        max_norm: rows that are looked up are first scaled down to this ``norm_type``-norm, in place.
        scale_grad_by_freq: a row's gradient is divided by how often the row was looked up.

    Raises:
        RuntimeError: weight is not 2-d.
        NotImplementedError: sparse gradients.
    """
    check_tensor("embedding", "weight", weight)
    _refuse_sparse(sparse)
    if weight.dim() != 2:
        raise RuntimeError(f"'weight' must be 2-D, got {weight.dim()}-D")
    rows = weight.shape[0]
    if padding_idx is None:
        padding_idx = -1  # the core's word for none
    elif not -rows <= padding_idx < rows:
        raise AssertionError(f"padding_idx must be within num_embeddings = {rows}, got {padding_idx}")
    elif padding_idx < 0:
        padding_idx += rows
    if max_norm is not None:
        _limit_rows(input, weight, max_norm, norm_type)
    result = _C.embedding(input, weight, padding_idx)
    if scale_grad_by_freq and result.requires_grad:
        share = 1 / deepseek.bincount(input.reshape(-1), minlength=rows)[input].to(weight.dtype)
        result = result.detach() + (result - result.detach()) * share.unsqueeze(-1)
    return result


def _limit_rows(input: Tensor, weight: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows that ``input`` names down to ``max_norm``, in place."""
    with deepseek.no_grad():
        used = deepseek.unique(input)
        found = weight[used]
        length = found.norm(norm_type, -1, keepdim=True)
        weight[used] = deepseek.where(length > max_norm, found * (max_norm / (length + 1e-7)), found)


def _refuse_sparse(sparse: bool) -> None:
    """Sparse gradients do not exist here."""
    if sparse:
        raise NotImplementedError("embedding: sparse gradients are not supported; leave sparse False")


@public
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 one-hot vectors: tensor (...) of class indices, result (..., num_classes).

    ``num_classes=-1`` takes the largest index plus one.

    Raises:
        RuntimeError: not int64, a negative index, or one that is not below num_classes.
    """
    check_tensor("one_hot", "tensor", tensor)
    if tensor.dtype != deepseek.int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type LongTensor, got {tensor.dtype}")
    if tensor.numel() == 0:
        if num_classes <= 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
    elif num_classes == -1:
        num_classes = max(int(tensor.max()), 0) + 1
    return _C._one_hot(tensor, num_classes)


@public
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last dimensions, which are ``normalized_shape``. (Ba et al., 2016)"""
    return _C.layer_norm(input, normalized_shape, weight, bias, eps)


@public
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """``input / sqrt(mean(input^2) + eps) * weight`` over the last dimensions. (Zhang and Sennrich, 2019)

    ``eps=None`` is the machine epsilon of the input's dtype.
    """
    if eps is None:
        check_tensor("rms_norm", "input", input)
        # Half precision is normalised in float32, so its epsilon is float32's.
        wide = deepseek.float64 if input.dtype == deepseek.float64 else deepseek.float32
        eps = deepseek.finfo(wide).eps
    return _C.rms_norm(input, normalized_shape, weight, eps)


@public
def add_rms_norm(
    input: Tensor, residual: Tensor, weight: Tensor | None = None, eps: float | None = None
) -> tuple[Tensor, Tensor]:
    """A residual connection and the norm behind it, in one pass over memory.

    Args:
        input: (..., D), what a layer adds to the residual stream.
        residual: the stream, of the same shape.
        weight: (D,), or None.
        eps: added to the mean square; ``None`` is the machine epsilon of the sum's dtype.

    Returns:
        ``(rms_norm(sum, (D,), weight, eps), sum)`` with ``sum = input + residual``.

    Raises:
        RuntimeError: input and residual differ in shape, or weight does not fit them.
    """
    output, total = _C.add_rms_norm(input, residual, weight, eps)
    return output, total


@public
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability ``p`` and scale the rest by ``1 / (1 - p)``; the identity when not training.

    Raises:
        ValueError: ``p`` is outside [0, 1].
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    return _maybe_inplace(lambda x: _C.dropout(x, p, training), input, inplace)


@public
def normalize(
    input: Tensor, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12, out: None = None
) -> Tensor:
    """``input / max(norm_p(input), eps)`` with the norm along ``dim``."""
    check_tensor("normalize", "input", input)
    if out is not None:
        raise NotImplementedError("normalize: out= is not supported; assign the result instead")
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)


@public
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``x1 . x2 / (max(|x1|, eps) * max(|x2|, eps))`` along ``dim``, which disappears; the inputs broadcast."""
    check_tensor("cosine_similarity", "x1", x1)
    check_tensor("cosine_similarity", "x2", x2)
    if not (x1.is_floating_point() and x2.is_floating_point()):
        raise RuntimeError(f"expected common dtype to be floating point, yet common dtype is {x1.dtype}, {x2.dtype}")
    x1, x2 = deepseek.broadcast_tensors(x1, x2)
    unit1 = x1 / x1.norm(2, dim, keepdim=True).clamp(min=eps)
    unit2 = x2 / x2.norm(2, dim, keepdim=True).clamp(min=eps)
    return (unit1 * unit2).sum(dim)


@public
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """``norm_p(x1 - x2 + eps)`` along the last dimension."""
    check_tensor("pairwise_distance", "x1", x1)
    check_tensor("pairwise_distance", "x2", x2)
    return (x1 - x2 + eps).norm(p, -1, keepdim=keepdim)


@public
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Make dimensions longer (or shorter, with negative amounts), starting from the last.

    Args:
        pad: ``(left, right)`` of the last dimension, then of the one before it, and so on.
        mode: "constant" (filled with ``value``, 0 when omitted), "reflect", "replicate" or "circular".

    Raises:
        RuntimeError: an odd number of amounts, more than the input has dimensions, or a negative new size.
        NotImplementedError: an unknown mode.
    """
    check_tensor("pad", "input", input)
    if not isinstance(pad, Iterable):
        raise TypeError(f"pad(): argument 'pad' must be tuple of ints, not {_C._type_name(pad)}")
    amounts = list(pad)
    if len(amounts) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, got {len(amounts)} amounts")
    if len(amounts) // 2 > input.dim():
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(amounts)} and input of dimension {input.dim()}"
        )
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if mode != "constant" and value is not None:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode in ("reflect", "replicate"):
        input = autocast_float32(input)
    result = input
    if mode == "circular":  # what is cut off does not come round
        result = _crop(input, amounts)
        amounts = [max(n, 0) for n in amounts]
    for i in range(0, len(amounts), 2):
        dim = input.dim() - 1 - i // 2
        left, right = amounts[i], amounts[i + 1]
        if left or right:
            if mode == "constant":
                result = _pad_constant(result, dim, left, right, 0 if value is None else value)
            else:
                index = _border_index(mode, result.shape[dim], left, right)
                result = result.index_select(dim, deepseek.tensor(index, dtype=deepseek.int64))
    return result.clone() if result is input else result


def _crop(input: Tensor, amounts: Sequence[int]) -> Tensor:
    """The part that negative amounts leave."""
    for i, (left, right) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        dim = input.dim() - 1 - i
        start = max(-left, 0)
        input = input.narrow(dim, start, input.shape[dim] - start - max(-right, 0))
    return input


def _pad_constant(input: Tensor, dim: int, left: int, right: int, value: float) -> Tensor:
    size = input.shape[dim]
    if size + left + right < 0:
        raise RuntimeError(
            f"The input size {size}, plus negative padding {left} and {right}, resulted in a negative output size, "
            f"which is invalid. Check dimension {dim} of your input."
        )
    start = min(max(-left, 0), size)
    kept = max(size - start - max(-right, 0), 0)
    pieces: list[Tensor] = []

    def fill(count: int) -> None:
        if count > 0:
            shape = list(input.shape)
            shape[dim] = count
            pieces.append(deepseek.full(shape, value, dtype=input.dtype))

    fill(left)
    pieces.append(input.narrow(dim, start, kept))
    fill(right)
    result = deepseek.cat(pieces, dim)
    # One side may cut more than the input holds; the cut then reaches into the other side's filling.
    return result.narrow(dim, 0, size + left + right) if result.shape[dim] > size + left + right else result


def _border_index(mode: str, size: int, left: int, right: int) -> list[int]:
    """The source position of every position of the padded dimension."""
    limit = {"reflect": size - 1, "circular": size, "replicate": max(left, right) if size else 0}[mode]
    if left > limit or right > limit:
        raise RuntimeError(f"{mode} padding ({left}, {right}) is too large for a dimension of size {size}")
    positions = range(-left, size + right)
    if mode == "replicate":
        return [min(max(i, 0), size - 1) for i in positions]
    if mode == "circular":
        return [i % size for i in positions]
    return [-i if i < 0 else (2 * (size - 1) - i if i >= size else i) for i in positions]
