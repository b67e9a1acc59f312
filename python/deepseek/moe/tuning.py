"""Expert-specialised fine-tuning: train the experts that a task uses, and nothing else. (ESFT, 2407.01906)

with RoutingTrace(model) as trace, deepseek.no_grad():
    for batch in task_sample:
        model(batch)
chosen = select_experts(expert_scores(trace), p=0.2)
with ExpertTuning(model, chosen) as tuning:
    optimizer = AdamW(tuning.parameters(), lr=1e-5)
    ...                                             # train as always
"""

# mypy: no-implicit-reexport

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import deepseek
from deepseek import Tensor, nn, no_grad
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._routers import expert_stacks, router_owners
from deepseek.moe.trace import LayerTrace

if TYPE_CHECKING:
    from deepseek._tensor.gradients import RemovableHandle


@public
def expert_scores(trace: Mapping[str, LayerTrace], method: str = "gate") -> dict[str, Tensor]:
    """How much a task uses each expert: for each router a float64 tensor ``[experts]`` with the sum 1.

    * ``"gate"``: the average gate value (ESFT-Gate, equation 6);
    * ``"token"``: the share of the tokens' slots (ESFT-Token, equation 7).

    The paper averages over samples of one length, which is the average over tokens taken here; gate values are divided
    by their sum over the experts, so that the threshold p is a share whatever a router's scale is.

    Raises:
        ValueError: another method, or a layer without any choice.
    """
    if method not in ("gate", "token"):
        raise ValueError(f"expert_scores: method must be 'gate' or 'token', got {method!r}")
    scores = {}
    for name, layer in trace.items():
        chosen, weights = layer.indices.reshape(-1), layer.weights.reshape(-1).to(deepseek.float64)
        real = chosen >= 0
        value = weights if method == "gate" else deepseek.ones_like(weights)
        total = deepseek.zeros(layer.num_experts, dtype=deepseek.float64)
        total.index_add_(0, chosen.clamp(min=0), value.masked_fill(~real, 0.0))
        if not total.sum().item() > 0:
            raise ValueError(f"expert_scores: no token of the trace has an expert in {name!r}")
        scores[name] = total / total.sum()
    return scores


@public
def select_experts(scores: Mapping[str, Tensor], p: float = 0.2) -> dict[str, list[int]]:
    """The fewest experts of each layer whose scores add up to at least ``p`` (equation 8), in rising order.

    Args:
        scores: of :func:`expert_scores`; any scores >= 0, taken relative to their sum.
        p: above 0 and at most 1; the paper has 0.1 for gate scores and 0.2 for token scores.

    Raises:
        ValueError: p out of range, or scores that are negative, not finite or all zero.
    """
    if not 0 < p <= 1:
        raise ValueError(f"select_experts: p must be above 0 and at most 1, got {p}")
    chosen = {}
    for name, values in scores.items():
        shares = [float(value) for value in values.tolist()]
        total = sum(shares)
        if not (total > 0 and total != float("inf") and min(shares) >= 0):
            raise ValueError(f"select_experts: scores of {name!r} must be finite, >= 0 and not all 0, got {shares}")
        ranked = sorted(range(len(shares)), key=lambda expert: (-shares[expert], expert))
        taken: list[int] = []
        reached = 0.0
        for expert in ranked:
            if reached >= p * total * (1 - 1e-12) or not shares[expert]:
                break
            taken.append(expert)
            reached += shares[expert]
        chosen[name] = sorted(taken)
    return chosen


# Stacks that an open ExpertTuning trains. A second one would take the gradients that the first hands on.
_OPEN: weakref.WeakValueDictionary[int, nn.Parameter] = weakref.WeakValueDictionary()


