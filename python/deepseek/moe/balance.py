"""Keeping experts equally busy: losses on what a router says, and the update of selection biases.

All losses are float32 scalars, take probabilities (..., E) of any leading dims and are 0 where there is no token.
``padding_mask`` (...) is bool, True where a token is padding, which then counts nowhere.
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import deepseek
from deepseek import Tensor, nn
from deepseek._binding.autocast import runs_in_float32
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._selection import all_within
from deepseek.moe.router import DynamicRouter


@public
@runs_in_float32
def moe_balance_loss(
    router_probs: Tensor, num_experts: int, *, weight: float = 0.01, padding_mask: Tensor | None = None
) -> Tensor:
    """``weight * mean over experts of (P_i - 1 / E)^2``, P_i the mean probability of expert i.

    It looks at probabilities only, not at which experts were chosen, and falls as 1 / E^2, so that it does next to
    nothing with many experts: prefer :func:`load_balancing_loss` for training.

    Args:
        router_probs: (..., E) probabilities.
        num_experts: E.
        weight: lambda.
        padding_mask: (...), True for padding.

    Raises:
        RuntimeError: ``router_probs`` has another last dim than ``num_experts``, or the mask another shape.
    """
    probs, mask = _tokens("moe_balance_loss", router_probs, padding_mask)
    if probs.shape[-1] != num_experts:
        raise RuntimeError(
            f"moe_balance_loss: router_probs must be (..., num_experts={num_experts}), got {tuple(router_probs.shape)}"
        )
    if probs.shape[0] == 0:
        return probs.sum()
    mean, count = _mean(probs, mask)
    return weight * ((mean - 1.0 / num_experts) ** 2).mean() * (count > 0).to(probs.dtype)


@public
@runs_in_float32
def load_balancing_loss(router_probs: Tensor, indices: Tensor, *, padding_mask: Tensor | None = None) -> Tensor:
    """``E * sum_i f_i * P_i``: f_i the part of all choices that fell on expert i, without a gradient, P_i its mean
    probability.

    1 where both are uniform. (GShard, Lepikhin et al. 2020; Switch Transformer, Fedus et al. 2101.03961; with k > 1
    choices a token some write f without the division by k, which gives k.)

    Args:
        router_probs: (..., E) probabilities; of affinities :func:`router_probabilities` makes some.
        indices: (..., k) int64, the chosen experts; -1 is none. With one token dim: (T, k), as a router returns it. f
            is about the choice before a capacity drops some of it: of a router with one give ``router.chosen``.
        padding_mask: (...), True for padding.

    Raises:
        RuntimeError: shapes that do not fit.
        TypeError: indices that are not integers.
        IndexError: an index below -1 or not below E.
    """
    probs, mask = _tokens("load_balancing_loss", router_probs, padding_mask)
    chosen = _choices("load_balancing_loss", router_probs, indices)
    return _balance(probs.unsqueeze(0), chosen.unsqueeze(0), None if mask is None else mask.unsqueeze(0)).sum()


@public
@runs_in_float32
def sequence_balance_loss(router_probs: Tensor, indices: Tensor, *, padding_mask: Tensor | None = None) -> Tensor:
    """:func:`load_balancing_loss` of each sequence, averaged: ``seq_aux`` of DeepSeek-V2, eq. 17-20 of DeepSeek-V3
    (2412.19437), without its factor alpha.

    Args:
        router_probs: (B, L, E) probabilities.
        indices: (B, L, k) or (B * L, k) int64, the chosen experts; -1 is none. See :func:`load_balancing_loss`.
        padding_mask: (B, L), True for padding. Sequences without a token do not count in the average.

    Raises:
        RuntimeError, TypeError, IndexError: see :func:`load_balancing_loss`.
    """
    if router_probs.dim() != 3:
        raise RuntimeError(
            f"sequence_balance_loss: router_probs must be (batch, length, experts), got {tuple(router_probs.shape)}"
        )
    batch, length, experts = router_probs.shape
    probs, mask = _tokens("sequence_balance_loss", router_probs, padding_mask)
    chosen = _choices("sequence_balance_loss", router_probs, indices)
    if batch * length == 0:
        return probs.sum()
    by_sequence = None if mask is None else mask.view(batch, length)
    loss = _balance(probs.view(batch, length, experts), chosen.view(batch, length, -1), by_sequence)
    counted = batch if by_sequence is None else (~by_sequence).any(dim=-1).sum().clamp(min=1)
    return loss.sum() / counted


@public
@runs_in_float32
def router_z_loss(logits: Tensor, *, padding_mask: Tensor | None = None) -> Tensor:
    """Mean over tokens of ``logsumexp(logits)^2``, which keeps logits small. (ST-MoE, Zoph et al. 2202.08906, who
    multiply it by 1e-3.)

    Args:
        logits: (..., E), a router's.
        padding_mask: (...), True for padding.

    Raises:
        RuntimeError: the mask has another shape.
    """
    rows, mask = _tokens("router_z_loss", logits, padding_mask)
    if rows.shape[0] == 0:
        return rows.sum()
    squares = deepseek.logsumexp(rows, -1, keepdim=True) ** 2
    if mask is not None:
        squares = squares.masked_fill(mask.unsqueeze(-1), 0.0)
    return _mean(squares, mask)[0].sum()


@public
def router_probabilities(router: DynamicRouter, logits: Tensor) -> Tensor:
    """A router's scores of ``logits`` (..., E) as probabilities: affinities (sigmoid, sqrtsoftplus) are divided by
    their sum, as DeepSeek-V3's balance loss does (eq. 19)."""
    scores = router.scores(logits)
    return scores if router.scoring == "softmax" else scores / (scores.sum(dim=-1, keepdim=True) + 1e-20)


