"""The mixture-of-experts feed-forward of DeepSeek-V2, V3, V3.2 and V4."""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import deepseek
from deepseek import Tensor, nn
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._selection import without_padding
from deepseek.moe.balance import load_balancing_loss, router_probabilities, sequence_balance_loss
from deepseek.moe.experts import Experts, SwiGLU
from deepseek.moe.router import DynamicRouter, RouterOutput

# topk_method of a checkpoint's configuration: what the router is told.
METHODS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "group_limited_greedy": {"group_score": "max"},
    "noaux_tc": {"group_score": "top2", "selection_bias": True},
}
# What configurations of a model_type leave out.
FAMILIES: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"scoring_func": "softmax", "topk_method": "greedy"},
    "deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc"},
    "deepseek_v32": {"scoring_func": "sigmoid", "topk_method": "noaux_tc"},
    "deepseek_v4": {"scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc", "norm_topk_prob": True},
}
KEYS = (
    "hidden_size", "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "n_shared_experts", "n_group",
    "topk_group", "topk_method", "scoring_func", "norm_topk_prob", "routed_scaling_factor", "aux_loss_alpha", "seq_aux",
    "swiglu_limit", "hidden_act", "mlp_bias",
)  # fmt: skip
NUMERICS = ("hf", "reference")


