"""The feed-forwards of a mixture: routed experts in stacks for the grouped kernels, and a dense one for all tokens."""

# mypy: no-implicit-reexport

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import deepseek
from deepseek import Tensor, nn
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.nn import functional as F

if TYPE_CHECKING:
    from deepseek.quantization import QuantizedWeight

LAYOUTS = ("per_expert", "fused")


@public
class SwiGLU(nn.Module):
    """The dense feed-forward ``down(swiglu(gate(x), up(x), limit))``: (..., D) -> (..., D), without biases.

    Its parameters are ``gate_proj.weight`` and ``up_proj.weight`` (I, D) and ``down_proj.weight`` (D, I).
    """

    def __init__(self, hidden_size: int, intermediate_size: int, swiglu_limit: float | None = None) -> None:
        super().__init__()
        self.swiglu_limit = swiglu_limit
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., D) to the same shape."""
        return self.down_proj(F.swiglu(self.gate_proj(x), self.up_proj(x), self.swiglu_limit))

    def extra_repr(self) -> str:
        return "" if self.swiglu_limit is None else f"swiglu_limit={self.swiglu_limit}"


@public
class Experts(nn.Module):
    """E SwiGLU feed-forwards, of which each token uses a few: parameters ``gate_proj`` and ``up_proj`` (E, I, D) and
    ``down_proj`` (E, D, I), which the grouped kernels read as they are.

    ``quantization.quantize_()`` puts them into few bits. The state dict is in one of the layouts of DeepSeek's
    checkpoints, as ``layout`` says, and either may be loaded:

    - ``"per_expert"`` (the files on the hub): ``0.gate_proj.weight`` (I, D), ``0.up_proj.weight`` (I, D),
      ``0.down_proj.weight`` (D, I), ``1.gate_proj.weight``, …: views of the parameters;
    - ``"fused"`` (transformers 5): ``gate_up_proj`` (E, 2 I, D), gate first, which is a copy, and ``down_proj``
      (E, D, I).

    Quantized experts are saved and loaded as they are: ``gate_proj.codes``, ``gate_proj.scales``, …

    Raises:
        ValueError: a size below 1, a limit that is not positive, or an unknown layout.
    """

    expert_weights = ("gate_proj", "up_proj", "down_proj")  # what quantize_() may put into few bits
    gate_proj: nn.Parameter | QuantizedWeight
    up_proj: nn.Parameter | QuantizedWeight
    down_proj: nn.Parameter | QuantizedWeight

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        intermediate_size: int,
        *,
        swiglu_limit: float | None = None,
        layout: str = "per_expert",
    ) -> None:
        super().__init__()
        for name, value in (
            ("num_experts", num_experts), ("hidden_size", hidden_size), ("intermediate_size", intermediate_size)
        ):  # fmt: skip
            if value < 1:
                raise ValueError(f"Experts: {name} must be at least 1, got {value}")
        if swiglu_limit is not None and not swiglu_limit > 0:
            raise ValueError(f"Experts: swiglu_limit must be positive or None, got {swiglu_limit}")
        if layout not in LAYOUTS:
            raise ValueError(f"Experts: layout must be one of {', '.join(map(repr, LAYOUTS))}, got {layout!r}")
        self.num_experts, self.hidden_size, self.intermediate_size = num_experts, hidden_size, intermediate_size
        self.swiglu_limit, self.layout = swiglu_limit, layout
        self.gate_proj = nn.Parameter(deepseek.empty(num_experts, intermediate_size, hidden_size))
        self.up_proj = nn.Parameter(deepseek.empty(num_experts, intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(deepseek.empty(num_experts, hidden_size, intermediate_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all from U(-b, b), b = 1 / sqrt(inputs), as :class:`nn.Linear` does."""
        for weight in (self.gate_proj, self.up_proj, self.down_proj):
            if isinstance(weight, Tensor):
                nn.init.uniform_(weight, -(weight.shape[-1] ** -0.5), weight.shape[-1] ** -0.5)

    @property
    def quantized(self) -> str | None:
        """The format of quantized experts, None for others."""
        return None if isinstance(self.gate_proj, Tensor) else self.gate_proj.format

    def forward(self, x: Tensor, indices: Tensor, weights: Tensor, *, wide: bool = False) -> Tensor:
        """``sum_k weights[t, k] * expert[indices[t, k]](x[t])``.

        Args:
            x: (T, D) tokens, of the parameters' dtype.
            indices: (T, k) int64; -1 is no expert.
            weights: (T, k), floating.
            wide: leave the sum in float32 for 16-bit tokens.

        Returns:
            (T, D), of the dtype of x, or with ``wide`` in float32.
        """
        gate, up, down = self.gate_proj, self.up_proj, self.down_proj
        if isinstance(gate, Tensor) and isinstance(up, Tensor) and isinstance(down, Tensor):
            return F.moe(x, gate, up, down, indices, weights, swiglu_limit=self.swiglu_limit, wide=wide)
        from deepseek.quantization import QuantizedWeight, qmoe

        assert isinstance(gate, QuantizedWeight) and isinstance(up, QuantizedWeight)
        assert isinstance(down, QuantizedWeight)
        return qmoe(x, gate, up, down, indices, weights, swiglu_limit=self.swiglu_limit, wide=wide)

    # --- state

    def _parts(self, layout: str) -> Iterator[tuple[str, str, int | slice, slice]]:
        """What a layout's entries are called, and where each lies: the parameter, its expert or all, and its rows."""
        half, every = self.intermediate_size, slice(None)
        if layout == "fused":
            yield "gate_up_proj", "gate_proj", every, slice(0, half)
            yield "gate_up_proj", "up_proj", every, slice(half, 2 * half)
            yield "down_proj", "down_proj", every, every
            return
        for expert in range(self.num_experts):
            for name in self.expert_weights:
                yield f"{expert}.{name}.weight", name, expert, every

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.quantized:
            return super()._save_to_state_dict(destination, prefix, keep_vars)
        held = {name: getattr(self, name) for name in self.expert_weights}
        if not keep_vars:
            held = {name: weight.detach() for name, weight in held.items()}
        if self.layout == "fused":
            destination[prefix + "gate_up_proj"] = deepseek.cat([held["gate_proj"], held["up_proj"]], 1)
            destination[prefix + "down_proj"] = held["down_proj"]
            return None
        for key, name, expert, _ in self._parts(self.layout):
            destination[prefix + key] = held[name][expert]
        return None

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        arguments = (state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        if self.quantized:
            return super()._load_from_state_dict(*arguments)
        for hook in list(self._load_state_dict_pre_hooks.values()):
            hook(self, *arguments)
        given = {key[len(prefix) :] for key in state_dict if key.startswith(prefix)}
        layout = "fused" if given & {"gate_up_proj", "down_proj"} else "per_expert"
        if local_metadata.get("assign_to_params_buffers", False):
            self._take_dtype_of(next((state_dict[prefix + key] for key in sorted(given)), None))
        known = set()
        for key, name, expert, rows in self._parts(layout):
            first = key not in known
            known.add(key)
            if key not in given:
                if first:
                    missing_keys.append(prefix + key)
                continue
            error = self._load_part(prefix + key, getattr(self, name), state_dict[prefix + key], expert, rows)
            if error is not None and first:
                error_msgs.append(error)
        unexpected_keys += [prefix + key for key in sorted(given - known)]
        return None

    def _load_part(self, key: str, to: Tensor, value: Any, expert: int | slice, rows: slice) -> str | None:
        """Copies a part of an entry into a part of a parameter; the text of what is wrong with it, or None."""
        shape = tuple(to.shape[1:] if isinstance(expert, int) else to.shape)
        if rows.stop is not None:  # a half of gate_up_proj
            shape = (shape[0], 2 * shape[1], shape[2])
        if not isinstance(value, Tensor) and hasattr(value, "__dlpack__"):
            value = deepseek.as_tensor(value)
        if not isinstance(value, Tensor):
            return f'While copying the parameter named "{key}", expected a Tensor but received {type(value)}'
        if tuple(value.shape) != shape:
            return (
                f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, the shape in "
                f"current model is {shape}."
            )
        with deepseek.no_grad():
            to[expert].copy_(value[..., rows, :])
        return None

    def _take_dtype_of(self, value: Any) -> None:
        """For ``assign=True``: parameters of the given dtype; a stack is a copy of its parts all the same."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        for name in self.expert_weights:
            old = getattr(self, name)
            if old.dtype != value.dtype:
                made = deepseek.empty(old.shape, dtype=value.dtype)
                setattr(self, name, nn.Parameter(made, requires_grad=old.requires_grad))

    def extra_repr(self) -> str:
        text = f"{self.num_experts}, hidden_size={self.hidden_size}, intermediate_size={self.intermediate_size}"
        return text if self.swiglu_limit is None else f"{text}, swiglu_limit={self.swiglu_limit}"


guard(__name__)
