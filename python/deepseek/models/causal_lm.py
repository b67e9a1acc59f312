"""What trainer, evaluation, generation and command line know of a language model; a family implements it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deepseek import Tensor, nn
from deepseek.attention.caches import Cache, SlidingCache
from deepseek.models.family import CausalLMConfig
from deepseek.models.generation import generate
from deepseek.nn import functional as F
from deepseek.nn.modules._state import IncompatibleKeys


class DecodeCache:
    """What a model remembers of a text between calls; :meth:`CausalLM.new_cache` makes an empty one.

    A model that remembers more than its layers' caches hold derives from it.

    Attributes:
        caches: One for each layer, see :mod:`deepseek.attention.caches`: their memory is allocated, not joined anew for
            every token.
    """

    def __init__(self, caches: Iterable[Cache]) -> None:
        self.caches = list(caches)

    @property
    def position(self) -> int:
        """Tokens seen so far."""
        return self.caches[0].length

    @property
    def runs_on(self) -> bool:
        """Whether no distance between tokens exceeds the trained ones, however many come."""
        return all(isinstance(cache, SlidingCache) for cache in self.caches)

    @property
    def nbytes(self) -> int:
        """Bytes that the caches hold."""
        return sum(cache.nbytes for cache in self.caches)


class CausalLM(nn.Module):
    """A language model, tokens in, logits of the next ones out.

    A family sets ``config``, and implements :meth:`forward` and :meth:`new_cache`. Everything else has a default.

    Attributes:
        config: What it was built from.
    """

    config: CausalLMConfig

    def forward(self, tokens: Tensor, cache: Any = None) -> Tensor:
        """Maps tokens [batch, time] (int64) to logits [batch, time, vocab_size].

        With a ``cache``, one that :meth:`new_cache` made, tokens follow those it has seen: any number of them, the
        results are the same.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def new_cache(self) -> DecodeCache:
        """What decoding with this model starts from."""
        raise NotImplementedError(f"{type(self).__name__} has no cache")

    def generate(self, tokens: Tensor, max_new_tokens: int, **sampling: Any) -> Tensor:
        """Continues tokens int64 [1, time]; see :func:`deepseek.models.generation.stream` for the settings."""
        return generate(self, tokens, max_new_tokens, **sampling)

    # --- training -----------------------------------------------------------------------------------------------------

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of targets [batch, time] after tokens [batch, time]."""
        logits = self(tokens)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))

    def auxiliary_loss(self) -> Tensor | None:
        """What parts of the model learn beside the text, from the last training forward; None: there is nothing."""
        return None

    def begin_step(self, step: int) -> None:
        """Says how many optimizer steps the model has behind it; called before each, and after weights were loaded."""

    def end_step(self) -> None:
        """Called after every optimizer step."""

    def parameter_groups(self, named: Iterable[tuple[str, Tensor]]) -> list[list[str]]:
        """Names of the parameters in each group of the optimizer.

        First those that are decayed, then those that are not; a third group, of tables, has a learning rate of its own.
        """
        decayed: list[str] = []
        others: list[str] = []
        for name, parameter in named:
            (decayed if parameter.dim() > 1 and "embed" not in name else others).append(name)
        return [decayed, others]

    # --- checkpoints that were written under former names -------------------------------------------------------------

    def renamed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """A model's state with the names of today; one that has them already comes back as it is."""
        return state

    def renamed_optimizer(self, optimizer: dict[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
        """The state of the trainer's optimizer, of one that was written beside the model's ``state``."""
        return optimizer

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """As of any module; also takes what was saved under former names."""
        named = self.renamed(state_dict) if isinstance(state_dict, Mapping) else state_dict
        return super().load_state_dict(named, strict, assign)
