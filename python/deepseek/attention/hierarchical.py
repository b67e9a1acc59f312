"""Hierarchical attention: near words, other paragraphs, and what a task looks for, layer by layer."""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import deepseek
from deepseek import Tensor
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.attention._heads import (
    check_whole,
    checked_heads,
    join_heads,
    projections,
    query_chunks,
    rotary_for,
    rotated,
    split_heads,
)
from deepseek.attention._mean_selector import MeanSelector, attend_blocks
from deepseek.attention._pieces import Piece, in_pieces
from deepseek.attention._sequence import Batch, SequenceModule
from deepseek.attention._tasks import TaskParts, check_tasks
from deepseek.attention.caches import BlockMeansCache, Cache, SlidingCache
from deepseek.attention.caches.blocks import block_means
from deepseek.attention.functional import (
    Attended,
    attend,
    global_attention,
    local_attention,
    merge_attention,
    sparse_attention,
)
from deepseek.nn import Linear, ModuleDict, ModuleList

LAYER_TYPES = ("local", "global", "selected", "task")


@public
class HierarchicalAttention(SequenceModule):
    """One layer of a hierarchy for long texts; :meth:`stack` makes several.

    Its ``layer_type`` says what a query in paragraph c (block of ``paragraph`` tokens) attends to:

    - ``"local"``: keys less than ``window`` positions away.
    - ``"global"``: the keys of its own paragraph and the one before it one by one, every other earlier paragraph by the
      mean of its keys and of its values, which counts as much as the keys it stands for, under one softmax.
    - ``"selected"``: the keys of its own paragraph and of the ``top_k`` earlier ones whose mean keys suit it best.
    - ``"task"``: what ``"local"`` and ``"global"`` give, each head weighed by gates that the task has, of queries that
      the task adapts: ``sum_i sigmoid(G_task x + b_task)_i * branch_i(W_q x + B_task A_task x)``. Without gates the
      global branch alone. B starts as zeros.

    (The three layers of the source texts' "hierarchical attention"; branches and gates as in NSA, 2025, the means as
    in :func:`dynamic_block_attention`, the choice as in MoBA, 2025, the adapters as in LoRA, Hu et al., 2021.)
    Tasks have parameters of their own, and those that a call does not name are not touched: their ``.grad`` stays None.

    Args:
        dim: Width.
        num_heads: Number of heads; divides ``dim`` unless ``head_dim`` is given.
        num_key_value_heads: Heads of keys and values, each shared by a group of query heads; as many as those by
            default.
        layer_type: One of the four above.
        window: Keys of the local branch, own one included.
        paragraph: Tokens of a paragraph: 16, 32, … or 512.
        top_k: Paragraphs that ``"selected"`` takes beside the own one.
        tasks: Names of the tasks; needed for ``"task"``, other layers ignore them.
        task_gates: Tasks have gates.
        adapter_rank: Width of A x; 0 for no adapters.
        head_dim: Features of a head, ``dim / num_heads`` by default.
        causal: A query sees keys up to its own place. False: also those after it (the window on both sides, own
            paragraph and both beside it); no cache then.
        rope_theta: Base of the rotary frequencies; None turns nothing.
        rope_scaling: As in :class:`RotaryEmbedding`.
        bias: Projections have a bias.
        dtype: Of the parameters.

    Raises:
        ValueError: an unknown ``layer_type``, numbers that do not fit, a task layer without tasks or with neither gates
            nor adapters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
        *,
        layer_type: str = "local",
        window: int = 64,
        paragraph: int = 64,
        top_k: int = 4,
        tasks: Sequence[str] = (),
        task_gates: bool = True,
        adapter_rank: int = 8,
        head_dim: int | None = None,
        causal: bool = True,
        rope_theta: float | None = 10000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        bias: bool = False,
        dtype: deepseek.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.num_key_value_heads, self.head_dim = checked_heads(name, dim, num_heads, num_key_value_heads, head_dim)
        _check_layer(name, layer_type, window, paragraph, top_k)
        self.width, self.num_heads, self.causal, self.layer_type = dim, num_heads, causal, layer_type
        self.window, self.paragraph = window, paragraph
        self.caches = (SlidingCache,) if layer_type == "local" else (BlockMeansCache,)
        self.selector = MeanSelector(paragraph, top_k, False, causal)
        self.rope = rotary_for(self.head_dim, rope_theta, rope_scaling)
        self.q_proj, self.k_proj, self.v_proj = projections(
            dim, num_heads, self.num_key_value_heads, self.head_dim, bias=bias, dtype=dtype
        )
        self.o_proj = Linear(num_heads * self.head_dim, dim, bias=bias, dtype=dtype)
        self.tasks: ModuleDict | None = None
        if layer_type == "task":
            check_tasks(name, tasks, task_gates, adapter_rank)
            self.tasks = ModuleDict(
                {task: TaskParts(dim, num_heads, self.head_dim, task_gates, adapter_rank, dtype) for task in tasks}
            )

    @classmethod
    def stack(
        cls,
        dim: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
        *,
        layer_types: Sequence[str],
        **settings: Any,
    ) -> ModuleList:
        """Layers of the given types with the same settings, as ``["local", "global", "task"] * 4``."""
        return ModuleList(
            [cls(dim, num_heads, num_key_value_heads, layer_type=kind, **settings) for kind in layer_types]
        )

    def new_cache(self, rewind: int = 0) -> SlidingCache | BlockMeansCache:
        """An empty cache: of the last keys, and of means of paragraphs; of all keys for ``"selected"``.

        Args:
            rewind: ``truncate`` can go back by so many tokens at least.

        Raises:
            ValueError: attention is not causal.
        """
        self._check_causal()
        if self.layer_type == "local":
            return SlidingCache(self.window, rewind)
        if self.layer_type == "selected":
            return BlockMeansCache(self.paragraph)
        return BlockMeansCache(self.paragraph, values=True, reach=self._reach, rewind=rewind)

    def forward(
        self,
        x: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        task: str | Sequence[str] | None = None,
    ) -> Tensor:
        """Attend; see :meth:`SequenceModule.forward`.

        Args:
            x: [batch, time, dim].
            attention_mask: Padding [batch, time].
            positions: integers [time] or [batch, time].
            cache: What came before.
            task: Name of the task, or one for each sequence. Layers of other types than ``"task"`` ignore it.

        Raises:
            ValueError: a task layer gets no task, an unknown one, or not one for each sequence.
        """
        if cache is not None:
            self._check_causal()
        return self.run(x, attention_mask, positions, cache, self._tasks_of(x, task))

    def attend(self, batch: Batch) -> Tensor:
        """The result for sequences without padding."""
        piece = Piece.of(batch)
        held = self._held(batch)
        return in_pieces(piece, lambda some: self._queries_attend(some, held))

    def selected_blocks(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        """Of a ``"selected"`` layer: the paragraphs that queries of x [batch, L, dim] take.

        int64 [batch, num_heads, L, n], as of :meth:`MixtureOfBlockAttention.selected_blocks`.
        """
        if self.layer_type != "selected":
            raise ValueError(f"{type(self).__name__}: a {self.layer_type!r} layer selects no paragraphs")
        with deepseek.no_grad():
            batch = Batch(x, positions)
            return self._choose(self._queries(Piece.of(batch)), self._held(batch), 0).flatten(1, 2)

    def _queries_attend(self, piece: Piece, held: _Held) -> Tensor:
        query, start = self._queries(piece), piece.start
        if self.layer_type == "local":
            out = self._local(query, held, start)
        elif self.layer_type == "selected":
            lists = self._choose(query, held, start)
            out = attend_blocks(query, held.keys, held.values, lists, self.paragraph, self.causal, start)
        else:
            out = self._global(query, held, start)
        gates = self._by_task(piece, "gates")
        if gates is not None:
            weights = deepseek.sigmoid(split_heads(gates, 2)).transpose(2, 3).unsqueeze(-1)  # [batch, 2, heads, L, 1]
            out = weights[:, 0] * self._local(query, held, start) + weights[:, 1] * out
        result: Tensor = self.o_proj(join_heads(out))
        return result

    def _queries(self, piece: Piece) -> Tensor:
        query = self.q_proj(piece.x)
        adapted = self._by_task(piece, "adapt")
        if adapted is not None:
            query = query + adapted
        return rotated(self.rope, piece, split_heads(query, self.num_heads))[0]

    def _choose(self, query: Tensor, held: _Held, start: int) -> Tensor:
        members = self.num_heads // self.num_key_value_heads
        return self.selector.lists(query.unflatten(1, (self.num_key_value_heads, members)), held.key_means, start)

    @property
    def _reach(self) -> int:
        """Keys before a query that it may read one by one."""
        near = 2 * self.paragraph - 1
        return max(near, self.window - 1) if self.layer_type == "task" else near

    def _held(self, batch: Batch) -> _Held:
        """Keys, values and means; enters the cache."""
        key, value = (split_heads(p(batch.x), self.num_key_value_heads) for p in (self.k_proj, self.v_proj))
        (key,) = rotated(self.rope, Piece.of(batch), key)
        cache = batch.cache
        if cache is None:
            return self._held_of(key, value)
        self._check_cache(cache)
        if isinstance(cache, SlidingCache):
            return _Held(*cache.append(key, value)[:3])
        blocks = cast(BlockMeansCache, cache)
        return _Held(*blocks.append(key, value)[:3], blocks.means(), blocks.value_means())

    def _held_of(self, key: Tensor, value: Tensor) -> _Held:
        if self.layer_type == "selected":
            return _Held(key, value, 0, self.selector.means(key.detach()))
        whole = key.shape[2] // self.paragraph
        if self.layer_type == "local" or not whole or not self.causal:
            return _Held(key, value)
        return _Held(key, value, 0, *(block_means(x, self.paragraph, whole) for x in (key, value)))

    def _local(self, query: Tensor, held: _Held, start: int) -> Tensor:
        here = start - held.first
        return attend(query, held.keys, held.values, is_causal=self.causal, window=self.window, query_start=here).out

    def _global(self, query: Tensor, held: _Held, start: int) -> Tensor:
        if not self.causal:
            rows = (query, held.keys, held.values, self.paragraph)
            parts = [f(*rows, is_causal=False, query_start=start) for f in (local_attention, global_attention)]
            return merge_attention(parts).out
        here, size = start - held.first, self.paragraph
        own = (deepseek.arange(here, here + query.shape[2]) // size).unsqueeze(-1)  # counted from held.first
        lists = (own + deepseek.tensor([-1, 0])).clamp(min=-1)
        near = sparse_attention(
            query,
            held.keys,
            held.values,
            block_lists=lists.expand(query.shape[0], self.num_key_value_heads, *lists.shape),
            block_size=size,
            query_start=here,
        )
        if held.key_means is None or held.value_means is None:
            return near.out
        far = _attend_means(query, held.key_means, held.value_means, start, size)
        return merge_attention([near, far]).out

    def _tasks_of(self, x: Tensor, task: str | Sequence[str] | None) -> Sequence[str] | None:
        """The task of each sequence; None for layers that have none."""
        if self.tasks is None:
            return None
        named = [task] * x.shape[0] if isinstance(task, str) else list(task or ())
        if (not named and x.shape[0]) or any(t not in self.tasks for t in named):
            raise ValueError(f"{type(self).__name__}: task must be one of {', '.join(self.tasks)}, got {task!r}")
        if len(named) != x.shape[0]:
            raise ValueError(f"{type(self).__name__}: {len(named)} tasks for {x.shape[0]} sequences: {named}")
        return named

    def _by_task(self, piece: Piece, what: str) -> Tensor | None:
        """What the tasks' modules ``what`` give of the tokens [batch, L, ...]; None where there are none."""
        if self.tasks is None or piece.tags is None:
            return None
        modules = [getattr(self.tasks[task], what) for task in piece.tags]
        if modules[0] is None:
            return None
        if len(set(piece.tags)) == 1:
            return cast(Tensor, modules[0](piece.x))
        return deepseek.cat([module(piece.x[b : b + 1]) for b, module in enumerate(modules)])

    def _check_cache(self, cache: Cache) -> None:
        if isinstance(cache, SlidingCache):
            fits = cache.window == self.window
        else:
            kind = cast(BlockMeansCache, cache)
            selected = self.layer_type == "selected"
            fits = kind.block_size == self.paragraph and kind.with_values != selected
            fits = fits and (kind.reach is None if selected else kind.reach is None or kind.reach >= self._reach)
        if not fits:
            raise ValueError(
                f"{type(self).__name__}: the cache was made for another layer than {self.layer_type!r} with a window "
                f"of {self.window} and paragraphs of {self.paragraph}; see new_cache()"
            )


