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

# ruff: noqa: F403  (@public makes __all__ of each file)

from __future__ import annotations

from typing import TYPE_CHECKING

from deepseek._binding.missing import guard
from deepseek._binding.public import gather
from deepseek.moe.balance import *
from deepseek.moe.experts import *
from deepseek.moe.layer import *
from deepseek.moe.router import DynamicRouter as DynamicRouter
from deepseek.moe.router import RouterOutput as RouterOutput

if TYPE_CHECKING:
    from deepseek.moe.clustering import *
    from deepseek.moe.depths import *
    from deepseek.moe.permutation import *
    from deepseek.moe.placement import *
    from deepseek.moe.schedules import *
    from deepseek.moe.trace import *
    from deepseek.moe.tuning import *
    from deepseek.moe.utilisation import *
    from deepseek.moe.work import *
    from deepseek.moe.zero_experts import *

# What loads on first use: schedules, placement, diagnostics. pytests/package/test_names.py holds it against @public.
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

gather(__name__, elsewhere=_ELSEWHERE)
guard(__name__, elsewhere=_ELSEWHERE)
