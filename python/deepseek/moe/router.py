"""Which experts a token goes to, and what each of them counts: the gates of DeepSeek-V2, V3, V3.2 and V4.

========== ============================================================== =====================================
of         scores and choice                                              arguments
========== ============================================================== =====================================
V2-Lite    softmax, the k largest                                         ``scoring="softmax"``
V2         softmax, groups by their largest score                         ``n_group=8, topk_group=3``
V3, V3.2   sigmoid, scores + bias choose, groups by their two largest     ``scoring="sigmoid", n_group=8,
                                                                          topk_group=4, group_score="top2",
                                                                          selection_bias=True,
                                                                          norm_topk_prob=True``
V4         sqrt(softplus), scores + bias choose                           ``scoring="sqrtsoftplus",
                                                                          selection_bias=True,
                                                                          norm_topk_prob=True``
V4, first  sqrt(softplus), a table from token ids to experts chooses      ``hash_vocab_size=vocabulary size``
========== ============================================================== =====================================
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import deepseek
from deepseek import Tensor, nn
from deepseek._binding.autocast import runs_without_autocast
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._selection import all_within, keep_best_groups, over_capacity, without_padding
from deepseek.nn import functional as F

TINY = 1e-20  # added to the sum that weights are divided by


@public
class RouterOutput(NamedTuple):
    """What a router says about T tokens.

    Attributes:
        weights: (T, k) float32 (float64 for float64 input), what each chosen expert counts; 0 in an empty slot.
        indices: (T, k) int64, the chosen experts, best first; -1 in an empty slot, as :func:`nn.functional.moe` takes
            it.
        logits: (T, E), the gate's output before the scoring function, for losses.
    """

    weights: Tensor
    indices: Tensor
    logits: Tensor


def sqrt_softplus(x: Tensor) -> Tensor:
    """sqrt(log(1 + e^x)); far below zero e^(x / 2), because the root of a value that is rounded to 0 has no slope."""
    low = -40.0  # below, log(1 + e^x) = e^x to the last bit of float64
    return deepseek.where(x < low, (x.clamp(max=low) * 0.5).exp(), F.softplus(x.clamp(min=low)).sqrt())


SCORING: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: F.softmax(logits, dim=-1),
    "sigmoid": deepseek.sigmoid,
    "sqrtsoftplus": sqrt_softplus,
}


@public
class DynamicRouter(nn.Module):
    """Chooses ``top_k`` of ``num_experts`` experts for each token and says what each counts.

    With logits = x W^T in float32 (whatever the input's dtype, under autocast too) and s = scoring(logits)::

        choice  = s + e_score_correction_bias        (the bias only with selection_bias)
        choice  = -inf for experts that are not enabled, or not in one of the topk_group best groups
        indices = the top_k largest of choice; the lowest expert of equal ones
        weights = s[indices], / (their sum + 1e-20) with norm_topk_prob, * routed_scaling_factor

    The choice has no gradient and the bias takes no part in the weights. A token's result depends on that token alone,
    except for ``capacity_factor``. A token that holds NaN gets NaN weights and some experts.

    With ``top_k=1`` and ``norm_topk_prob`` every weight is 1 whatever the scores are, so that the gate gets no gradient
    from its experts and does not learn from the loss. Train top-1 with ``norm_topk_prob=False``, as Switch Transformer
    does.

    A slot is **empty** (index -1, weight 0) for a padding token, for an expert beyond its capacity, and where fewer
    than ``top_k`` experts may be chosen. Weights are divided by the sum of what was chosen, before a capacity drops
    some of it.

    Padding may hold anything, NaN too: its tokens are taken as zeros, and so are their logits.

    With ``capacity_factor``, :attr:`chosen` (T, k) int64 is what the last training forward chose before the capacity
    dropped some of it (-1 in a slot that was empty before that), which ``load`` counts and balance losses ask for. None
    otherwise: then it is the ``indices``. (It is an attribute, so :func:`deepseek.jit` runs such training eagerly.)

    ``top_k`` and ``routed_scaling_factor`` may be changed between calls. Buffers, all but the bias and the table not
    saved:

    - ``e_score_correction_bias`` (E,) float32, which stays float32 in ``to()`` and ``load_state_dict(assign=True)``;
    - ``tid2eid`` (V, top_k) int64, with ``hash_vocab_size`` only;
    - ``enabled`` (E,) bool: write False to take an expert out;
    - ``load`` (E,) int64: tokens that chose each expert in training forwards since :meth:`reset_load`, padding left
      out, those beyond the capacity included;
    - ``dropped`` (E,) int64: how many of these were beyond the capacity.

    Args:
        num_experts: E.
        top_k: experts a token.
        hidden_size: D, the width of a token. Required.
        scoring: ``"softmax"``, ``"sigmoid"`` or ``"sqrtsoftplus"``.
        n_group: experts lie in this many groups of neighbours.
        topk_group: groups that a token may choose from.
        group_score: what a group is judged by: its largest choice (``"max"``, V2) or the sum of its two largest
            (``"top2"``, V3).
        selection_bias: have ``e_score_correction_bias``; see :meth:`update_bias`.
        norm_topk_prob: divide the weights of a token by their sum.
        routed_scaling_factor: what weights are multiplied by.
        capacity_factor: an expert takes at most ``ceil(capacity_factor * T * top_k / E)`` of T tokens (padding not
            counted), all first choices before second ones, earlier tokens first (GShard, Lepikhin et al. 2020). None:
            no limit.
        hash_vocab_size: V; experts are ``tid2eid[token]`` (DeepSeek-V4's first layers). The table starts with
            consecutive experts for each token.
        init: ``"orthogonal"`` (rows of W, or columns when E > D, are orthonormal) or ``"normal"`` (of ``init_std``).
        init_std: for ``init="normal"``.
        dtype: of the weight; the default dtype when None.

    Raises:
        ValueError: sizes or names that make no router; the text says which.

    Sources: DeepSeekMoE (2401.06066), DeepSeek-V2 (2405.04434), auxiliary-loss-free balancing (2408.15664), DeepSeek-V3
    (2412.19437).
    """

    e_score_correction_bias: Tensor | None
    tid2eid: Tensor | None
    enabled: Tensor
    load: Tensor
    dropped: Tensor
    chosen: Tensor | None
    _balanced: Tensor

    def __init__(
        self,
        num_experts: int,
        top_k: int = 2,
        hidden_size: int | None = None,
        *,
        scoring: str = "softmax",
        n_group: int = 1,
        topk_group: int = 1,
        group_score: str = "max",
        selection_bias: bool = False,
        norm_topk_prob: bool = False,
        routed_scaling_factor: float = 1.0,
        capacity_factor: float | None = None,
        hash_vocab_size: int | None = None,
        init: str = "orthogonal",
        init_std: float = 0.02,
        dtype: deepseek.dtype | None = None,
    ) -> None:
        super().__init__()
        if hidden_size is None:
            raise ValueError("DynamicRouter: hidden_size, the width of a token, is required: DynamicRouter(8, 2, 1024)")
        for name, value in (("num_experts", num_experts), ("hidden_size", hidden_size), ("n_group", n_group)):
            if value < 1:
                raise ValueError(f"DynamicRouter: {name} must be at least 1, got {value}")
        _check_choice("scoring", scoring, tuple(SCORING))
        _check_choice("group_score", group_score, ("max", "top2"))
        _check_choice("init", init, ("orthogonal", "normal"))
        if num_experts % n_group or not 1 <= topk_group <= n_group:
            raise ValueError(
                f"DynamicRouter: n_group must divide num_experts and topk_group be from 1 to n_group, got "
                f"num_experts={num_experts}, n_group={n_group}, topk_group={topk_group}"
            )
        if n_group > 1 and group_score == "top2" and num_experts // n_group < 2:
            raise ValueError(
                f"DynamicRouter: group_score='top2' needs groups of two experts or more, got {num_experts} experts in "
                f"{n_group} groups"
            )
        if capacity_factor is not None and not capacity_factor > 0:
            raise ValueError(f"DynamicRouter: capacity_factor must be positive or None, got {capacity_factor}")
        if hash_vocab_size is not None and hash_vocab_size < 1:
            raise ValueError(f"DynamicRouter: hash_vocab_size must be at least 1 or None, got {hash_vocab_size}")
        self.num_experts, self.hidden_size = num_experts, hidden_size
        self.scoring, self.n_group, self.topk_group, self.group_score = scoring, n_group, topk_group, group_score
        self.norm_topk_prob, self.routed_scaling_factor = norm_topk_prob, routed_scaling_factor
        self.capacity_factor = capacity_factor
        self.init, self.init_std = init, init_std
        self.top_k = top_k
        self.chosen = None
        self.weight = nn.Parameter(deepseek.empty(num_experts, hidden_size, dtype=dtype))
        bias = deepseek.zeros(num_experts, dtype=deepseek.float32) if selection_bias else None
        self.register_buffer("e_score_correction_bias", bias)
        table = None
        if hash_vocab_size is not None:
            first = deepseek.arange(hash_vocab_size).unsqueeze(1) * top_k
            table = (first + deepseek.arange(top_k)) % num_experts
        self.register_buffer("tid2eid", table)
        self.register_buffer("enabled", deepseek.ones(num_experts, dtype=deepseek.bool), persistent=False)
        for name in ("load", "dropped", "_balanced"):  # the last: the load that update_bias() has seen
            self.register_buffer(name, deepseek.zeros(num_experts, dtype=deepseek.int64), persistent=False)
        self.reset_parameters()

    @property
    def top_k(self) -> int:
        """Experts a token."""
        return self._top_k

    @top_k.setter
    def top_k(self, value: int) -> None:
        reachable = self.num_experts // self.n_group * self.topk_group
        if not 1 <= value <= reachable:
            of = f"num_experts={self.num_experts}"
            if self.topk_group < self.n_group:
                of = f"{reachable}, the experts in {self.topk_group} of {self.n_group} groups of {of}"
            raise ValueError(f"DynamicRouter: top_k must be from 1 to {of}; got {value}")
        table = self._buffers.get("tid2eid") if "_buffers" in self.__dict__ else None
        if table is not None and value > table.shape[1]:
            raise ValueError(
                f"DynamicRouter: top_k must be at most {table.shape[1]}, the width of tid2eid; got {value}"
            )
        self._top_k = value

    def reset_parameters(self) -> None:
        """Draws the gate's weight as ``init`` says, and sets the bias to zero."""
        if self.init == "orthogonal":
            nn.init.orthogonal_(self.weight)
        else:
            nn.init.normal_(self.weight, std=self.init_std)
        if self.e_score_correction_bias is not None:
            nn.init.zeros_(self.e_score_correction_bias)

    def forward(
        self, x: Tensor, *, padding_mask: Tensor | None = None, token_ids: Tensor | None = None
    ) -> RouterOutput:
        """Routes tokens.

        Args:
            x: (..., D); T tokens in all.
            padding_mask: (...) bool, True where a token is padding: it gets no expert and is not counted.
            token_ids: (...) integers, for hash routing, which needs them.

        Raises:
            RuntimeError: sizes that do not fit.
            TypeError: a padding_mask that is not bool, or token_ids that are not integers.
            ValueError: token_ids given without hash routing, or missing with it.
            IndexError: a token id out of range, or a table with an expert out of range.
        """
        flat = self._tokens(x)
        padding = None if padding_mask is None else self._padding(padding_mask, x)
        flat = without_padding(flat, padding)
        logits = self.logits(flat)
        scores = self.scores(logits)
        with deepseek.no_grad():
            chosen, empty = self._choose(scores.detach(), self._rows_of_table(token_ids, x))
            if padding is not None:
                empty = empty | padding  # (T, k)
            keep = self.training and self.capacity_factor is not None
            self.chosen = chosen.masked_fill(empty, -1) if keep else None
            beyond = self._beyond_capacity(chosen, empty)
            indices = chosen.masked_fill(empty if beyond is None else empty | beyond, -1)
        weights = scores.gather(1, chosen).masked_fill(empty, 0.0)
        if self.norm_topk_prob:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + TINY)
        weights = weights * self.routed_scaling_factor
        return RouterOutput(weights if beyond is None else weights.masked_fill(beyond, 0.0), indices, logits)

    @runs_without_autocast
    def logits(self, x: Tensor) -> Tensor:
        """The gate's product (T, E) of tokens (T, D), in float32 or, for float64 tokens, in float64."""
        wide = deepseek.float64 if x.dtype == deepseek.float64 else deepseek.float32
        return F.linear(x.to(wide), self.weight.to(wide))

    def scores(self, logits: Tensor) -> Tensor:
        """The unbiased scores (T, E) of logits: probabilities, or for sigmoid and sqrtsoftplus affinities.

        They are 0 for experts that are not enabled, whose logits then get no gradient.
        """
        if self.scoring == "softmax":
            return SCORING["softmax"](logits.masked_fill(~self.enabled, deepseek.finfo(logits.dtype).min))
        return SCORING[self.scoring](logits).masked_fill(~self.enabled, 0.0)

    # --- the steps of forward

    def _choose(self, scores: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        """Experts (T, k), and which of these slots are empty because no more experts may be chosen."""
        if table is not None:
            return table, ~self.enabled[table]
        choice = scores if self.e_score_correction_bias is None else scores + self.e_score_correction_bias
        choice = choice.masked_fill(~self.enabled, -math.inf)
        if self.topk_group < self.n_group:
            choice = keep_best_groups(choice, self.n_group, self.topk_group, self.group_score)
        best, chosen = deepseek.topk(choice, self.top_k, dim=-1)
        return chosen, best == -math.inf

    def _beyond_capacity(self, chosen: Tensor, empty: Tensor) -> Tensor | None:
        """Which slots are beyond the capacity, if there is one. Counts in training."""
        beyond = None
        if self.capacity_factor is not None:
            beyond = over_capacity(chosen, empty, self.num_experts, self.capacity_factor)
        if self.training:
            self._count(self.load, chosen, ~empty)
            if beyond is not None:
                self._count(self.dropped, chosen, beyond)
        return beyond

    @staticmethod
    def _count(to: Tensor, experts: Tensor, where: Tensor) -> None:
        to.index_add_(0, experts.reshape(-1), where.reshape(-1).to(deepseek.int64))

    # --- arguments

    def _tokens(self, x: Tensor) -> Tensor:
        if x.dim() < 1 or x.shape[-1] != self.hidden_size:
            raise RuntimeError(
                f"DynamicRouter: input must be (..., hidden_size={self.hidden_size}), got {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise TypeError(f"DynamicRouter: input must be floating point, got {x.dtype}")
        return x.reshape(-1, self.hidden_size)

    @staticmethod
    def _padding(mask: Tensor, x: Tensor) -> Tensor:
        if mask.dtype != deepseek.bool:
            raise TypeError(
                f"DynamicRouter: padding_mask must be bool, True where a token is padding, got {mask.dtype}; "
                f"of an attention_mask of ones and zeros it is attention_mask == 0"
            )
        if tuple(mask.shape) != tuple(x.shape[:-1]):
            raise RuntimeError(
                f"DynamicRouter: padding_mask must be {tuple(x.shape[:-1])} for input {tuple(x.shape)}, got "
                f"{tuple(mask.shape)}"
            )
        return mask.reshape(-1, 1)

    def _rows_of_table(self, token_ids: Tensor | None, x: Tensor) -> Tensor | None:
        if self.tid2eid is None:
            if token_ids is not None:
                raise ValueError(
                    "DynamicRouter: token_ids are for hash routing; make the router with hash_vocab_size, or leave "
                    "them out"
                )
            return None
        if token_ids is None:
            raise ValueError("DynamicRouter: hash routing chooses experts by token_ids; pass token_ids=(...)")
        if token_ids.is_floating_point() or token_ids.dtype == deepseek.bool:
            raise TypeError(f"DynamicRouter: token_ids must be integers, got {token_ids.dtype}")
        if tuple(token_ids.shape) != tuple(x.shape[:-1]):
            raise RuntimeError(
                f"DynamicRouter: token_ids must be {tuple(x.shape[:-1])} for input {tuple(x.shape)}, got "
                f"{tuple(token_ids.shape)}"
            )
        rows = F.embedding(token_ids.reshape(-1), self.tid2eid)[:, : self.top_k]
        if not all_within(rows, 0, self.num_experts):
            raise IndexError(
                f"DynamicRouter: tid2eid must hold experts from 0 to {self.num_experts - 1}, got values from "
                f"{int(rows.min())} to {int(rows.max())} for these token_ids"
            )
        return rows

    # --- balance

    def update_bias(self, rate: float = 1e-3, load: Tensor | None = None) -> None:
        """Moves the selection bias by ``rate`` for experts with less than the mean load, by ``-rate`` for those with
        more: balance without a loss (Wang et al., 2408.15664). Call it after each optimizer step.

        Args:
            rate: the step; DeepSeek-V3 trained with 1e-3.
            load: (E,) tokens an expert, e.g. summed over processes; by default :meth:`load_since_update`. Only enabled
                experts take part.

        Raises:
            RuntimeError: there is no bias, or ``load`` is not (E,).
            ValueError: ``load`` has NaN or inf.
        """
        bias = self.e_score_correction_bias
        if bias is None:
            raise RuntimeError("DynamicRouter.update_bias: there is no bias; make the router with selection_bias=True")
        with deepseek.no_grad():
            counted = self.load_since_update() if load is None else load
            if tuple(counted.shape) != (self.num_experts,):
                raise RuntimeError(
                    f"DynamicRouter.update_bias: load must be ({self.num_experts},), got {tuple(counted.shape)}"
                )
            if load is not None and not bool(load.isfinite().all()):
                raise ValueError(f"DynamicRouter.update_bias: load must be finite, got {load.tolist()}")
            self._balanced.copy_(self.load)
            active = self.enabled.to(deepseek.float64)
            counted = counted.to(deepseek.float64)
            mean = (counted * active).sum() / active.sum().clamp(min=1)
            bias += (rate * (mean - counted).sign() * active).to(bias.dtype)

    def load_since_update(self) -> Tensor:
        """(E,) int64: tokens that chose each expert since the last :meth:`update_bias`, or since ``load`` was cleared.

        Clear it with :meth:`reset_load`. Where ``load`` was overwritten instead, that shows as soon as an expert has
        less than at the last update, and then ``load`` is taken as it is.
        """
        since = self.load - self._balanced
        return deepseek.where((since < 0).any(), self.load, since)

    def reset_load(self) -> None:
        """Starts counting anew: ``load`` and ``dropped`` become zero."""
        with deepseek.no_grad():
            for count in (self.load, self.dropped, self._balanced):
                count.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        bias = self._buffers["e_score_correction_bias"]
        super()._apply(fn, recurse)
        made = self._buffers["e_score_correction_bias"]
        if bias is not None and made is not None and made.dtype != bias.dtype:
            self._buffers["e_score_correction_bias"] = bias
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        bias = self._buffers["e_score_correction_bias"]
        if bias is not None and bias.dtype != deepseek.float32:  # assign=True takes the tensor of the state dict
            self._buffers["e_score_correction_bias"] = bias.to(deepseek.float32)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are without the last choice."""
        return self.__dict__ | {"chosen": None}

    def extra_repr(self) -> str:
        text = f"{self.num_experts}, top_k={self.top_k}, hidden_size={self.hidden_size}, scoring={self.scoring!r}"
        if self.n_group > 1:
            text += f", n_group={self.n_group}, topk_group={self.topk_group}, group_score={self.group_score!r}"
        for name, plain in (("norm_topk_prob", False), ("routed_scaling_factor", 1.0), ("capacity_factor", None)):
            value = getattr(self, name)
            if value != plain:
                text += f", {name}={value}"
        return text


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"DynamicRouter: {name} must be one of {', '.join(map(repr, known))}, got {value!r}")


guard(__name__)
