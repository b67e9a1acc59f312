"""Hyper-parameters of the language model, checked where they enter."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from deepseek.models.family import CausalLMConfig, ModelSize
from deepseek.models.ranges import check_ranges, choice, setting

if TYPE_CHECKING:
    from deepseek.models.demo.language_model import LanguageModel

_LATENT = ("mla", "dsa")  # kinds of attention with latent keys and values
_BLOCKS = ("nsa", "moba")


@dataclass(frozen=True)
class ModelConfig(CausalLMConfig):
    """Shape of a :class:`deepseek.models.LanguageModel`.

    The defaults are the model of ``deepseek demo``: bytes in, bytes out. A setting that names a kind of attention or
    feed-forward is read by that kind only.

    Attributes:
        vocab_size: Number of token ids (256: plain bytes).
        dim: Width of the residual stream.
        n_layers: Number of transformer blocks.
        n_heads: Attention heads; ``dim`` must be divisible by it and the quotient must be even (RoPE pairs).
        context: Longest sequence the attention was trained on, in tokens.
        attention: ``dense``; ``mla`` (latent keys and values, DeepSeek-V2), ``nsa`` (native sparse attention), ``moba``
            (mixture of block attention), ``dsa`` (``mla`` over keys that an indexer picks, DeepSeek-V3.2) or ``v4``
            (compressed attention, DeepSeek-V4).
        ffn: ``moe``, a mixture of experts, or ``dense``, one feed-forward of ``ffn_dim``.
        ffn_dim: Hidden width of the ``dense`` feed-forward; the default does the work of a token's experts.
        n_routed_experts: Experts the router chooses from; 0 leaves only the shared experts (a dense model).
        n_shared_experts: Experts that every token passes through.
        top_k: Routed experts per token.
        expert_dim: Hidden width of one expert.
        routed_scale: Factor on the normalised gate weights of the routed experts.
        bias_update_rate: Step of the load-balancing bias (DeepSeek-V3, section 2.1.2); 0 turns balancing off.
        q_lora_rank: ``mla``, ``dsa``, ``v4``: Width that queries pass through; with ``mla`` 0 is none.
        kv_lora_rank: ``mla``, ``dsa``: Width of the latent that keys and values are made of.
        qk_nope_head_dim: ``mla``, ``dsa``: Features of a head's query and key without position.
        qk_rope_head_dim: ``mla``, ``dsa``, ``v4``: Features of a head's query and key that are turned by the position.
        v_head_dim: ``mla``, ``dsa``: Features of a head's value.
        index_n_heads: ``dsa``, ``v4``: Heads of the indexer.
        index_head_dim: ``dsa``, ``v4``: Width of one of them.
        index_topk: ``dsa``: Keys a query attends to; ``v4``: compressed entries, beside the window.
        index_warmup: ``dsa``, ``v4``: Steps in which all keys are attended to and the indexer only learns, before it
            picks them.
        index_loss: ``dsa``, ``v4``: Weight of the indexer's loss, which trains nothing else.
        block_size: ``nsa``, ``moba``: Keys in a block.
        selected_blocks: ``nsa``, ``moba``: Blocks a query attends to.
        window: ``nsa``, ``v4``: Latest tokens a query always sees.
        o_lora_rank: ``v4``: Width that a group of heads' results pass through.
        o_groups: ``v4``: Groups of heads.
        csa_ratio: ``v4``: Tokens an entry stands for in the first, third … layer, which an indexer picks from.
        hca_ratio: ``v4``: Tokens an entry stands for in the others.
        hc_mult: ``v4``: Residual streams joined by hyper-connections; 0: one plain residual stream.
        ngram_orders: Orders n of the hashed n-gram memories added to the token embedding (DeepSeek Engram).
        ngram_rows: Rows of each n-gram table.
        ngram_dim: Width of one n-gram row.
        rope_theta: Base of the rotary frequencies.
        norm_eps: Epsilon of every RMSNorm.
    """

    model_type: ClassVar[str] = "demo"

    vocab_size: int = setting(256, 1, 2**31 - 1)
    dim: int = setting(64, 2, 2**24)
    n_layers: int = setting(2, 1, 2**16)
    n_heads: int = setting(2, 1, 2**16)
    context: int = setting(256, 1, 2**31 - 1, shapes=False)
    attention: str = choice("dense", "dense", "mla", "nsa", "moba", "dsa", "v4")
    ffn: str = choice("moe", "dense", "moe")
    ffn_dim: int = setting(288, 1, 2**24, of=("dense ffn",))
    n_routed_experts: int = setting(8, 0, 2**16, of=("moe",))
    n_shared_experts: int = setting(1, 0, 2**16, of=("moe",))
    top_k: int = setting(2, 0, 2**16, shapes=False, of=("moe",))
    expert_dim: int = setting(96, 1, 2**24, of=("moe",))
    routed_scale: float = setting(1.0, 0, 1e6, above=True, shapes=False, of=("moe",))
    bias_update_rate: float = setting(0.001, 0, 1, shapes=False, of=("moe",))
    q_lora_rank: int = setting(32, 0, 2**24, of=(*_LATENT, "v4"))
    kv_lora_rank: int = setting(32, 1, 2**24, of=_LATENT)
    qk_nope_head_dim: int = setting(32, 1, 2**16, of=_LATENT)
    qk_rope_head_dim: int = setting(16, 2, 2**16, shapes=_LATENT, of=(*_LATENT, "v4"))
    v_head_dim: int = setting(32, 1, 2**16, of=_LATENT)
    index_n_heads: int = setting(4, 1, 2**16, of=("dsa", "v4"))
    index_head_dim: int = setting(32, 2, 2**16, of=("dsa", "v4"))
    index_topk: int = setting(64, 1, 2**31 - 1, shapes=False, of=("dsa", "v4"))
    index_warmup: int = setting(100, 0, 10**12, shapes=False, of=("dsa", "v4"))
    index_loss: float = setting(1.0, 0, 1e6, above=True, shapes=False, of=("dsa", "v4"))
    block_size: int = setting(32, 16, 2**16, shapes=("nsa",), of=_BLOCKS)
    selected_blocks: int = setting(4, 1, 2**16, shapes=False, of=_BLOCKS)
    window: int = setting(64, 1, 2**31 - 1, shapes=False, of=("nsa", "v4"))
    o_lora_rank: int = setting(32, 1, 2**24, of=("v4",))
    o_groups: int = setting(1, 1, 2**16, of=("v4",))
    csa_ratio: int = setting(4, 1, 2**16, of=("v4",))
    hca_ratio: int = setting(16, 1, 2**16, of=("v4",))
    hc_mult: int = setting(4, 0, 64, of=("v4",))
    ngram_orders: tuple[int, ...] = setting((2, 3, 4, 6, 8), 2, 64)
    ngram_rows: int = setting(16384, 1, 2**31 - 1)
    ngram_dim: int = setting(32, 1, 2**24)
    rope_theta: float = setting(10000.0, 1, 1e12, shapes=False)
    norm_eps: float = setting(1e-6, 1e-30, 1, shapes=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ngram_orders", tuple(self.ngram_orders))
        check_ranges("model", self, ValueError)
        if self.ffn == "moe":
            self._check_experts()
        if self.dim % self.n_heads or (self.dim // self.n_heads) % 2:
            raise ValueError(
                f"model.dim must be an even multiple of model.n_heads, got dim={self.dim} and n_heads={self.n_heads}"
            )
        self._check_attention()

    def _check_experts(self) -> None:
        if self.n_routed_experts + self.n_shared_experts == 0:
            raise ValueError("model.n_routed_experts and model.n_shared_experts must not both be 0")
        if self.n_routed_experts and not 1 <= self.top_k <= self.n_routed_experts:
            raise ValueError(
                f"model.top_k must be between 1 and model.n_routed_experts={self.n_routed_experts}, got {self.top_k}"
            )

    def _check_attention(self) -> None:
        kind = self.attention
        if kind in (*_LATENT, "v4") and self.qk_rope_head_dim % 2:
            raise ValueError(f"model.qk_rope_head_dim must be even (RoPE pairs), got {self.qk_rope_head_dim}")
        if kind in ("dsa", "v4") and self.q_lora_rank == 0:
            raise ValueError(f"model.q_lora_rank must be at least 1 with model.attention = {kind!r}, got 0")
        if kind in ("dsa", "v4") and (self.index_head_dim % 2 or self.index_head_dim < self.qk_rope_head_dim):
            raise ValueError(
                f"model.index_head_dim must be even and at least model.qk_rope_head_dim={self.qk_rope_head_dim}, got "
                f"{self.index_head_dim}"
            )
        if kind in _BLOCKS and self.block_size % 16:
            raise ValueError(f"model.block_size must be a multiple of 16, got {self.block_size}")
        if kind == "nsa" and self.selected_blocks < 3:
            raise ValueError(
                "model.selected_blocks must be at least 3 with model.attention = 'nsa' (the first block and the last "
                f"two are always taken), got {self.selected_blocks}"
            )
        if kind == "v4":
            self._check_v4()

    def _check_v4(self) -> None:
        if self.n_heads % self.o_groups:
            raise ValueError(f"model.o_groups must divide model.n_heads={self.n_heads}, got {self.o_groups}")
        if self.qk_rope_head_dim > self.head_dim:
            raise ValueError(
                f"model.qk_rope_head_dim must be at most model.dim / model.n_heads = {self.head_dim} with "
                f"model.attention = 'v4', got {self.qk_rope_head_dim}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_heads

    @property
    def routed(self) -> bool:
        """Whether tokens are sent to experts."""
        return self.ffn == "moe" and self.n_routed_experts > 0

    @property
    def streams(self) -> int:
        """Residual streams with hyper-connections; 0 for a plain residual stream."""
        return self.hc_mult if self.attention == "v4" else 0

    def _reads(self, item: Field[Any]) -> bool:
        """Whether a model of this kind of attention and feed-forward looks at the setting."""
        kinds = item.metadata.get("of", ())
        return not kinds or self.attention in kinds or ("moe" if self.ffn == "moe" else "dense ffn") in kinds

    def unread(self) -> list[str]:
        """Names of the settings that differ from their defaults and that this kind of model does not look at."""
        return [
            item.name for item in fields(self) if not self._reads(item) and getattr(self, item.name) != item.default
        ]

    def remarks(self) -> list[str]:
        """Names the settings that are not read."""
        if unread := self.unread():
            kind = f"model.attention = {self.attention} and model.ffn = {self.ffn}"
            return [f"model.{', model.'.join(unread)}: not read with {kind}"]
        return []

    def _shapes(self, item: Field[Any]) -> bool:
        where = item.metadata["shapes"]
        return (self.attention in where if isinstance(where, tuple) else where) and self._reads(item)

    def build(self) -> LanguageModel:
        """A model of this configuration, with fresh weights."""
        from deepseek.models.demo.language_model import LanguageModel

        return LanguageModel(self)

    def size(self, batch: int) -> ModelSize:
        """Counts the parameters and estimates training memory for ``batch`` sequences of full context."""
        from deepseek.models.demo.size import model_size

        return model_size(self, batch)
