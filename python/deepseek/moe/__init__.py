"""Mixtures of experts: many feed-forwards, of which each token uses a few.

    layer = DeepseekMoE(1024, 512, n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2)
    y = layer(x)                                     # x (batch, length, 1024)
    layer = DeepseekMoE.from_config(config)          # of a checkpoint of DeepSeek-V2, V3, V3.2 or V4

:class:`DynamicRouter` chooses experts as these models do, :class:`Experts` are the feed-forwards in stacks for the
grouped kernels (float32, bfloat16, and few bits by ``quantization.quantize_``). For balance there are losses, to add to
a model's own, and :func:`update_selection_bias`, which does without.

Around them: :class:`ExpertUtilisation` shows how evenly experts are used, :class:`ProgressiveExperts` switches them on
step by step, :func:`cluster_experts` and :func:`permute_experts` put those together that are chosen together,
:func:`rebalance_experts` plans replicas, :class:`ExpertTuning` trains the experts of a task alone, and
:class:`ZeroComputationMoE` and :class:`MixtureOfDepths` compute less for some tokens. docs/moe.md says what to choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepseek._binding.missing import guard
from deepseek.moe.balance import (
    load_balancing_loss,
    moe_balance_loss,
    router_probabilities,
    router_z_loss,
    sequence_balance_loss,
    update_selection_bias,
)
from deepseek.moe.experts import Experts, SwiGLU
from deepseek.moe.layer import DeepseekMoE
from deepseek.moe.router import DynamicRouter, RouterOutput

__all__ = [
    "DeepseekMoE", "DynamicRouter", "Experts", "RouterOutput", "SwiGLU", "load_balancing_loss", "moe_balance_loss",
    "router_probabilities", "router_z_loss", "sequence_balance_loss", "update_selection_bias",
]  # fmt: skip

# What loads on first use: schedules, placement, diagnostics.
_ELSEWHERE = {
    name: module
    for module, names in {
        "clustering": ("GroupTraffic", "cluster_experts", "co_activation", "cross_group_traffic"),
        "depths": ("MixtureOfDepths", "mixture_of_depths_loss"),
        "permutation": ("permute_experts",),
        "placement": ("rebalance_experts",),
        "schedules": ("ExpertStage", "ProgressiveExperts"),
        "trace": ("LayerTrace", "RoutingTrace"),
        "tuning": ("ExpertTuning", "expert_scores", "select_experts"),
        "utilisation": ("ExpertUtilisation", "LoadStatistics", "UtilisationRecord"),
        "work": ("ComputeReport", "flops_per_token"),
        "zero_experts": ("ZeroComputationMoE",),
    }.items()
    for name in names
}
if TYPE_CHECKING:
    from deepseek.moe.clustering import GroupTraffic as GroupTraffic
    from deepseek.moe.clustering import cluster_experts as cluster_experts
    from deepseek.moe.clustering import co_activation as co_activation
    from deepseek.moe.clustering import cross_group_traffic as cross_group_traffic
    from deepseek.moe.depths import MixtureOfDepths as MixtureOfDepths
    from deepseek.moe.depths import mixture_of_depths_loss as mixture_of_depths_loss
    from deepseek.moe.permutation import permute_experts as permute_experts
    from deepseek.moe.placement import rebalance_experts as rebalance_experts
    from deepseek.moe.schedules import ExpertStage as ExpertStage
    from deepseek.moe.schedules import ProgressiveExperts as ProgressiveExperts
    from deepseek.moe.trace import LayerTrace as LayerTrace
    from deepseek.moe.trace import RoutingTrace as RoutingTrace
    from deepseek.moe.tuning import ExpertTuning as ExpertTuning
    from deepseek.moe.tuning import expert_scores as expert_scores
    from deepseek.moe.tuning import select_experts as select_experts
    from deepseek.moe.utilisation import ExpertUtilisation as ExpertUtilisation
    from deepseek.moe.utilisation import LoadStatistics as LoadStatistics
    from deepseek.moe.utilisation import UtilisationRecord as UtilisationRecord
    from deepseek.moe.work import ComputeReport as ComputeReport
    from deepseek.moe.work import flops_per_token as flops_per_token
    from deepseek.moe.zero_experts import ZeroComputationMoE as ZeroComputationMoE

__all__ += list(_ELSEWHERE)

guard(__name__, elsewhere=_ELSEWHERE)
