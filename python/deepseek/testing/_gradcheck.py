"""``gradcheck`` and ``gradgradcheck``: derivatives against central differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import deepseek
from deepseek import _C, Tensor
from deepseek.testing._close import as_array


class GradcheckError(RuntimeError):
    """A derivative is wrong; the message names the input, the element and both values."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compare the gradients of ``func`` with central differences.

    Args:
        func: takes the inputs, returns a tensor or a tuple of them.
        inputs: the arguments; those that are float tensors with ``requires_grad`` are checked. Use float64.
        eps: step of the differences.
        atol, rtol: ``|analytic - numeric| <= atol + rtol * |numeric|`` must hold for every element.
        raise_exception: raise on failure instead of returning False.
        nondet_tol: how much two backward passes may differ.
        check_undefined_grad: also check that an output without gradient counts as one with gradient zero.
        check_grad_dtypes: require that a gradient has its input's dtype.
        fast_mode: compare one random projection of the Jacobian instead of all its elements.
        check_backward_ad: must stay True; forward mode and batched gradients are not supported.

    Returns:
        True, or False when a check failed and ``raise_exception`` is False.

    Raises:
        GradcheckError: a gradient is wrong; names input, element, output, numeric and analytic value.
        ValueError: there is nothing to check, or an unsupported option.
    """
    unsupported = {
        "check_batched_grad": check_batched_grad,
        "check_batched_forward_grad": check_batched_forward_grad,
        "check_forward_ad": check_forward_ad,
        "masked": masked,
    }
    for option, value in unsupported.items():
        if value:
            raise ValueError(f"gradcheck: {option}={value} is not supported")
    if not check_backward_ad:
        raise ValueError("gradcheck: check_backward_ad=False leaves nothing to check")
    check = _Check(func, inputs, eps, atol, rtol, nondet_tol, check_grad_dtypes)
    try:
        if fast_mode:
            check.projection()
        else:
            check.jacobians()
        if check_undefined_grad:
            check.undefined_gradients()
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


class _Check:
    """One gradcheck: the function, its inputs and what may differ."""

    def __init__(
        self,
        func: Callable[..., Any],
        inputs: Any,
        eps: float,
        atol: float,
        rtol: float,
        nondet_tol: float,
        check_dtypes: bool,
    ) -> None:
        self.func = func
        self.inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        self.eps, self.atol, self.rtol, self.nondet_tol = eps, atol, rtol, nondet_tol
        self.check_dtypes = check_dtypes
        self.kept: list[int] | None = None
        self.places = [i for i, x in enumerate(self.inputs) if isinstance(x, Tensor) and x.requires_grad]
        if not self.places:
            raise ValueError(
                "gradcheck expects at least one input tensor to require gradient, but none of them have "
                "requires_grad=True."
            )
        for place in self.places:
            self._check_input(place, self.inputs[place])
        self.wrt = [self.inputs[place] for place in self.places]

    @staticmethod
    def _check_input(place: int, tensor: Tensor) -> None:
        if tensor.dtype != deepseek.float64:
            warnings.warn(
                f"Input #{place} requires gradient and is not a double precision floating point: {tensor.dtype}. "
                "This check will likely fail if all the inputs are not of double precision.",
                stacklevel=4,
            )
        strides = zip(tensor.shape, tensor.stride(), strict=True)
        if any(size > 1 and stride == 0 for size, stride in strides):
            raise ValueError(
                f"gradcheck: input {place} has a dimension with stride 0 (it was expanded), so its elements cannot be "
                "changed one by one; pass x.contiguous()"
            )

    def call(self) -> list[Tensor]:
        """The outputs that can have a gradient: those that asked for one in the first call, all float ones if none."""
        result = self.func(*self.inputs)
        outputs = [result] if isinstance(result, Tensor) else list(result)
        for output in outputs:
            if not isinstance(output, Tensor):
                raise ValueError(f"gradcheck: func must return tensors, got {_C._type_name(output)}")
        if self.kept is None:
            floats = [i for i, output in enumerate(outputs) if output.is_floating_point()]
            self.kept = [i for i in floats if outputs[i].requires_grad] or floats
        return [outputs[i] for i in self.kept]

    def values(self) -> Any:
        """All outputs of a plain forward pass as one flat float64 array."""
        import numpy as np

        with deepseek.no_grad():
            return np.concatenate([np.ravel(as_array(output)) for output in self.call()] or [np.empty(0)]).copy()

    def gradients(self, outputs: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Gradients of the checked inputs, zeros where nothing flows; shapes (and dtypes) are checked on the way."""
        pairs = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(self.wrt)
        if pairs:
            found = deepseek.autograd.grad(
                [output for output, _ in pairs],
                self.wrt,
                [grad for _, grad in pairs],
                retain_graph=True,
                allow_unused=True,
            )
        result = []
        for place, tensor, grad in zip(self.places, self.wrt, found, strict=True):
            if grad is None:
                grad = deepseek.zeros_like(tensor)
            if tuple(grad.shape) != tuple(tensor.shape):
                raise GradcheckError(
                    f"gradient of input {place} has shape {tuple(grad.shape)}, the input {tuple(tensor.shape)}"
                )
            if self.check_dtypes and grad.dtype != tensor.dtype:
                raise GradcheckError(f"gradient of input {place} has dtype {grad.dtype}, the input {tensor.dtype}")
            result.append(grad.detach())
        return result

    # All elements

    def jacobians(self) -> None:
        """Compare every element of every Jacobian."""
        outputs = self.call()
        analytic = self._analytic(outputs)
        offsets = [0]
        for output in outputs:
            offsets.append(offsets[-1] + output.numel())
        for k, place in enumerate(self.places):
            numeric = self._numeric(self.inputs[place], offsets[-1])
            for o, output in enumerate(outputs):
                rows = slice(offsets[o], offsets[o + 1])
                self._compare(place, o, tuple(output.shape), numeric[:, rows], analytic[k][:, rows])

    def _numeric(self, tensor: Tensor, columns: int) -> Any:
        """Central differences, (elements of the input, elements of all outputs)."""
        import numpy as np

        jacobian = np.empty((tensor.numel(), columns))
        data = tensor.detach()  # shares memory, so func sees each change also when it reads the input elsewhere
        for row, index in enumerate(np.ndindex(*tensor.shape)):
            jacobian[row] = self._slope(data, index)
        return jacobian

    def _slope(self, data: Tensor, index: tuple[int, ...]) -> Any:
        with deepseek.no_grad():
            old = data[index].item()
            try:
                data[index] = old + self.eps
                up, high = self.values(), data[index].item()
                data[index] = old - self.eps
                down, low = self.values(), data[index].item()
            finally:
                data[index] = old
        return (up - down) / (high - low)  # the step that was really made, after rounding

    def _analytic(self, outputs: list[Tensor]) -> list[Any]:
        """One backward pass per output element: per input, (elements of the input, elements of all outputs)."""
        import numpy as np

        columns: list[list[Any]] = [[] for _ in self.wrt]
        for o, output in enumerate(outputs):
            for index in np.ndindex(*output.shape):
                seed = deepseek.zeros_like(output.detach())
                seed[index] = 1
                first = self.gradients([output], [seed])
                again = self.gradients([output], [seed])
                for k, (one, two) in enumerate(zip(first, again, strict=True)):
                    column = np.ravel(as_array(one))
                    self._check_repeatable(self.places[k], o, column, np.ravel(as_array(two)))
                    columns[k].append(column)
        return [
            np.stack(found, 1) if found else np.empty((tensor.numel(), 0))
            for found, tensor in zip(columns, self.wrt, strict=True)
        ]

    def _check_repeatable(self, place: int, output: int, one: Any, two: Any) -> None:
        import numpy as np

        with np.errstate(all="ignore"):
            apart = np.abs(one - two)
        if (apart > self.nondet_tol).any():
            raise GradcheckError(
                f"Backward is not reentrant: two backward passes from output {output} gave gradients of input {place} "
                f"that differ by {apart.max()}, more than nondet_tol = {self.nondet_tol}"
            )

    def _compare(self, place: int, output: int, output_shape: tuple[int, ...], numeric: Any, analytic: Any) -> None:
        import numpy as np

        with np.errstate(all="ignore"):
            apart = np.abs(analytic - numeric)
            allowed = self.atol + self.rtol * np.abs(numeric)
            bad = ~((apart <= allowed) | (analytic == numeric))
        if not bad.any():
            return
        worst = np.where(bad, np.where(np.isnan(apart), np.inf, apart), -1)
        row, column = np.unravel_index(int(worst.argmax()), worst.shape)
        shape = tuple(self.inputs[place].shape)
        at = tuple(int(i) for i in np.unravel_index(row, shape)) if shape else ()
        to = tuple(int(i) for i in np.unravel_index(column, output_shape)) if output_shape else ()
        raise GradcheckError(
            f"Jacobian mismatch for output {output} with respect to input {place}: "
            f"d output{list(to)} / d input{list(at)}: numerical {numeric[row, column]:.10g}, "
            f"analytical {analytic[row, column]:.10g}, difference {apart[row, column]:.3g} > "
            f"{allowed[row, column]:.3g} (atol + rtol * |numerical|); "
            f"{int(bad.sum())} of {bad.size} elements are wrong "
            f"(input shape {shape}, output shape {output_shape}; the worst is shown)"
        )

    # One projection

    def projection(self) -> None:
        """Compare ``u^T J v`` for random u over the outputs and random v over each input."""
        import numpy as np

        outputs = self.call()
        draw = np.random.default_rng(0)
        weights = [draw.uniform(0.5, 1.5, tuple(output.shape)) for output in outputs]
        seeds = [_tensor_like(w, output) for w, output in zip(weights, outputs, strict=True)]
        grads = self.gradients(outputs, seeds)
        again = self.gradients(outputs, seeds)
        flat = np.concatenate([np.ravel(w) for w in weights] or [np.empty(0)])
        for place, tensor, grad, twin in zip(self.places, self.wrt, grads, again, strict=True):
            self._check_repeatable(place, 0, np.ravel(as_array(grad)), np.ravel(as_array(twin)))
            direction = draw.uniform(-1, 1, tuple(tensor.shape))
            step = _tensor_like(direction * self.eps, tensor)
            numeric = float(self._directional(tensor.detach(), step) @ flat)
            analytic = float((as_array(grad) * direction).sum())
            if not abs(analytic - numeric) <= self.atol + self.rtol * abs(numeric):
                raise GradcheckError(
                    f"Jacobian mismatch with respect to input {place} (fast mode, one random projection): numerical "
                    f"{numeric:.10g}, analytical {analytic:.10g}; run with fast_mode=False to see the element"
                )

    def _directional(self, data: Tensor, step: Tensor) -> Any:
        with deepseek.no_grad():
            old = data.clone()
            try:
                data.copy_(old + step)
                up = self.values()
                data.copy_(old - step)
                down = self.values()
            finally:
                data.copy_(old)
        return (up - down) / (2 * self.eps)

    # Outputs without gradient

    def undefined_gradients(self) -> None:
        """An output that gets no gradient must count as one that gets zeros."""
        import numpy as np

        outputs = [output for output in self.call() if output.requires_grad]
        if len(outputs) < 2:
            return
        for o, output in enumerate(outputs):
            ones = deepseek.ones_like(output.detach())
            alone = self.gradients([output], [ones])
            seeds = [ones if i == o else deepseek.zeros_like(x.detach()) for i, x in enumerate(outputs)]
            together = self.gradients(outputs, seeds)
            for place, a, b in zip(self.places, alone, together, strict=True):
                if not np.allclose(as_array(a), as_array(b), rtol=1e-9, atol=1e-12, equal_nan=True):
                    raise GradcheckError(
                        f"gradient of input {place} differs when the other outputs than {o} have no gradient "
                        "from when theirs is zero"
                    )


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Compare the second derivatives of ``func`` with central differences of its gradients.

    Args:
        func, inputs: as for :func:`gradcheck`.
        grad_outputs: the gradients from which backward starts; random ones when omitted.
        gen_non_contig_grad_outputs: make the random ones non-contiguous.
        check_rev_over_rev: must stay True; forward over reverse is not supported.
        eps, atol, rtol, raise_exception, nondet_tol, check_undefined_grad, check_grad_dtypes, fast_mode: as for
            :func:`gradcheck`.

    Raises:
        GradcheckError: a second derivative is wrong. Input numbers beyond those of ``func`` are the grad_outputs.
    """
    if check_fwd_over_rev or not check_rev_over_rev:
        raise ValueError("gradgradcheck: only reverse over reverse is supported")
    arguments = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    places = [i for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad]
    if not places:
        raise ValueError("gradgradcheck expects at least one input tensor to require gradient")
    seeds = _seeds(func, arguments, grad_outputs, gen_non_contig_grad_outputs)

    def first_derivatives(*args: Any) -> tuple[Tensor, ...]:
        called, starts = args[: len(arguments)], args[len(arguments) :]
        with deepseek.enable_grad():  # the differences are taken under no_grad, the derivative needs the graph
            outputs = _differentiable(func(*called))
            wrt = [called[i] for i in places]
            grads = deepseek.autograd.grad(outputs, wrt, list(starts), create_graph=True, allow_unused=True)
        return tuple(grad for grad in grads if grad is not None)

    return gradcheck(
        first_derivatives,
        arguments + seeds,
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad,
        fast_mode=fast_mode,
        masked=masked,
    )


def _tensor_like(values: Any, like: Tensor) -> Tensor:
    return deepseek.tensor(values.tolist(), dtype=like.dtype).reshape(values.shape)


def _differentiable(result: Any) -> list[Tensor]:
    outputs = [result] if isinstance(result, Tensor) else list(result)
    return [output for output in outputs if isinstance(output, Tensor) and output.requires_grad]


def _seeds(
    func: Callable[..., Any], arguments: tuple[Any, ...], given: Any, non_contiguous: bool
) -> tuple[Tensor, ...]:
    if given is not None:
        return (given,) if isinstance(given, Tensor) else tuple(given)
    import numpy as np

    draw = np.random.default_rng(0)
    seeds = []
    for output in _differentiable(func(*arguments)):
        shape = tuple(output.shape)
        values = draw.uniform(-1, 1, (*shape, 2) if non_contiguous else shape)
        seed = _tensor_like(values, output)
        seeds.append((seed[..., 0] if non_contiguous else seed).requires_grad_())
    return tuple(seeds)
