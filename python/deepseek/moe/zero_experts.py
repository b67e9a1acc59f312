"""Experts without arithmetic among the routed ones: zero, copy and constant experts. (MoE++, 2410.07348)"""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from typing import Any

import deepseek
from deepseek import Tensor, int64, nn, no_grad, zeros
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._selection import without_padding
from deepseek.moe.experts import Experts
from deepseek.moe.router import DynamicRouter, RouterOutput
from deepseek.moe.work import ComputeReport
from deepseek.nn import functional as F


@public
class ZeroComputationMoE(nn.Module):
    """A mixture of feed-forward experts and zero-computation experts, chosen by one router. (Jin et al., 2024)

    The router's experts are, in this order:

    ============================ ================================== ==========================================
    expert                       output for x                       cost
    ============================ ================================== ==========================================
    ``num_experts`` SwiGLU       ``Wd (silu(Wg x) * Wu x)``         6 * hidden * intermediate FLOPs a token
    ``zero_experts``             0                                  none: the slot is skipped
    ``copy_experts``             x                                  none: the token itself is added
    ``constant_experts``         ``a1 x + a2 v``,                   a product with 2 rows; v is learned
                                 ``[a1, a2] = softmax(Wc x)``
    ============================ ================================== ==========================================

    (section 3.1 of the paper), and the output is the sum of the chosen experts' outputs times their weights. A slot
    that goes to a zero-computation expert takes no row of the experts' products, so easy tokens cost less. The router
    has to learn when: add :meth:`balance_loss` to the training loss or call :meth:`update_bias` after each step, else
    it may send all slots one way. The paper's gating residuals (logits of the layer before) are not part of this.

    Args:
        hidden_size: D.
        moe_intermediate_size: width of one feed-forward expert.
        num_experts: feed-forward experts.
        top_k: slots of a token, over all kinds of experts.
        zero_experts, copy_experts, constant_experts: how many of each; the paper has 1, 1 and 2 beside 8.
        router_options: other arguments of :class:`DynamicRouter`, e.g. ``scoring="sigmoid", selection_bias=True``.

    Attributes:
        gate: the :class:`DynamicRouter` over all experts.
        experts: the feed-forward ones, an :class:`Experts`; ``quantize_()`` puts them into few bits.
        constant_weight, constant_value: ``[constant_experts, 2, D]`` and ``[constant_experts, D]``.
        slots, executed: int64 counters, not saved: slots that were filled, and those that went through products.

    Raises:
        ValueError: counts or sizes out of range.
    """

    slots: Tensor
    executed: Tensor

    def __init__(
        self,
        hidden_size: int,
        moe_intermediate_size: int,
        num_experts: int = 8,
        top_k: int = 2,
        *,
        zero_experts: int = 1,
        copy_experts: int = 1,
        constant_experts: int = 2,
        **router_options: Any,
    ) -> None:
        super().__init__()
        counts = {"zero_experts": zero_experts, "copy_experts": copy_experts, "constant_experts": constant_experts}
        for name, count in counts.items():
            if count < 0:
                raise ValueError(f"ZeroComputationMoE: {name} must be at least 0, got {count}")
        for name, size in (("moe_intermediate_size", moe_intermediate_size), ("num_experts", num_experts)):
            if size < 1:
                raise ValueError(f"ZeroComputationMoE: {name} must be at least 1, got {size}")
        self.hidden_size, self.moe_intermediate_size, self.num_experts = hidden_size, moe_intermediate_size, num_experts
        self.zero_experts, self.copy_experts, self.constant_experts = zero_experts, copy_experts, constant_experts
        self.gate = DynamicRouter(num_experts + sum(counts.values()), top_k, hidden_size, **router_options)
        self.experts = Experts(num_experts, hidden_size, moe_intermediate_size)
        self.constant_weight = nn.Parameter(deepseek.empty(constant_experts, 2, hidden_size))
        self.constant_value = nn.Parameter(deepseek.empty(constant_experts, hidden_size))
        # Of the last forward in training, for the loss: what the router said, and its choice before a capacity, if any.
        self.routing: RouterOutput | None = None
        self._chosen: Tensor | None = None
        for name in ("slots", "executed"):
            self.register_buffer(name, zeros((), dtype=int64), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, normal with standard deviation 1/sqrt(fan_in); constant experts start as x / 2.
        Quantized experts stay."""
        self.gate.reset_parameters()
        for stack in (self.experts.gate_proj, self.experts.up_proj, self.experts.down_proj):
            if isinstance(stack, Tensor):
                nn.init.normal_(stack, std=1 / math.sqrt(stack.shape[-1]))
        nn.init.zeros_(self.constant_weight)
        nn.init.zeros_(self.constant_value)

    def forward(self, x: Tensor, *, padding_mask: Tensor | None = None, token_ids: Tensor | None = None) -> Tensor:
        """Maps x [..., D] to the same shape, in the dtype of the experts' products (under autocast the lower one).

        ``padding_mask`` and ``token_ids`` are :class:`DynamicRouter`'s.
        """
        routing = self.gate(x, padding_mask=padding_mask, token_ids=token_ids)
        self.routing, self._chosen = (routing, self.gate.chosen) if self.training else (None, None)
        weights, indices, _ = routing
        padding = None if padding_mask is None else padding_mask.reshape(-1, 1)
        flat = without_padding(x.reshape(-1, x.shape[-1]), padding)  # [tokens, D]
        weights = weights.to(x.dtype)
        computed = indices < self.num_experts
        with no_grad():
            self.slots += (indices >= 0).sum()
            self.executed += ((indices >= 0) & computed).sum()
        rows = indices.masked_fill(~computed, -1)  # a slot without an expert takes no row
        out = self.experts(flat, rows, weights)
        first = self.num_experts + self.zero_experts
        if self.copy_experts:
            copied = (indices >= first) & (indices < first + self.copy_experts)
            out = out + (weights.masked_fill(~copied, 0).sum(1, keepdim=True) * flat).to(out.dtype)
        for number in range(self.constant_experts):
            out = self._add_constant(out, flat, number, weights, indices == first + self.copy_experts + number)
        return out.view(*x.shape)

    def _add_constant(self, out: Tensor, flat: Tensor, number: int, weights: Tensor, here: Tensor) -> Tensor:
        tokens = here.any(1).nonzero().reshape(-1)
        if tokens.numel() == 0:
            return out
        part = flat.index_select(0, tokens)
        mix = F.softmax(F.linear(part, self.constant_weight[number]), dim=-1)  # [n, 2]
        value = mix[:, :1] * part + mix[:, 1:] * self.constant_value[number]
        weight = weights.masked_fill(~here, 0).sum(1, keepdim=True).index_select(0, tokens)
        return out.index_add(0, tokens, (weight * value).to(out.dtype))

    def report(self) -> ComputeReport:
        """Slots and FLOPs of the experts' products since the last :meth:`reset_counts`; the router's are not in it."""
        slots, executed = int(self.slots.item()), int(self.executed.item())
        each = 6 * self.hidden_size * self.moe_intermediate_size
        return ComputeReport(slots, executed, executed * each, slots * each)

    def reset_counts(self) -> None:
        """Start counting anew."""
        with no_grad():
            self.slots.zero_()
            self.executed.zero_()

    def _cost(self, tau: float) -> Tensor:
        """1 for feed-forward experts and tau for the others: float32 [experts]."""
        if not tau > 0:
            raise ValueError(f"ZeroComputationMoE: tau must be positive, got {tau}")
        cost = deepseek.ones(self.gate.num_experts)
        cost[self.num_experts :] = tau
        return cost

    def balance_loss(self, tau: float = 0.75) -> Tensor:
        """The paper's heterogeneous load balance loss of the last forward in training: ``sum_i c_i f_i P_i``.

        f_i is the share of tokens that chose expert i (no gradient; before a capacity dropped some), P_i the mean of
        the softmax of the logits, c_i 1 for feed-forward experts and ``tau`` for the others. It is smallest where a
        feed-forward expert gets ``tau`` times the tokens of a zero-computation one, so a smaller ``tau`` saves more.
        The paper weights it with 0.01.

        Raises:
            RuntimeError: no forward in training yet.
            ValueError: tau is not positive.
        """
        if self.routing is None:
            raise RuntimeError("ZeroComputationMoE.balance_loss: no forward in training mode yet")
        _, indices, logits = self.routing
        if self._chosen is not None:
            indices = self._chosen
        real = indices >= 0
        tokens = real.any(1)
        counted = zeros(self.gate.num_experts).index_add(
            0, indices.clamp(min=0).reshape(-1), real.reshape(-1).to(deepseek.float32)
        )
        total = tokens.sum().clamp(min=1).to(deepseek.float32)
        mean = (F.softmax(logits, dim=-1) * tokens.unsqueeze(1)).sum(0) / total
        return (self._cost(tau).to(mean.dtype) * (counted / total).to(mean.dtype) * mean).sum()

    def update_bias(self, rate: float = 1e-3, tau: float = 0.75) -> None:
        """Balance to the same target without a loss: :meth:`DynamicRouter.update_bias`, a zero-computation expert's
        load counting ``tau`` times. The router needs ``selection_bias=True``."""
        counted = self.gate.load_since_update().to(deepseek.float32)
        self.gate.update_bias(rate, counted * self._cost(tau))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"routing": None, "_chosen": None}  # part of a graph, which cannot be copied

    def extra_repr(self) -> str:
        return (
            f"{self.num_experts} experts of {self.moe_intermediate_size}, zero_experts={self.zero_experts}, "
            f"copy_experts={self.copy_experts}, constant_experts={self.constant_experts}"
        )


guard(__name__)
