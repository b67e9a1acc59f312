"""How many parameters and how much memory a configuration needs, without building the model."""

from __future__ import annotations

from dataclasses import dataclass

from deepseek.models.config import ModelConfig

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class ModelSize:
    """Parameter counts and training memory.

    Attributes:
        parameters: All of them.
        active: Those that take part in the arithmetic of one token (a table lookup reads one row).
        weights_bytes: Memory of the weights, and also of their gradients.
        optimizer_bytes: Memory of AdamW's two averages.
        activation_bytes: Estimate of what one training step needs besides: what it keeps for the backward pass, and
            working memory of one layer.
    """

    parameters: int
    active: int
    weights_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights, gradients, optimizer state and activations."""
        return 2 * self.weights_bytes + self.optimizer_bytes + self.activation_bytes


def model_size(config: ModelConfig, batch: int) -> ModelSize:
    """Counts the parameters of ``config`` and estimates training memory for ``batch`` sequences of full context."""
    dim, layers = config.dim, config.n_layers
    expert = 3 * dim * config.expert_dim
    router = config.n_routed_experts * dim
    attention = 4 * dim * dim + 2 * config.head_dim
    shared = config.n_shared_experts * expert
    memory_mix = config.ngram_dim * len(config.ngram_orders) * dim
    common = config.vocab_size * dim + dim + memory_mix + layers * (attention + 2 * dim + router + shared)
    tables = len(config.ngram_orders) * config.ngram_rows * config.ngram_dim
    used = config.top_k if config.n_routed_experts else 0
    parameters = common + tables + layers * config.n_routed_experts * expert
    active = common + len(config.ngram_orders) * config.ngram_dim + layers * used * expert
    return ModelSize(
        parameters=parameters,
        active=active,
        weights_bytes=_FLOAT * parameters,
        optimizer_bytes=2 * _FLOAT * parameters,
        activation_bytes=_FLOAT * batch * config.context * _floats_per_token(config),
    )


def _floats_per_token(config: ModelConfig) -> int:
    """Values per token: those kept for backward, the same on every CPU, and one layer's once more.

    The latter stands for gradients on their way and operands the kernels have packed, of which more or fewer exist at a
    time, by instruction set and threads. Attention keeps no scores, so the context does not matter.
    """
    dim, used = config.dim, config.top_k if config.n_routed_experts else 0
    attention = 9 * dim + 3 * config.n_heads  # its input, norms, q k v before and after RoPE, the output; row sums
    hidden = config.expert_dim * (3 * config.n_shared_experts + 2 * used)
    feed_forward = 4 * dim + hidden + config.n_routed_experts + 4 * used
    layer = attention + feed_forward
    memory = (config.ngram_dim + 3) * len(config.ngram_orders)
    return (config.n_layers + 1) * layer + 2 * dim + config.vocab_size + memory