@public
class ExpertTuning:
    """Freezes a model except for chosen experts, which become parameters of their own.

    Experts lie in stacks ``[experts, …]``, one parameter for all of them, and an optimizer given a stack would move
    every expert (weight decay and momentum do not ask for gradients) and keep state for all. Here each chosen expert is
    a :class:`Parameter` that shares the stack's memory; the gradient of the stack is handed on to these rows and
    dropped. So the others keep their bits, the optimizer's state is as large as what is trained, and the model's
    ``state_dict()`` is what it always was.

    Convert the model (``to()``) before, not while this is open; load weights with ``copy_`` or ``load_state_dict``
    only.

    Args:
        model: the model.
        selection: experts of each router by its name in the model, as :func:`select_experts` returns; a router that is
            left out or has no experts is not trained.
        also: other parameters of the model to train, e.g. those of shared experts.

    Raises:
        TypeError, ValueError: a model without routers, unknown names, experts out of range or twice, nothing to train,
            experts whose weights are not stacked parameters (quantized ones, for example) or in another ExpertTuning
            that is open, or ``also`` with parameters of another model or a stack of selected experts.
    """

    def __init__(
        self, model: nn.Module, selection: Mapping[str, Sequence[int]], *, also: Sequence[nn.Parameter] = ()
    ) -> None:
        owners = router_owners(model, "ExpertTuning")
        unknown = sorted(set(selection) - set(owners))
        if unknown:
            raise ValueError(f"ExpertTuning: no router {unknown[0]!r} in the model; it has {', '.join(owners)}")
        known = {id(parameter) for parameter in model.parameters()}
        if any(id(parameter) not in known for parameter in also):
            raise ValueError("ExpertTuning: also must hold parameters of the model")
        stacks: list[tuple[str, nn.Parameter, list[int]]] = []
        for name, experts in selection.items():
            stacks += [(label, stack, list(experts)) for label, stack in _trained(name, owners[name][0], experts)]
        if {id(parameter) for parameter in also} & {id(stack) for _, stack, _ in stacks}:
            raise ValueError(
                "ExpertTuning: also holds a stack of which experts are selected; select all of them instead"
            )
        if not stacks and not also:
            raise ValueError("ExpertTuning: nothing to train, no expert is selected")
        self._also = list(also)
        self._flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._rows: dict[str, nn.Parameter] = {}
        self._handles: list[RemovableHandle] = []
        self._opened: list[int] = []
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)
        for parameter in self._also:
            parameter.requires_grad_(True)
        for label, stack, experts in stacks:
            rows = {expert: nn.Parameter(stack.detach()[expert]) for expert in experts}
            self._rows |= {f"{label}[{expert}]": row for expert, row in rows.items()}
            stack.requires_grad_(True)
            _OPEN[id(stack)] = stack
            self._opened.append(id(stack))
            self._handles.append(stack.register_post_accumulate_grad_hook(_handing_on(label, rows)))

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimizer gets: the chosen rows of every stack, then ``also``."""
        yield from self._rows.values()
        yield from self._also

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The rows by name, such as ``layers.3.mlp.experts.down_proj[5]``."""
        yield from self._rows.items()

    def zero_grad(self) -> None:
        """Drop the gradients of all that is trained; an optimizer's ``zero_grad`` does it too."""
        for parameter in self.parameters():
            parameter.grad = None

    def close(self) -> None:
        """Give the model back as it was: ``requires_grad`` of all parameters, no hooks. What was trained stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for stack in self._opened:
            _OPEN.pop(stack, None)
        self._opened = []
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)

    def __enter__(self) -> ExpertTuning:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        trained = sum(parameter.numel() for parameter in self.parameters())
        whole = sum(parameter.numel() for parameter, _ in self._flags)
        return f"ExpertTuning({trained:,} of {whole:,} parameters, {len(self._rows)} rows of experts)"


def _trained(name: str, layer: nn.Module, experts: Sequence[int]) -> Iterator[tuple[str, nn.Parameter]]:
    """The stacks of a layer by their names in the model, if any of its experts is to be trained."""
    if not experts:
        return
    stacks = expert_stacks(layer)
    if not stacks:
        raise ValueError(
            f"ExpertTuning: the layer of {name!r} ({type(layer).__name__}) has no stacked expert parameters: a "
            "class names them in expert_weights, as deepseek.moe.Experts does, and quantized ones are none"
        )
    for label, stack in stacks.items():
        if id(stack) in _OPEN:
            raise ValueError(
                f"ExpertTuning: {label} of the layer of {name!r} is already trained by an ExpertTuning that is open; "
                "close() that one first, or select all experts in one"
            )
    count = min(stack.shape[0] for stack in stacks.values())
    if len(set(experts)) != len(experts) or not all(0 <= expert < count for expert in experts):
        raise ValueError(
            f"ExpertTuning: experts of {name!r} must be different and from 0 to {count - 1}, got {experts}"
        )
    prefix = name.rpartition(".")[0]
    for label, stack in stacks.items():
        yield f"{prefix}.{label}" if prefix else label, stack


def _handing_on(label: str, rows: dict[int, nn.Parameter]) -> Any:
    def hand_on(stack: Tensor) -> None:
        gradient = stack.grad
        assert gradient is not None
        for expert, row in rows.items():
            if row.dtype != stack.dtype:
                raise RuntimeError(
                    f"ExpertTuning: {label} became {stack.dtype} while its rows are {row.dtype}; "
                    "convert the model before"
                )
            part = gradient[expert]
            with no_grad():
                row.grad = part.clone() if row.grad is None else row.grad + part
        stack.grad = None

    return hand_on


guard(__name__)
