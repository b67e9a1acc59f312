"""A hypothesis state machine: random graphs, modes, hooks, writes and backward passes, done in both packages.

After every step both packages must have raised or not (ours the class PyTorch raises), and agree on values, flags,
`.grad` and on what the hooks saw. As in the machine for views, PyTorch runs where every gradient is right: ours must be
equal or refused with the version error.

Where we differ on purpose, and the machine looks away:

- A view made by unbind or split, or under no_grad, whose base is written afterwards: PyTorch refuses to differentiate
  it, ours goes through the base. Such a tensor is dropped.
- Where a result is overwritten by another one (x.copy_(y)), PyTorch sends zeros to what was there; ours nothing, so
  that hooks do not run. (The machine for views compares the gradients.)
- Hooks on a view are removed before its memory is written: a gradient then goes to the base, and which part of it
  still passes the view's old self is up to how the write was recorded.
- A second backward pass without retain_graph: refused by a node that has freed something; a write through a view frees
  something in PyTorch (CopySlices), nothing here.
- A hook on an output that got no gradient: PyTorch calls it with None, ours does not.
- autograd.grad(…, [y, x]) with a hook on y that changes the gradient, where y leads to x: PyTorch returns y's gradient
  from before the hook, though the one after it when y is asked for alone. Ours always returns the one after it.
- Hooks of an output that leads to none of the inputs asked for: PyTorch calls them if it is the only output, ours not.
- What detach() makes of an inference tensor outside inference mode: still an inference tensor in both, but PyTorch
  lets it be written there, ours no alias.
- Hooks of leaves run when all that uses the leaf has run, in both; when exactly between other hooks is not compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest
from graph_tables import AFTER, CHANGE, FLAGS, GRADS, HOOKS, MODES, OPS, OVERWRITE, SEVERAL
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twins import NEED_DIMS, VIEWS, WRITES, Pair, attempt, comparable, exact_gradients

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import _disable_current_modes  # noqa: E402

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

index = st.integers(0, 30)
op_names = st.sampled_from(sorted(OPS))
often_observe = st.sampled_from(["observe"] * 3 + ["double", "square"] * 2 + ["wrong size", "wrong dtype", "raise"])


def leads_to(output: Any, inputs: list[Pair]) -> bool:
    wanted = [p.theirs if p.theirs.is_leaf else p.theirs.grad_fn for p in inputs]
    found = [output if output.is_leaf else output.grad_fn]
    for node in found:  # grows
        if any(node is w for w in wanted):
            return True
        for upstream, _ in getattr(node, "next_functions", ()):
            entry = getattr(upstream, "variable", upstream)
            if entry is not None and not any(entry is f for f in found):
                found.append(entry)
    return False


def write_theirs(target: Any, write: Callable[[], Any]) -> None:
    if target is None or not target.is_inference():
        write()
        return
    with _disable_current_modes():  # allow_mutation_on_saved_tensors cannot; nobody saves an inference tensor
        write()


class Autograd(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool: list[Pair] = []
        self.log: list[str] = []
        self.modes: list[tuple[Any, Any]] = []
        self.hooks: list[tuple[Any, Any]] = []  # handles
        self.changed: list[Any] = []  # have hooks that change the gradient
        self.overwritten = (
            False  # somewhere: the zeros sent to what was there are constants in PyTorch, not always here
        )
        self.hooked: list[Any] = []  # results with hooks
        self.hooked_views: list[tuple[Any, int]] = []
        self.watched: list[Any] = []  # have hooks after accumulation
        self.events: dict[str, list[tuple[int, bool, Any]]] = {"ours": [], "theirs": []}
        self.exact = exact_gradients()
        self.exact.__enter__()

    # --- helpers

    def pick(self, i: int) -> Pair:
        return self.pool[-1 - i % len(self.pool)]

    def name(self, pair: Pair) -> int:
        return self.pool.index(pair)

    def keep(self, ours: Any, theirs: Any) -> None:
        values = theirs.detach().numpy()
        if values.size <= 36 and theirs.dim() <= 4 and (values.size == 0 or np.abs(values).max() < 1e3):
            self.pool.append(Pair(ours, theirs))

    def same(self, name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any] | None:
        """Run both; both must succeed or both must refuse."""
        self.log.append(name)
        b, their_error = attempt(theirs)
        a, our_error = attempt(ours)
        refused = our_error is not None and "modified by an inplace operation" in str(our_error)
        if refused:
            event("version error")
        if our_error is None and their_error and "second time" in str(their_error):
            event("second backward that PyTorch refuses")
            return self.start_over()
        agree = refused or (isinstance(our_error, type(their_error)) if their_error else our_error is None)
        assert agree, f"after {self.log}:\n  deepseek: {our_error!r}\n  torch: {their_error!r}"
        if refused or (their_error and self.went_wrong_inside(str(their_error))):
            self.start_over()
        return None if our_error or their_error else (a, b)

    @staticmethod
    def went_wrong_inside(error: str) -> bool:
        """A backward pass that stops half way leaves some of its work done; how much is not compared."""
        texts = ("second time", "from the hook", "hook '", "Inplace update to inference", "graph interior")
        return any(text in error for text in texts)

    def start_over(self) -> None:
        self.pool.clear()
        self.hooks.clear()
        self.hooked_views.clear()
        self.overwritten = False
        for events in self.events.values():
            events.clear()
        self.log.append("start over")
        self.new_leaf(1, True, (2, 3))

    def new_leaf(self, seed: int, grad: bool, shape: tuple[int, ...]) -> None:
        grad = grad and not self.inference()
        values = np.random.default_rng(seed).uniform(-1, 1, shape)
        with _disable_current_modes():  # as in write_theirs
            theirs = torch.tensor(values).requires_grad_(grad)
        self.keep(deepseek.tensor(values).requires_grad_(grad), theirs)

    def inference(self) -> bool:
        return torch.is_inference_mode_enabled()

    # --- graphs

    @initialize(seed=st.integers(0, 99), ops=st.lists(st.tuples(index, index, op_names), max_size=4))
    def start(self, seed: int, ops: list[tuple[int, int, str]]) -> None:
        self.new_leaf(seed, True, (2, 3))
        for i, j, name in ops:
            self.run_op(i, j, name)

    @rule(seed=st.integers(0, 99), grad=st.booleans(), shape=st.sampled_from([(2, 3), (3,), (), (2, 2), (0, 3)]))
    def leaf(self, seed: int, grad: bool, shape: tuple[int, ...]) -> None:
        self.log.append(f"leaf {grad} {shape}")
        self.new_leaf(seed, grad, shape)

    @rule(i=index, j=index, name=op_names)
    def op(self, i: int, j: int, name: str) -> None:
        self.run_op(i, j, name)

    def run_op(self, i: int, j: int, name: str) -> None:
        x, y = self.pick(i), self.pick(j)
        done = self.same(
            f"{name}({self.name(x)}, {self.name(y)})",
            lambda: OPS[name](deepseek, x.ours, y.ours),
            lambda: OPS[name](torch, x.theirs, y.theirs),
        )
        if done:
            self.keep(*done)

    @rule(i=index, name=st.sampled_from(sorted(SEVERAL)))
    def several(self, i: int, name: str) -> None:
        x = self.pick(i)
        values = x.theirs.detach().numpy()
        if np.unique(values).size < values.size:
            return  # which of equal elements gets the gradient is not defined
        if name == "meshgrid" and self.inference():
            return  # as reshape
        done = self.same(
            f"{name}({self.name(x)})",
            lambda: SEVERAL[name](deepseek, x.ours),
            lambda: SEVERAL[name](torch, x.theirs),
        )
        for ours, theirs in zip(*done, strict=True) if done else ():
            self.keep(ours, theirs)

    @rule(i=index, name=st.sampled_from(sorted(VIEWS)), a=st.integers(0, 3), b=st.integers(0, 3))
    def view(self, i: int, name: str, a: int, b: int) -> None:
        x = self.pick(i)
        if x.theirs.numel() == 0 or (x.theirs.dim() == 0 and name in NEED_DIMS):
            return
        if name == "reshape" and self.inference():
            return  # under allow_mutation_on_saved_tensors PyTorch loses track of its base
        if name == "detach" and x.theirs.is_inference() and not self.inference():
            return
        done = self.same(
            f"{name}({self.name(x)}, {a}, {b})",
            lambda: VIEWS[name](x.ours, a, b),
            lambda: VIEWS[name](x.theirs, a, b),
        )
        if done:
            self.keep(*done)

    @rule(i=index, j=index, name=st.sampled_from(sorted(WRITES)), v=st.sampled_from([0.5, -1.25]))
    def write(self, i: int, j: int, name: str, v: float) -> None:
        x, y = self.pick(i), self.pick(j)
        if not comparable(name, x.theirs, y.theirs):
            return
        if name == "copy" and x.theirs.requires_grad and y.theirs.requires_grad and not x.theirs._is_view():
            return  # what x was gets zeros there, nothing here

        self.overwritten |= name in OVERWRITE
        for view, number in self.hooked_views:
            if view.untyped_storage().data_ptr() == x.theirs.untyped_storage().data_ptr():
                self.remove_hook(number)
        self.same(
            f"write {name}({self.name(x)}, {self.name(y)}, {v})",
            lambda: WRITES[name](x.ours, y.ours, v),
            lambda: write_theirs(x.theirs, lambda: WRITES[name](x.theirs, y.theirs, v)),
        )

    @rule(i=index, name=st.sampled_from(sorted(FLAGS)))
    def flag(self, i: int, name: str) -> None:
        x = self.pick(i)
        if name == "detach_" and (self.inference() or x.theirs.retains_grad):
            return  # PyTorch's does nothing, and leads to an internal error at the next write
        if name == "detach_" and any(x.theirs is t for t in self.hooked):
            return  # PyTorch carries hooks of the result over to the leaf that it may become
        if name == "requires_grad_" and x.theirs.is_inference():
            return  # allowed in inference mode, but then PyTorch fails in odd ways
        if any(x.theirs is t for t in self.watched) and name in ("detach_", "requires_grad_(False)"):
            return  # PyTorch runs the hook "after accumulation" though nothing is accumulated
        self.same(
            f"{name}({self.name(x)})",
            lambda: FLAGS[name](x.ours),
            lambda: write_theirs(x.theirs, lambda: FLAGS[name](x.theirs)),
        )

    @rule(i=index)
    def forget(self, i: int) -> None:
        if len(self.pool) > 1:
            x = self.pick(i)
            self.log.append(f"forget {self.name(x)}")
            self.pool.remove(x)

    # --- modes

    @precondition(lambda self: len(self.modes) < 2)
    @rule(name=st.sampled_from(sorted(MODES)))
    def enter(self, name: str) -> None:
        self.log.append(f"enter {name}")
        pair = MODES[name](deepseek), MODES[name](torch)
        for mode in pair:
            mode.__enter__()
        self.modes.append(pair)

    @precondition(lambda self: self.modes)
    @rule()
    def leave(self) -> None:
        self.log.append("leave")
        for mode in self.modes.pop():
            mode.__exit__(None, None, None)

    @rule(on=st.booleans())
    def switch(self, on: bool) -> None:
        self.log.append(f"set_grad_enabled({on})")
        deepseek.set_grad_enabled(on)
        torch.set_grad_enabled(on)

    # --- gradients

    def weight(self, kind: int, pair: Pair) -> tuple[Any, Any]:
        """None, a constant, a tensor of the pool or a wrong shape, as the gradient of an output."""
        if kind == 0:
            return None, None
        if kind == 1:
            values = 0.5 + np.arange(pair.theirs.numel()).reshape(tuple(pair.theirs.shape)) * 0.37 % 1
            return deepseek.tensor(values), torch.tensor(values)
        chosen = self.pick(kind)
        return chosen.ours.clone(), chosen.theirs.clone()  # PyTorch may make a view of it .grad, and add to that

    def only_hooks_run(self, x: Pair, inputs: list[Pair] | None) -> bool:
        """Nothing asked for is reached from `x`, but PyTorch would run hooks of `x`."""
        return bool(inputs) and bool(self.hooks or x.theirs.retains_grad) and not leads_to(x.theirs, inputs)

    @precondition(lambda self: not self.inference())
    @rule(
        i=index,
        weight=st.sampled_from([0, 1, 1, 1, 1, 2, 3]),
        retain=st.sampled_from([None, True, True, False]),
        create=st.booleans(),
        inputs=st.none() | st.lists(index, max_size=2),
    )
    def backward(self, i: int, weight: int, retain: bool | None, create: bool, inputs: list[int] | None) -> None:
        x = self.pick(i)
        w = self.weight(weight, x)
        wanted = None if inputs is None else [self.pick(j) for j in inputs]
        if self.only_hooks_run(x, wanted):
            return
        options = {"retain_graph": retain, "create_graph": create}
        self.same(
            f"backward({self.name(x)}, weight {weight}, {options}, "
            f"{None if wanted is None else [self.name(p) for p in wanted]})",
            lambda: x.ours.backward(w[0], inputs=wanted and [p.ours for p in wanted], **options),
            lambda: x.theirs.backward(w[1], inputs=wanted and [p.theirs for p in wanted], **options),
        )
        self.compare_events()

    @precondition(lambda self: not self.inference())
    @rule(
        i=index,
        weight=st.sampled_from([0, 1, 1, 1, 1, 2, 3]),
        retain=st.sampled_from([None, True, True, False]),
        create=st.booleans(),
        inputs=st.lists(index, min_size=1, max_size=3),
        unused=st.sampled_from([None, True, True]),
        zeros=st.booleans(),
    )
    def grad(
        self, i: int, weight: int, retain: bool | None, create: bool, inputs: list[int], unused: Any, zeros: bool
    ) -> None:
        x = self.pick(i)
        w = self.weight(weight, x)
        wanted = [self.pick(j) for j in inputs]
        if len(wanted) > 1 and any(p.theirs is t and not t.is_leaf for p in wanted for t in self.changed):
            return
        if self.only_hooks_run(x, wanted):
            return
        options = {"retain_graph": retain, "create_graph": create, "allow_unused": unused, "materialize_grads": zeros}
        done = self.same(
            f"grad({self.name(x)}, {[self.name(p) for p in wanted]}, weight {weight}, {options})",
            lambda: deepseek.autograd.grad(x.ours, [p.ours for p in wanted], w[0], **options),
            lambda: torch.autograd.grad(x.theirs, [p.theirs for p in wanted], w[1], **options),
        )
        self.compare_events()
        for ours, theirs in zip(*done, strict=True) if done else ():
            if self.close(ours, theirs, "gradient") and theirs is not None:
                self.keep(ours.clone(), theirs.clone())  # which gradients are views of others is nobody's promise

    @rule(i=index, name=st.sampled_from(sorted(GRADS)))
    def change_grad(self, i: int, name: str) -> None:
        x = self.pick(i)
        self.same(
            f"grad of {self.name(x)} to {name}",
            lambda: GRADS[name](x.ours),
            lambda: write_theirs(x.theirs.grad, lambda: GRADS[name](x.theirs)),
        )

    @rule(i=index)
    def use_grad(self, i: int) -> None:
        x = self.pick(i)
        if x.theirs.grad is not None:
            self.log.append(f"{len(self.pool)} is the grad of {self.name(x)}")
            self.keep(x.ours.grad, x.theirs.grad)

    # --- hooks

    def observer(self, who: str, number: int, leaf: bool, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        events = self.events[who]

        def hook(t: Any) -> Any:
            if t is None:
                return None
            shown = t if t.grad is None else t.grad
            events.append((number, leaf, (shown.detach().numpy().copy(), shown.requires_grad)))
            return run(t)

        return hook

    @rule(i=index, kind=often_observe)
    def hook(self, i: int, kind: str) -> None:
        x, number = self.pick(i), len(self.hooks)
        leaf = x.theirs.is_leaf
        done = self.same(
            f"hook {number} {kind} on {self.name(x)}",
            lambda: x.ours.register_hook(self.observer("ours", number, leaf, HOOKS[kind])),
            lambda: x.theirs.register_hook(self.observer("theirs", number, leaf, HOOKS[kind])),
        )
        if done:
            self.hooks.append(done)
            self.hooked_views += [(x.theirs, number)] * x.theirs._is_view()
            self.hooked += [x.theirs] * (not leaf)
            self.changed += [x.theirs] * (kind in CHANGE)

    @rule(i=index, kind=st.sampled_from(["observe", "observe", *sorted(AFTER)]))
    def hook_after(self, i: int, kind: str) -> None:
        x, number = self.pick(i), len(self.hooks)

        def register(who: str, package: Any, t: Any) -> Any:
            hook = self.observer(who, number, True, lambda leaf: AFTER[kind](package, leaf))
            return t.register_post_accumulate_grad_hook(hook)

        done = self.same(
            f"hook {number} after accumulation, {kind}, on {self.name(x)}",
            lambda: register("ours", deepseek, x.ours),
            lambda: register("theirs", torch, x.theirs),
        )
        if done:
            self.hooks.append(done)
            self.watched.append(x.theirs)

    @precondition(lambda self: self.hooks)
    @rule(i=index)
    def unhook(self, i: int) -> None:
        self.remove_hook(i % len(self.hooks))

    def remove_hook(self, number: int) -> None:
        self.log.append(f"remove hook {number}")
        for handle in self.hooks[number]:
            handle.remove()

    # --- comparison

    def close(self, ours: Any, theirs: Any, what: str) -> bool:
        """False: equal, but only one is part of a graph, which is allowed of zeros (see `overwritten`)."""
        assert (ours is None) == (theirs is None), f"{what}: {ours} and {theirs} after {self.log}"
        if theirs is None:
            return True
        np.testing.assert_allclose(
            ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-9, atol=1e-11, err_msg=f"{what} after {self.log}"
        )
        same_flag = ours.requires_grad == theirs.requires_grad
        assert same_flag or self.overwritten, f"{what}: requires_grad after {self.log}"
        return same_flag

    def compare_events(self) -> None:
        ours, theirs = self.events["ours"], self.events["theirs"]
        context = f"after {self.log}\n  deepseek: {ours}\n  torch: {theirs}"
        for which in [{n for n, leaf, _ in theirs if not leaf}, *({n} for n, leaf, _ in ours + theirs if leaf)]:
            a, b = ([e for e in events if e[0] in which] for events in (ours, theirs))
            assert [e[0] for e in a] == [e[0] for e in b], f"other hooks ran {context}"
            for (_, _, (x, x_grad)), (_, _, (y, y_grad)) in zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11, err_msg=context)
                assert x_grad == y_grad or self.overwritten, context
        ours.clear()
        theirs.clear()

    def drop_what_torch_refuses(self) -> None:
        for pair in list(self.pool):
            _, error = attempt(lambda p=pair: p.theirs.grad_fn)
            if error:
                assert "is a view" in str(error) or "view was created in" in str(error), error
                event("stale view that PyTorch refuses")
                self.pool.remove(pair)
        if not self.pool:
            self.new_leaf(1, True, (2, 3))

    @invariant()
    def packages_agree(self) -> None:
        assert deepseek.is_grad_enabled() == torch.is_grad_enabled(), self.log
        assert deepseek.is_inference_mode_enabled() == torch.is_inference_mode_enabled(), self.log
        self.drop_what_torch_refuses()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # .grad of a non-leaf
            for i, pair in enumerate(self.pool):
                self.close(pair.ours, pair.theirs, f"tensor {i}")
                flags = [
                    (t.is_leaf, t.grad_fn is None, t.retains_grad, t.output_nr, t.is_inference(), tuple(t.shape))
                    for t in (pair.ours, pair.theirs)
                ]
                assert flags[0] == flags[1], f"tensor {i}: {flags} after {self.log}"
                if not self.close(pair.ours.grad, pair.theirs.grad, f"grad of tensor {i}"):
                    pair.ours.grad, pair.theirs.grad = pair.ours.grad.detach(), pair.theirs.grad.detach()

    def teardown(self) -> None:
        try:
            while self.modes:
                self.leave()
            self.switch(True)
            for i, pair in enumerate(list(self.pool)):
                if pair in self.pool and pair.theirs.requires_grad:
                    self.backward(len(self.pool) - 1 - i, 1, True, False, None)
                    self.packages_agree()
        finally:
            self.exact.__exit__(None, None, None)


QUICK = settings(max_examples=300, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
TestAutograd = Autograd.TestCase
TestAutograd.settings = QUICK


class ManyAutograd(Autograd):
    pass


TestManyAutograd = ManyAutograd.TestCase
TestManyAutograd.settings = settings(QUICK, max_examples=2000, stateful_step_count=25)
TestManyAutograd.pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
