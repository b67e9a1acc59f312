"""Hyper-connections: several residual streams that blocks read from and write to by learned weights."""

# mypy: no-implicit-reexport

from __future__ import annotations

import deepseek
from deepseek import _C, Tensor
from deepseek._binding.autocast import runs_without_autocast
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention._configuration import check_positive
from deepseek.attention._wide import WideParameters
from deepseek.nn import functional as F
from deepseek.nn import init
from deepseek.nn.parameter import Parameter


@public
def sinkhorn(logits: Tensor, rounds: int = 20, eps: float = 1e-6) -> Tensor:
    """Matrices near doubly stochastic ones: rows and columns sum to 1. (Sinkhorn and Knopp, 1967)

    ``softmax(logits, -1) + eps``; then columns are divided by their sum + eps, and ``rounds - 1`` times rows, then
    columns. The tape keeps the logits alone: the gradient computes the rounds anew.

    Args:
        logits: [..., n, n], float32 or float64.
        rounds: How often columns are normed.
        eps: Added to weights and sums.

    Returns:
        [..., n, n].

    Raises:
        RuntimeError: not square, or ``rounds`` below 1.
        NotImplementedError: another dtype.
    """
    return _C._sinkhorn(logits, rounds, eps)


@public
class HyperConnection(WideParameters):
    """Manifold-constrained hyper-connections around one block (attention or experts): mHC.

    Of a token's ``hc_mult`` streams x [n, D] it computes weights to read them (``pre``), to write the block's output
    (``post``), and to mix the streams with each other (``comb``, doubly stochastic, so that their norm does not grow)::

        h = rms_norm(x flattened, no weights) @ fn^T                                   # [2n + n^2]
        pre  = sigmoid(h_pre * scale_0 + base_pre) + eps
        post = 2 sigmoid(h_post * scale_1 + base_post)
        comb = sinkhorn(h_comb * scale_2 + base_comb)                                  # [n, n]
        y = block(sum_i pre_i x_i)
        x'_k = post_k y + sum_j comb_jk x_j                                            # comb transposed

    The weights are float32 (float64 for float64 streams), whatever the streams are and under autocast too; parameters
    stay float32 in a module of 16 bits. (Xie et al., "mHC", 2025; DeepSeek-V4,
    2026, section 2.2)

    Example::

        collapsed, weights = hyper.read(streams)
        streams = hyper.write(attention(norm(collapsed)), streams, weights)

    Args:
        hidden_size: Width D of a stream.
        hc_mult: Number n of streams.
        hc_sinkhorn_iters: Rounds of :func:`sinkhorn`.
        hc_eps: Its eps, and that of ``pre``.
        rms_norm_eps: Eps of the norm.

    Attributes:
        fn: [(2 + n) n, n D], base: [(2 + n) n], scale: [3].
    """

    def __init__(
        self,
        hidden_size: int,
        hc_mult: int = 4,
        *,
        hc_sinkhorn_iters: int = 20,
        hc_eps: float = 1e-6,
        rms_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_positive(
            type(self).__name__, hidden_size=hidden_size, hc_mult=hc_mult, hc_sinkhorn_iters=hc_sinkhorn_iters
        )
        self.hidden_size, self.hc_mult, self.hc_sinkhorn_iters = hidden_size, hc_mult, hc_sinkhorn_iters
        self.hc_eps, self.rms_norm_eps = hc_eps, rms_norm_eps
        weights = (2 + hc_mult) * hc_mult
        self.fn = Parameter(deepseek.empty(weights, hc_mult * hidden_size))
        self.base = Parameter(deepseek.zeros(weights))
        self.scale = Parameter(deepseek.ones(3))
        init.normal_(self.fn, 0.0, 0.02)

    def weights(self, streams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``pre`` [batch, time, n], ``post`` [batch, time, n] and ``comb`` [batch, time, n, n] of the streams."""
        n = self.hc_mult
        mixed = _project(streams, self.fn, self.hidden_size, n, self.rms_norm_eps)
        exact = mixed.dtype
        pre, post, comb = mixed.split([n, n, n * n], dim=-1)
        pre_base, post_base, comb_base = self.base.to(exact).split([n, n, n * n])
        scales = self.scale.to(exact).unbind(0)
        return (
            (pre * scales[0] + pre_base).sigmoid() + self.hc_eps,
            (post * scales[1] + post_base).sigmoid() * 2,
            sinkhorn((comb * scales[2] + comb_base).unflatten(-1, (n, n)), self.hc_sinkhorn_iters, self.hc_eps),
        )

    def read(self, streams: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block's input [batch, time, D] of streams [batch, time, n, D], and (post, comb) for :meth:`write`."""
        pre, post, comb = self.weights(streams)
        return _weighted_sum(pre, streams), (post, comb)

    @runs_without_autocast
    def write(self, out: Tensor, streams: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """The new streams [batch, time, n, D], of the block's output [batch, time, D] and what :meth:`read` gave."""
        post, comb = (w.to(streams.dtype) for w in weights)
        return deepseek.addcmul(
            comb.transpose(-1, -2) @ streams, post.unsqueeze(-1), out.to(streams.dtype).unsqueeze(-2)
        )

    def forward(self, streams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(post, comb, collapsed) of streams [batch, time, n, D], in the order of ``transformers``' module."""
        collapsed, (post, comb) = self.read(streams)
        return post, comb, collapsed

    def extra_repr(self) -> str:
        return f"{self.hidden_size}, hc_mult={self.hc_mult}, hc_sinkhorn_iters={self.hc_sinkhorn_iters}"


@public
class HyperHead(WideParameters):
    """The streams after the last block as one: ``sum_i (sigmoid(h_i * hc_scale + hc_base_i) + eps) x_i``, h as in
    :class:`HyperConnection`. [batch, time, n, D] -> [batch, time, D].

    Args:
        hidden_size: Width D of a stream.
        hc_mult: Number n of streams.
        hc_eps: Added to the weights.
        rms_norm_eps: Eps of the norm.

    Attributes:
        hc_fn: [n, n D], hc_base: [n], hc_scale: [1].
    """

    def __init__(self, hidden_size: int, hc_mult: int = 4, *, hc_eps: float = 1e-6, rms_norm_eps: float = 1e-6) -> None:
        super().__init__()
        check_positive(type(self).__name__, hidden_size=hidden_size, hc_mult=hc_mult)
        self.hidden_size, self.hc_mult, self.hc_eps, self.rms_norm_eps = hidden_size, hc_mult, hc_eps, rms_norm_eps
        self.hc_fn = Parameter(deepseek.empty(hc_mult, hc_mult * hidden_size))
        self.hc_base = Parameter(deepseek.zeros(hc_mult))
        self.hc_scale = Parameter(deepseek.ones(1))
        init.normal_(self.hc_fn, 0.0, 0.02)

    def forward(self, streams: Tensor) -> Tensor:
        """See the class."""
        mixed = _project(streams, self.hc_fn, self.hidden_size, self.hc_mult, self.rms_norm_eps)
        weights = (mixed * self.hc_scale.to(mixed.dtype) + self.hc_base.to(mixed.dtype)).sigmoid() + self.hc_eps
        return _weighted_sum(weights, streams)

    def extra_repr(self) -> str:
        return f"{self.hidden_size}, hc_mult={self.hc_mult}"


@runs_without_autocast
def _project(streams: Tensor, fn: Tensor, width: int, mult: int, eps: float) -> Tensor:
    """A token's normed streams, flattened, times fn: float32, or float64."""
    if streams.dim() != 4 or list(streams.shape[2:]) != [mult, width]:
        raise RuntimeError(
            f"hyper-connections: streams must be [batch, time, {mult}, {width}], got {list(streams.shape)}"
        )
    exact = deepseek.promote_types(streams.dtype, deepseek.float32)
    flat = streams.flatten(2).to(exact)
    return F.linear(F.rms_norm(flat, (flat.shape[-1],), None, eps), fn.to(exact))


@runs_without_autocast
def _weighted_sum(weights: Tensor, streams: Tensor) -> Tensor:
    """[batch, time, n] and [batch, time, n, D] -> [batch, time, D]."""
    return (weights.unsqueeze(-2) @ streams.to(weights.dtype)).squeeze(-2).to(streams.dtype)


guard(__name__)