@public
def update_selection_bias(module: nn.Module, rate: float = 1e-3) -> None:
    """:meth:`DynamicRouter.update_bias` of all routers in a model that have a selection bias, for after each optimizer
    step.

    Raises:
        ValueError: there is none.
    """
    routers = [m for m in module.modules() if isinstance(m, DynamicRouter) and m.e_score_correction_bias is not None]
    if not routers:
        raise ValueError("update_selection_bias: the model has no DynamicRouter with selection_bias=True")
    for router in routers:
        router.update_bias(rate)


# --- pieces


def _tokens(name: str, rows: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Rows (T, E) in float32 at least, with zeros for padding, and the mask (T,)."""
    wide = rows if rows.dtype == deepseek.float64 else rows.to(deepseek.float32)
    flat = wide.reshape(-1, rows.shape[-1])
    if padding_mask is None:
        return flat, None
    if padding_mask.dtype != deepseek.bool:
        raise TypeError(f"{name}: padding_mask must be bool, True where a token is padding, got {padding_mask.dtype}")
    if tuple(padding_mask.shape) != tuple(rows.shape[:-1]):
        raise RuntimeError(
            f"{name}: padding_mask must be {tuple(rows.shape[:-1])} for {tuple(rows.shape)}, got "
            f"{tuple(padding_mask.shape)}"
        )
    mask = padding_mask.reshape(-1)
    return flat.masked_fill(mask.unsqueeze(-1), 0.0), mask


def _choices(name: str, probs: Tensor, indices: Tensor) -> Tensor:
    """Choices (T, k) of T tokens, each -1 or an expert."""
    tokens, experts = probs.numel() // probs.shape[-1], probs.shape[-1]
    if indices.is_floating_point() or indices.dtype == deepseek.bool:
        raise TypeError(f"{name}: indices must be integers, got {indices.dtype}")
    if indices.dim() < 2 or indices.numel() != tokens * indices.shape[-1]:
        raise RuntimeError(
            f"{name}: indices must be (..., k) for the tokens of router_probs {tuple(probs.shape)}, got "
            f"{tuple(indices.shape)}"
        )
    if not all_within(indices, -1, experts):
        raise IndexError(
            f"{name}: indices must be from 0 to {experts - 1}, the experts of router_probs {tuple(probs.shape)}, or -1 "
            f"for none; got values from {int(indices.min())} to {int(indices.max())}"
        )
    return indices.reshape(-1, indices.shape[-1])


def _mean(rows: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean (E,) of the rows (T, E) that are no padding (whose rows are zero), and how many there are."""
    count = deepseek.tensor(rows.shape[0]) if mask is None else (~mask).sum()
    return rows.sum(dim=0) / count.clamp(min=1), count


def _balance(probs: Tensor, indices: Tensor, mask: Tensor | None) -> Tensor:
    """E * sum_i f_i P_i of each of S sequences: (S,) of probs (S, L, E), indices (S, L, k) and mask (S, L)."""
    sequences, length, experts = probs.shape
    if length == 0:
        return probs.sum(dim=(1, 2))
    with deepseek.no_grad():
        # Every sequence counts in bins of its own; one more is for slots without an expert.
        ids = indices + deepseek.arange(sequences).view(-1, 1, 1) * experts
        ids = ids.masked_fill(indices < 0, sequences * experts)
        if mask is not None:
            ids = ids.masked_fill(mask.unsqueeze(-1), sequences * experts)
        count = deepseek.bincount(ids.reshape(-1), minlength=sequences * experts + 1)[:-1]
        count = count.view(sequences, experts).to(probs.dtype)
        part = count / count.sum(dim=-1, keepdim=True).clamp(min=1)
    tokens = length if mask is None else (~mask).sum(dim=-1, keepdim=True).clamp(min=1)
    return experts * (part * (probs.sum(dim=1) / tokens)).sum(dim=-1)


guard(__name__)