class _Held(NamedTuple):
    """What queries attend to: keys and values from position ``first`` on, means of whole paragraphs from the start."""

    keys: Tensor
    values: Tensor
    first: int = 0
    key_means: Tensor | None = None
    value_means: Tensor | None = None


def _attend_means(query: Tensor, keys: Tensor, values: Tensor, start: int, size: int) -> Attended:
    """Attention to the means of blocks of ``size`` keys that lie before the one before the query's own."""
    parts = []
    exact = deepseek.float64 if query.dtype is deepseek.float64 else deepseek.float32
    for begin, end in query_chunks(query.shape[2], keys.shape[2], least=256):  # of the mask, one for all heads
        own = deepseek.arange(start + begin, start + end) // size
        last = min((start + end - 1) // size, keys.shape[2])
        seen = deepseek.arange(last) < (own - 1).unsqueeze(-1)
        weight = deepseek.where(seen, deepseek.tensor(math.log(size), dtype=exact), -math.inf)
        parts.append(attend(query[:, :, begin:end], keys[:, :, :last], values[:, :, :last], mask=weight))
    if len(parts) == 1:
        return parts[0]
    return Attended(*(deepseek.cat(list(each), dim=2) for each in zip(*parts, strict=True)))


def _check_layer(name: str, layer_type: str, window: int, paragraph: int, top_k: int) -> None:
    if layer_type not in LAYER_TYPES:
        raise ValueError(f"{name}: layer_type must be one of {', '.join(LAYER_TYPES)}, got {layer_type!r}")
    check_whole(name, window=window, paragraph=paragraph, top_k=top_k)
    if window < 1 or top_k < 0:
        raise ValueError(f"{name}: window must be positive and top_k not negative, got {window} and {top_k}")
    if paragraph not in (16, 32, 64, 128, 256, 512):
        raise ValueError(f"{name}: paragraph must be 16, 32, 64, 128, 256 or 512 tokens, got {paragraph}")


guard(__name__)
