"""How much arithmetic was done, and how much a layer without conditional computation would have done."""

# mypy: no-implicit-reexport

from __future__ import annotations

from dataclasses import dataclass

from deepseek import nn
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._routers import expert_count, expert_stacks, is_router


@public
@dataclass(frozen=True)
class ComputeReport:
    """Work of the forward passes since the last reset.

    Attributes:
        units: what could have been computed: tokens of Mixture-of-Depths, token-slots of zero-computation experts.
        executed: how many of them really were.
        flops: floating-point operations of the matrix products that were executed, a multiply-add being 2.
        dense_flops: the same if all units had been executed.
    """

    units: int
    executed: int
    flops: int
    dense_flops: int

    @property
    def share(self) -> float:
        """Executed units as a share of all; NaN before any."""
        return self.executed / self.units if self.units else float("nan")

    def __str__(self) -> str:
        saved = 1 - self.flops / self.dense_flops if self.dense_flops else 0.0
        return (
            f"{self.executed:,} of {self.units:,} executed ({self.share:.1%}), "
            f"{self.flops / 1e9:.3g} of {self.dense_flops / 1e9:.3g} GFLOP, {saved:.1%} saved"
        )


@public
def flops_per_token(module: nn.Module) -> int:
    """Forward FLOPs that a module's matrices cost for one token: 2 for each weight that a token meets.

    Parameters of two or more dims count, embeddings do not. Of the stacked weights of routed experts, which classes
    name in ``expert_weights`` as :class:`Experts` does, a token meets ``top_k`` of the router's number of experts.
    Products of activations with each other (attention's scores) are not included: they depend on the length. Quantized
    weights are no parameters: count before ``quantize_()``.

    Raises:
        ValueError: a layer with a router whose experts' stacks are not declared, or quantized.
    """
    shares: dict[int, float] = {}
    for layer in module.modules():
        for router in filter(is_router, layer.children()):
            share = int(router.top_k) / expert_count(router)
            stacks = expert_stacks(layer)
            if not stacks:
                raise ValueError(
                    f"flops_per_token: {type(layer).__name__} has a router but no stacked expert parameters, so how "
                    "many of its weights a token meets is not known; count before quantize_(), and name the stacks in "
                    "expert_weights, as deepseek.moe.Experts does"
                )
            shares |= {id(stack): share for stack in stacks.values()}
    tables = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    met = (parameter for parameter in module.parameters() if parameter.dim() >= 2 and id(parameter) not in tables)
    return round(sum(2 * parameter.numel() * shares.get(id(parameter), 1.0) for parameter in met))


guard(__name__)
