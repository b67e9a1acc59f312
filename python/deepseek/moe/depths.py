"""Mixture-of-Depths: a block that computes only some tokens of a sequence; the others pass it by. (2404.02258)"""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deepseek import Tensor, float32, float64, full, int64, nn, no_grad, tensor, where, zeros
from deepseek import bool as bool_dtype
from deepseek._binding.autocast import runs_without_autocast
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe.work import ComputeReport, flops_per_token
from deepseek.nn import functional as F


@public
class MixtureOfDepths(nn.Module):
    """Runs ``block`` on the tokens that a linear router finds most worthwhile. (Raposo et al., 2024, 2404.02258)

    Each token gets a value ``r = router(x)``. In training the ``k = max(1, int(capacity * length))`` tokens of each
    sequence with the largest values go through the block, the others keep their x (equation 1)::

        out_i = x_i + r_i * f(X)_i      for the chosen tokens, f being the block's update
        out_i = x_i                     for the others

    The value is a factor of what the block adds, which is how the router gets its gradient. The chosen tokens are given
    to the block as a shorter batch, in their order, so attention inside it costs ``capacity`` squared.

    Top-k looks at later tokens, which generation cannot. So in evaluation a token is chosen by itself (section 3.5): if
    the router's own value is positive (``predictor="router"``; a binary cross-entropy on the router's value, with the
    top-k choice as target, centres it around 0) or if a small network says so that gets the same input without gradient
    (``predictor="mlp"``; its loss leaves the model alone). Add :func:`mixture_of_depths_loss` to the training loss.
    Then a token's choice depends neither on later tokens nor on chunks of a cached run.

    Args:
        block: ``[B, C, D] -> [B, C, D]``. It gets ``positions=`` and ``cache=`` only if ``forward`` does.
        hidden_size: D.
        capacity: share of tokens that go through the block, above 0 and at most 1; the paper's best is 0.125, in every
            other block.
        residual: the block adds its own input, as a pre-norm transformer block does; its update is ``block(x) - x``.
            False: what it returns is the update.
        causal: choose token by token in evaluation, as above. False (encoders): top-k there too.
        predictor: ``"router"`` or ``"mlp"``.

    Attributes:
        auxiliary_loss: the predictor's loss of the last forward in training, a scalar; None before.
        seen, executed, agreed: int64 counters, not saved: tokens, those that went through the block, and (in training)
            those whose prediction was the top-k choice; see :meth:`report` and :meth:`predictor_accuracy`.

    Raises:
        ValueError: a capacity outside (0, 1], or another predictor.
    """

    seen: Tensor
    executed: Tensor
    agreed: Tensor
    predicted: Tensor

    def __init__(
        self,
        block: nn.Module,
        hidden_size: int,
        capacity: float = 0.125,
        *,
        residual: bool = True,
        causal: bool = True,
        predictor: str = "router",
    ) -> None:
        super().__init__()
        if not 0 < capacity <= 1:
            raise ValueError(f"MixtureOfDepths: capacity must be above 0 and at most 1, got {capacity}")
        if predictor not in ("router", "mlp"):
            raise ValueError(f"MixtureOfDepths: predictor must be 'router' or 'mlp', got {predictor!r}")
        self.block = block
        self.hidden_size, self.capacity, self.residual, self.causal = hidden_size, capacity, residual, causal
        self.router = nn.Linear(hidden_size, 1, bias=False)
        self.predictor: nn.Module | None = None
        if predictor == "mlp":
            width = max(hidden_size // 4, 1)
            self.predictor = nn.Sequential(nn.Linear(hidden_size, width), nn.SiLU(), nn.Linear(width, 1))
        self.auxiliary_loss: Tensor | None = None
        for name in ("seen", "executed", "agreed", "predicted"):
            self.register_buffer(name, zeros((), dtype=int64), persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"auxiliary_loss": None}  # part of a graph, which cannot be copied

    def extra_repr(self) -> str:
        return f"capacity={self.capacity}, residual={self.residual}, causal={self.causal}"

    def forward(
        self,
        x: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Maps x [B, L, D] to the same shape and dtype.

        Args:
            attention_mask: [B, L], true or non-zero for real tokens; padding is never chosen, and each sequence's k
                counts its real tokens.
            positions: int64 [B, L], given to the block for the chosen tokens; the block gets no ``positions`` without.
            cache: given to the block. It has to append the same number of tokens for each sequence, so sequences that
                choose different numbers are refused.

        Raises:
            RuntimeError: x is not [B, L, hidden_size], or another argument not [B, L].
            NotImplementedError: a cache, and sequences of the batch with different numbers of chosen tokens.
        """
        if x.dim() != 3 or x.shape[-1] != self.hidden_size:
            raise RuntimeError(f"MixtureOfDepths: x must be [B, L, {self.hidden_size}], got {list(x.shape)}")
        for name, value in (("attention_mask", attention_mask), ("positions", positions)):
            if value is not None and list(value.shape) != list(x.shape[:2]):
                raise RuntimeError(f"MixtureOfDepths: {name} must be {list(x.shape[:2])}, got {list(value.shape)}")
        real = None if attention_mask is None else attention_mask != 0
        # Padding comes out as it is, but NaN in it would reach the gradients of the router and the predictor.
        known = x if real is None else x.masked_fill(~real.unsqueeze(-1), 0.0)
        values = self._values(known)  # [B, L]
        predictions = values if self.predictor is None else self.predictor(known.detach()).squeeze(-1)
        with no_grad():
            chosen = self._chosen(values, predictions, real)
            self._count(chosen, predictions, real)
        self.auxiliary_loss = self._prediction_loss(predictions, chosen, real) if self.training else None
        return self._run(x, values, chosen, positions, cache)

    @runs_without_autocast
    def _values(self, x: Tensor) -> Tensor:
        """The router's values in float32 (float64 for float64 input): a choice needs all digits."""
        wide = float64 if x.dtype == float64 else float32
        return F.linear(x.to(wide), self.router.weight.to(wide)).squeeze(-1)

    def _chosen(self, values: Tensor, predictions: Tensor, real: Tensor | None) -> Tensor:
        """Which tokens go through the block: bool [B, L]."""
        if self.causal and not self.training:
            chosen = predictions > 0
            return chosen if real is None else chosen & real
        length = values.shape[1]
        if length == 0:
            return zeros(*values.shape, dtype=bool_dtype)
        lengths = full((values.shape[0],), length, dtype=int64) if real is None else real.sum(1)
        ranked = values if real is None else where(real, values, float("-inf"))
        # The place of each token in its sequence's order of falling values; the first of equal ones is before.
        place = ranked.argsort(1, descending=True, stable=True).argsort(1)
        # 0.29 * 100 is 28.999999999999996
        counts = [min(n, max(1, int(self.capacity * n * (1 + 1e-12)))) for n in lengths.tolist()]
        return place < tensor(counts, dtype=int64).unsqueeze(1)

    def _count(self, chosen: Tensor, predictions: Tensor, real: Tensor | None) -> None:
        tokens = chosen.numel() if real is None else real.sum()
        self.seen += tokens
        self.executed += chosen.sum()
        if self.training:
            right = (predictions > 0) == chosen
            self.agreed += (right if real is None else right & real).sum()
            self.predicted += tokens

    @staticmethod
    def _prediction_loss(predictions: Tensor, chosen: Tensor, real: Tensor | None) -> Tensor:
        if real is not None:
            predictions, chosen = predictions[real], chosen[real]
        if predictions.numel() == 0:
            return predictions.sum()
        return F.binary_cross_entropy_with_logits(predictions, chosen.to(predictions.dtype))

    def _run(self, x: Tensor, values: Tensor, chosen: Tensor, positions: Tensor | None, cache: Any) -> Tensor:
        batch, length, dim = x.shape
        flat, out = x.reshape(-1, dim), x.reshape(-1, dim)
        for tokens in _equal_parts(chosen):  # numbers of tokens [sequences, c], counted through the batch
            if cache is not None and tokens.shape[0] != batch:
                raise NotImplementedError(
                    "MixtureOfDepths: with a cache every sequence of the batch has to choose the same number of "
                    f"tokens, got {chosen.sum(1).tolist()}; run the sequences one by one, each with its own cache"
                )
            places = tokens.reshape(-1)
            part = flat.index_select(0, places).view(*tokens.shape, dim)
            more: dict[str, Any] = {} if cache is None else {"cache": cache}
            if positions is not None:
                more["positions"] = positions.reshape(-1).index_select(0, places).view(*tokens.shape)
            update = self.block(part, **more)
            if self.residual:
                update = update - part
            gate = values.reshape(-1).index_select(0, places).unsqueeze(1)
            out = out.index_add(0, places, (gate * update.reshape(-1, dim)).to(out.dtype))
        return out.view(batch, length, dim)

    def report(self) -> ComputeReport:
        """Tokens and FLOPs since the last :meth:`reset_counts`, in training and evaluation.

        FLOPs are :func:`flops_per_token` of the block for each executed token, and the router's for every token.
        """
        seen, executed, each = int(self.seen.item()), int(self.executed.item()), flops_per_token(self.block)
        chooser = 2 * self.hidden_size + (0 if self.predictor is None else flops_per_token(self.predictor))
        return ComputeReport(seen, executed, executed * each + seen * chooser, seen * each)

    def predictor_accuracy(self) -> float:
        """Share of tokens in training whose prediction was the top-k choice; NaN before any."""
        predicted = int(self.predicted.item())
        return int(self.agreed.item()) / predicted if predicted else float("nan")

    def reset_counts(self) -> None:
        """Start counting anew."""
        with no_grad():
            for name in ("seen", "executed", "agreed", "predicted"):
                getattr(self, name).zero_()


def _equal_parts(chosen: Tensor) -> Iterator[Tensor]:
    """Token numbers [sequences, c] of the sequences that chose c tokens, for each c > 0 that occurs."""
    length = chosen.shape[1]
    counts = chosen.sum(1).tolist()
    for count in sorted(set(counts) - {0}):
        rows = [row for row, found in enumerate(counts) if found == count]
        part = chosen if len(rows) == len(counts) else chosen.index_select(0, tensor(rows, dtype=int64))
        places = part.nonzero()  # [rows * count, 2], in order
        first = tensor(rows, dtype=int64).index_select(0, places[:, 0]) * length
        yield (first + places[:, 1]).view(len(rows), count)


@public
def mixture_of_depths_loss(model: nn.Module) -> Tensor:
    """Mean of the predictors' losses of the last forward in training, to be added to the training loss.

    Raises:
        ValueError: no :class:`MixtureOfDepths` in the model, or none that ran in training mode.
    """
    layers = [module for module in model.modules() if isinstance(module, MixtureOfDepths)]
    losses = [layer.auxiliary_loss for layer in layers if layer.auxiliary_loss is not None]
    if not losses:
        raise ValueError(
            f"mixture_of_depths_loss: {len(layers)} MixtureOfDepths in {type(model).__name__}, and none has run in "
            "training mode; call the model in train() first"
        )
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total / len(losses)


guard(__name__)
