"""How many parameters and how much memory a configuration needs, without building the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deepseek.models.demo.config import ModelConfig
from deepseek.models.family import ModelSize


def model_size(config: ModelConfig, batch: int) -> ModelSize:
    """Counts the parameters of ``config`` and estimates training memory for ``batch`` sequences of full context."""
    dim, layers, orders = config.dim, config.n_layers, len(config.ngram_orders)
    attention = sum(_ATTENTION[config.attention](config, layer).parameters for layer in range(layers))
    shared, routed, used = _feed_forward(config)
    hyper = layers * 2 * _hyper(config, 2 + config.streams, 3) + _hyper(config, 1, 1)
    common = config.vocab_size * dim + dim + config.ngram_dim * orders * dim + attention + hyper
    common += layers * (2 * dim + shared)
    parameters = common + orders * config.ngram_rows * config.ngram_dim + layers * routed
    return ModelSize.of_floats(
        parameters,
        active=common + orders * config.ngram_dim + layers * used,
        activations=batch * config.context * _floats_per_token(config),
    )


@dataclass(frozen=True)
class _Attention:
    """Of one layer: parameters, and values per token that it keeps for the backward pass."""

    parameters: int
    floats: int


def _dense(config: ModelConfig, layer: int) -> _Attention:
    dim = config.dim
    # Its input, norms, q k v before and after RoPE, the output; row sums.
    return _Attention(4 * dim * dim + 2 * config.head_dim, 9 * dim + 3 * config.n_heads)


def _mla(config: ModelConfig, layer: int) -> _Attention:
    dim, heads, rank, queries = config.dim, config.n_heads, config.kv_lora_rank, config.q_lora_rank
    nope, rope, value = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
    query = dim * queries + queries + queries * heads * (nope + rope) if queries else dim * heads * (nope + rope)
    latent = dim * (rank + rope) + rank + rank * heads * (nope + value)
    floats = 2 * dim + 2 * queries + 4 * (rank + rope) + heads * (4 * nope + 4 * rope + 3 * value + 1)
    return _Attention(query + latent + heads * value * dim, floats)


def _dsa(config: ModelConfig, layer: int) -> _Attention:
    dim, heads, width = config.dim, config.index_n_heads, config.index_head_dim
    latent = _mla(config, layer)
    indexer = config.q_lora_rank * heads * width + dim * width + 2 * width + dim * heads
    floats = heads * (width + 2) + 2 * width + config.index_topk  # the loss keeps gradients instead of its scores
    return _Attention(latent.parameters + indexer, latent.floats + floats)


def _moba(config: ModelConfig, layer: int) -> _Attention:
    dim, heads = config.dim, config.n_heads
    return _Attention(4 * dim * dim, 9 * dim + heads * (2 + 2 * config.selected_blocks))


def _nsa(config: ModelConfig, layer: int) -> _Attention:
    dim, heads, size, block = config.dim, config.n_heads, config.head_dim, config.block_size
    compressor = block * size + block * size * 2 * size + 2 * size + 2 * size * size + size
    rows = 2 * (block * size + 4 * size) * heads // (block // 2)  # of both compressors, shared by a stride
    floats = 14 * dim + heads * (8 + 2 * config.selected_blocks) + rows
    return _Attention(8 * dim * dim + 3 * heads * (dim + 1) + 2 * compressor, floats)


def _v4(config: ModelConfig, layer: int) -> _Attention:
    dim, heads, size, rank = config.dim, config.n_heads, config.head_dim, config.q_lora_rank
    groups, out = config.o_groups, config.o_lora_rank
    plain = (
        dim * rank + rank + rank * heads * size + dim * size + size + heads * size * out + groups * out * dim + heads
    )
    sparse = layer % 2 == 0
    ratio = config.csa_ratio if sparse else config.hca_ratio
    compressor = _compressor(dim, size, ratio, overlap=sparse)
    if sparse:
        width, count = config.index_head_dim, config.index_n_heads
        compressor += _compressor(dim, width, ratio, overlap=True) + rank * count * width + dim * count
    floats = 2 * dim + 2 * rank + heads * (5 * size + 4) + 8 * size + 2 * groups * out
    return _Attention(plain + compressor, floats)


def _compressor(dim: int, size: int, ratio: int, overlap: bool) -> int:
    width = (1 + overlap) * size
    return 2 * dim * width + ratio * width + size


_ATTENTION: dict[str, Callable[[ModelConfig, int], _Attention]] = {
    "dense": _dense, "mla": _mla, "nsa": _nsa, "moba": _moba, "dsa": _dsa, "v4": _v4
}  # fmt: skip


def _feed_forward(config: ModelConfig) -> tuple[int, int, int]:
    """Parameters of a layer that every token uses, those of its experts, and of the experts a token is sent to."""
    if config.ffn == "dense":
        return 3 * config.dim * config.ffn_dim, 0, 0
    expert = 3 * config.dim * config.expert_dim
    shared = config.n_routed_experts * config.dim + config.n_shared_experts * expert
    used = config.top_k if config.n_routed_experts else 0
    return shared, config.n_routed_experts * expert, used * expert


def _hyper(config: ModelConfig, weights: int, scales: int) -> int:
    """Parameters of one hyper-connection, or of the head."""
    n = config.streams
    return weights * n * (n * config.dim + 1) + scales if n else 0


def _floats_per_token(config: ModelConfig) -> int:
    """Values per token: those kept for backward, the same on every CPU, and one layer's once more.

    The latter stands for gradients on their way and operands the kernels have packed, of which more or fewer exist at a
    time, by instruction set and threads. Attention keeps no scores, so the context does not matter.
    """
    dim = config.dim
    attention = max(_ATTENTION[config.attention](config, layer).floats for layer in range(min(2, config.n_layers)))
    layer = attention + 4 * dim + _hidden(config) + 7 * config.streams * dim
    memory = (config.ngram_dim + 3) * len(config.ngram_orders)
    return (config.n_layers + 1) * layer + 2 * dim + config.vocab_size + memory


def _hidden(config: ModelConfig) -> int:
    """Values per token inside the feed-forward."""
    if config.ffn == "dense":
        return 3 * config.ffn_dim
    used = config.top_k if config.n_routed_experts else 0
    return config.expert_dim * (3 * config.n_shared_experts + 2 * used) + config.n_routed_experts + 4 * used