@public
class DeepseekMoE(nn.Module):
    """``shared_experts(x) + sum_k weights_k * expert_k(x)``: every token goes through the shared experts and, as
    ``gate`` says, through some of the routed ones. (DeepSeekMoE, Dai et al. 2401.06066)

    Keywords are those of the checkpoints' configuration, and so are the names of the state dict: ``gate.weight``
    (E, D), ``gate.e_score_correction_bias`` (E,), ``gate.tid2eid`` (V, k), ``shared_experts.gate_proj.weight``, …,
    and ``experts.*`` in one of two layouts (:class:`Experts`), of which either loads.

    The routed sum is multiplied by ``routed_scaling_factor``, shared experts are not. With ``swiglu_limit`` both kinds
    of experts clamp. Experts run in the dtype of their weights, which the input must have (or under autocast); the gate
    in float32.

    ``numerics`` says where 16-bit results are rounded; in float32 both are the same. Either way activations between
    products are rounded once, and a token's experts are added in float32, unrounded.

    - ``"hf"``: the sum of the routed experts is rounded, then the shared experts' output is added, as transformers does
      (which also rounds after each expert).
    - ``"reference"``: the shared experts' output is added in float32 and only the end is rounded, as in DeepSeek's
      ``inference/model.py``. Its quantization of activations to FP8 is not available here: with experts in ``fp8`` it
      raises.

    Buffers that count and switch experts are the router's: ``gate.load``, ``gate.dropped``, ``gate.enabled``.

    Args:
        hidden_size: D.
        moe_intermediate_size: I, inner width of one expert.
        n_routed_experts: E.
        num_experts_per_tok: k.
        n_shared_experts: shared ones: one feed-forward of inner width ``n_shared_experts * I``. None or 0: none.
        n_group: groups of experts, for the methods that limit groups. None counts as 1.
        topk_group: groups a token may use. None counts as 1.
        topk_method: ``"greedy"`` (groups play no part), ``"group_limited_greedy"`` (groups by their largest score), or
            ``"noaux_tc"`` (a selection bias; groups by the sum of their two largest).
        scoring_func: ``"softmax"``, ``"sigmoid"`` or ``"sqrtsoftplus"``.
        norm_topk_prob: divide a token's weights by their sum. None counts as False.
        routed_scaling_factor: what the weights are multiplied by.
        aux_loss_alpha: above 0, a training forward leaves ``alpha`` times the balance loss in :attr:`aux_loss`.
        seq_aux: that loss is of each sequence (:func:`sequence_balance_loss`), not of all tokens
            (:func:`load_balancing_loss`).
        swiglu_limit: DeepSeek-V4's clamp in SwiGLU; see :func:`nn.functional.swiglu`.
        hidden_act: ``"silu"``.
        hash_vocab_size: route by token ids, as DeepSeek-V4's first layers do.
        capacity_factor: see :class:`DynamicRouter`.
        numerics: ``"hf"`` or ``"reference"``.
        layout: of the state dict, ``"per_expert"`` or ``"fused"``.

    Raises:
        ValueError: sizes or names that make no layer.
        NotImplementedError: another ``hidden_act``.
    """

    aux_loss: Tensor | None
    """The balance loss of the last training forward with ``aux_loss_alpha`` > 0, multiplied by it: a scalar to add to
    the loss. One that ran without gradients leaves a constant."""

    def __init__(
        self,
        hidden_size: int,
        moe_intermediate_size: int,
        n_routed_experts: int,
        num_experts_per_tok: int,
        *,
        n_shared_experts: int | None = None,
        n_group: int | None = 1,
        topk_group: int | None = 1,
        topk_method: str = "greedy",
        scoring_func: str = "softmax",
        norm_topk_prob: bool | None = False,
        routed_scaling_factor: float = 1.0,
        aux_loss_alpha: float = 0.0,
        seq_aux: bool = True,
        swiglu_limit: float | None = None,
        hidden_act: str = "silu",
        hash_vocab_size: int | None = None,
        capacity_factor: float | None = None,
        numerics: str = "hf",
        layout: str = "per_expert",
    ) -> None:
        super().__init__()
        if topk_method not in METHODS:
            raise ValueError(f"DeepseekMoE: topk_method must be one of {_listed(METHODS)}, got {topk_method!r}")
        if numerics not in NUMERICS:
            raise ValueError(f"DeepseekMoE: numerics must be one of {_listed(NUMERICS)}, got {numerics!r}")
        if hidden_act not in ("silu", "swish"):
            raise NotImplementedError(f"DeepseekMoE: hidden_act must be 'silu', the kernels know no {hidden_act!r}")
        for name, value in (("n_shared_experts", n_shared_experts or 0), ("aux_loss_alpha", aux_loss_alpha)):
            if value < 0:
                raise ValueError(f"DeepseekMoE: {name} must not be negative, got {value}")
        grouped = topk_method != "greedy"
        self.gate = DynamicRouter(
            n_routed_experts,
            num_experts_per_tok,
            hidden_size,
            scoring=scoring_func,
            n_group=(n_group or 1) if grouped else 1,
            topk_group=(topk_group or 1) if grouped else 1,
            norm_topk_prob=bool(norm_topk_prob),
            routed_scaling_factor=routed_scaling_factor,
            capacity_factor=capacity_factor,
            hash_vocab_size=hash_vocab_size,
            **(METHODS[topk_method] if hash_vocab_size is None else {}),
        )
        self.experts = Experts(
            n_routed_experts, hidden_size, moe_intermediate_size, swiglu_limit=swiglu_limit, layout=layout
        )
        inner = moe_intermediate_size * (n_shared_experts or 0)
        self.shared_experts = SwiGLU(hidden_size, inner, swiglu_limit) if inner else None
        self.aux_loss_alpha, self.seq_aux, self.numerics = aux_loss_alpha, seq_aux, numerics
        self.aux_loss = None

    @classmethod
    def from_config(cls, config: Any, layer_idx: int | None = None, **overrides: Any) -> DeepseekMoE:
        """A layer from a checkpoint's configuration.

        Args:
            config: an object with attributes, or a mapping (a parsed ``config.json``). Keys that are not about this
                layer are ignored; what a ``model_type`` leaves out, because its code does not ask for it, is filled in.
                DeepSeek-V4's weights are always divided by their sum: its ``norm_topk_prob`` is not asked either.
            layer_idx: which layer of the model, from 0; needed where some route by token id (DeepSeek-V4).
            overrides: keywords that go before the configuration's.

        Raises:
            ValueError: a required key is missing, or ``layer_idx`` where it decides; a ``layer_idx`` that is no layer.
            NotImplementedError: biases in the feed-forward (``mlp_bias``).
        """

        def get(key: str) -> Any:
            return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)

        family = FAMILIES.get(get("model_type") or "", {})
        found = {key: value for key in KEYS if (value := get(key)) is not None}
        if found.pop("mlp_bias", False):
            raise NotImplementedError("DeepseekMoE.from_config: experts with biases (mlp_bias) are not available")
        if get("model_type") == "deepseek_v4":
            found.pop("norm_topk_prob", None)
        _check_layer(layer_idx, get("mlp_layer_types"), get("num_hidden_layers"))
        hash_layer = _hash_layer(get("mlp_layer_types"), get("num_hash_layers"), layer_idx)
        if hash_layer:
            found["hash_vocab_size"] = get("vocab_size")
        settings = {**family, **found, **overrides}
        required = ("hidden_size", "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok")
        lacking = [key for key in required if settings.get(key) is None]
        if hash_layer and settings.get("hash_vocab_size") is None:
            lacking.append("vocab_size")
        if lacking:
            raise ValueError(f"DeepseekMoE.from_config: the configuration lacks {', '.join(lacking)}")
        return cls(**settings)

    def forward(self, x: Tensor, *, padding_mask: Tensor | None = None, token_ids: Tensor | None = None) -> Tensor:
        """Maps x (..., D) to the same shape and dtype.

        Args:
            x: tokens, usually (B, L, D).
            padding_mask: (...) bool, True where a token is padding: its output is 0, and what it holds plays no part.
            token_ids: (...) integers, for hash routing.

        Raises:
            RuntimeError: sizes or dtypes that do not fit.
            NotImplementedError: ``numerics="reference"`` with experts in fp8.
        """
        reference = self.numerics == "reference"
        if reference and self.experts.quantized == "fp8":
            raise NotImplementedError(
                "DeepseekMoE: numerics='reference' quantizes activations to FP8 for experts in fp8, which is not "
                "available; use numerics='hf', or weights that are not in fp8"
            )
        routed = self.gate(x, padding_mask=padding_mask, token_ids=token_ids)
        if self.training and self.aux_loss_alpha > 0:
            self.aux_loss = self.aux_loss_alpha * self._balance_loss(routed, x, padding_mask)
        padding = None if padding_mask is None else padding_mask.reshape(-1, 1)
        flat = without_padding(x.reshape(-1, x.shape[-1]), padding)
        out = self.experts(flat, routed.indices, routed.weights, wide=reference)
        if self.shared_experts is not None:
            out = out + self.shared_experts(flat)
        if reference:
            out = out.to(_result_dtype(x))
        return out.view(x.shape)

    def _balance_loss(self, routed: RouterOutput, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        probs = router_probabilities(self.gate, routed.logits).view(*x.shape[:-1], self.gate.num_experts)
        # Not the indices where a capacity has emptied them, which is where the loss should press most.
        chosen = routed.indices if self.gate.chosen is None else self.gate.chosen
        if self.seq_aux and x.dim() == 3:
            return sequence_balance_loss(probs, chosen, padding_mask=padding_mask)
        return load_balancing_loss(probs, chosen, padding_mask=padding_mask)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are without the last loss, which belongs to a graph."""
        return self.__dict__ | {"aux_loss": None}

    def extra_repr(self) -> str:
        text = f"numerics={self.numerics!r}"
        return text if not self.aux_loss_alpha else f"{text}, aux_loss_alpha={self.aux_loss_alpha}"


def _result_dtype(x: Tensor) -> deepseek.dtype:
    """The dtype of a product of x."""
    lower = deepseek.is_autocast_enabled("cpu") and x.dtype != deepseek.float64
    return deepseek.get_autocast_dtype("cpu") if lower else x.dtype


def _check_layer(layer_idx: int | None, layer_types: Any, layers: int | None) -> None:
    count = len(layer_types) if layer_types else layers
    if layer_idx is not None and (layer_idx < 0 or (count is not None and layer_idx >= count)):
        known = "not be negative" if count is None else f"be from 0 to {count - 1}, the model's layers"
        raise ValueError(f"DeepseekMoE.from_config: layer_idx must {known}; got {layer_idx}")


def _hash_layer(layer_types: Any, hash_layers: int | None, layer_idx: int | None) -> bool:
    """Whether a layer of DeepSeek-V4 routes by token id."""
    some = "hash_moe" in layer_types if layer_types else bool(hash_layers)
    if some and layer_idx is None:
        raise ValueError(
            "DeepseekMoE.from_config: some layers of this configuration route by token id (hash_moe); pass layer_idx"
        )
    if not some or layer_idx is None:
        return False
    return layer_types[layer_idx] == "hash_moe" if layer_types else layer_idx < (hash_layers or 0)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))


guard(__name__)
