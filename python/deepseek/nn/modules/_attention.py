"""Multi-head attention with torch's parameters, masks and results."""

# mypy: no-implicit-reexport

from __future__ import annotations

from typing import Any

from deepseek import Tensor
from deepseek._binding.public import public
from deepseek.nn import init
from deepseek.nn.functional._attention import _canonical_mask, _multi_head_attention
from deepseek.nn.modules._layers import Linear, _empty
from deepseek.nn.modules.module import Module
from deepseek.nn.parameter import Parameter


@public
class MultiheadAttention(Module):
    """Attention of several heads between projected queries, keys and values. (Vaswani et al., 2017)

    Args:
        embed_dim: size of the queries and of the result, split over the heads.
        num_heads: number of heads; divides ``embed_dim``.
        dropout: probability of dropping an attention weight while training.
        bias: whether the projections have one.
        add_bias_kv, add_zero_attn: not supported.
        kdim, vdim: sizes of keys and values, ``embed_dim`` when omitted.
        batch_first: tensors are (N, L, E) instead of (L, N, E).

    Parameters: ``in_proj_weight`` (3E, E), or ``q/k/v_proj_weight`` when the sizes differ, ``in_proj_bias`` (3E) and
    the layer ``out_proj``.

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dim``.
        NotImplementedError: ``add_bias_kv`` or ``add_zero_attn``.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and num_heads={num_heads}"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads}")
        if add_bias_kv or add_zero_attn:
            raise NotImplementedError("MultiheadAttention: add_bias_kv and add_zero_attn are not supported")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self._make_projections(bias, dtype, device)
        self._reset_parameters()

    def _make_projections(self, bias: bool, dtype: Any, device: Any) -> None:
        size = self.embed_dim
        same = self._qkv_same_embed_dim

        def weight(columns: int, wanted: bool, rows: int = size) -> Parameter | None:
            return _empty(rows, columns, dtype=dtype, device=device) if wanted else None

        self.register_parameter("in_proj_weight", weight(size, same, 3 * size))
        self.register_parameter("q_proj_weight", weight(size, not same))
        self.register_parameter("k_proj_weight", weight(self.kdim, not same))
        self.register_parameter("v_proj_weight", weight(self.vdim, not same))
        self.register_parameter("in_proj_bias", _empty(3 * size, dtype=dtype, device=device) if bias else None)
        self.out_proj = Linear(size, size, bias=bias, device=device, dtype=dtype)

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Nothing: PyTorch's layer does not list its parameters either."""
        return ""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: (L, N, E), or (N, L, E) with ``batch_first``, or (L, E) without batch.
            key, value: likewise with their own length S and sizes.
            key_padding_mask: (N, S), True (or -inf) where a key is to be left out.
            attn_mask: (L, S) or (N * heads, L, S), True (or -inf) where a pair is to be left out.
            need_weights: also return the weights; False is faster.
            average_attn_weights: average the weights over the heads.
            is_causal: a promise that ``attn_mask`` is the causal mask, which must be given.

        Returns:
            The output, shaped like ``query``, and the weights (N, L, S), (N, heads, L, S) when not averaged, or None.
        """
        batched = _check_dims(query, key, value)
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        if not batched:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        self._check_sizes(query, key, value)
        mask = self._merged_mask(query, key, key_padding_mask, attn_mask)
        output, weights = _multi_head_attention(
            query,
            key,
            value,
            self.num_heads,
            self._in_weights(),
            self._in_biases(),
            self.out_proj.weight,
            self.out_proj.bias,
            mask,
            self.dropout if self.training else 0.0,
            need_weights,
        )
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _in_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._qkv_same_embed_dim:
            return tuple(self.in_proj_weight.chunk(3))
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight

    def _in_biases(self) -> tuple[Any, Any, Any]:
        return (None, None, None) if self.in_proj_bias is None else tuple(self.in_proj_bias.chunk(3))

    def _check_sizes(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        wanted = {"query": (query, self.embed_dim), "key": (key, self.kdim), "value": (value, self.vdim)}
        for name, (tensor, size) in wanted.items():
            if tensor.shape[-1] != size:
                raise AssertionError(
                    f"was expecting {name} of size {size} in the last dimension, but got {tensor.shape[-1]}"
                )
        if key.shape[:2] != value.shape[:2] or key.shape[0] != query.shape[0]:
            raise AssertionError(
                f"query, key and value disagree on batch or source length: (N, T, E) are {tuple(query.shape)}, "
                f"{tuple(key.shape)} and {tuple(value.shape)}"
            )

    def _merged_mask(
        self, query: Tensor, key: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None
    ) -> Tensor | None:
        """Both masks as one, to be added to scores (N, heads, L, S)."""
        batch, length, source = query.shape[0], query.shape[1], key.shape[1]
        attn = _canonical_mask(attn_mask, "attn_mask", query.dtype)
        if attn is not None:
            wanted = (length, source) if attn.dim() == 2 else (batch * self.num_heads, length, source)
            if tuple(attn.shape) != wanted:
                raise RuntimeError(f"The shape of the attn_mask is {tuple(attn.shape)}, but should be {wanted}.")
            attn = attn.view(1 if attn.dim() == 2 else batch, -1 if attn.dim() == 3 else 1, length, source)
        padding = _canonical_mask(key_padding_mask, "key_padding_mask", query.dtype)
        if padding is None:
            return attn
        if tuple(padding.shape) != (batch, source):
            raise AssertionError(
                f"expecting key_padding_mask shape of {(batch, source)}, but got {tuple(padding.shape)}"
            )
        padding = padding.view(batch, 1, 1, source)
        return padding if attn is None else attn + padding


def _check_dims(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the call is batched."""
    dims = query.dim()
    if dims not in (2, 3):
        raise AssertionError(f"query should be unbatched 2D or batched 3D tensor but received {dims}-D query tensor")
    if key.dim() != dims or value.dim() != dims:
        raise AssertionError(
            f"For {'batched (3-D)' if dims == 3 else 'unbatched (2-D)'} `query`, expected `key` and `value` to be "
            f"{dims}-D but found {key.dim()}-D and {value.dim()}-D tensors respectively"
        )
    return dims == 3
