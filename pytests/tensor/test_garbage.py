"""Cycles through tensors, their graph, hooks and Functions are garbage that Python's collector frees."""

import functools
import gc
import weakref

import deepseek
import pytest
from deepseek import nn
from deepseek.autograd import Function


class Keeps(Function):
    """Stores on ctx what `what` says."""

    @staticmethod
    def forward(ctx, x, what):
        first, second = x * 2, x * 3
        ctx.kept = {"first": first, "both": [first, second], "input": x, "nested": {"a": ({"b": first},)}}.get(what)
        if what == "saved":
            ctx.save_for_backward(x, first)
        if what == "ctx":
            ctx.kept = ctx
        return first, second

    @staticmethod
    def backward(ctx, a, b):
        return 2 * a + 3 * b, None


class Holder:
    pass


def leaf():
    return deepseek.ones(3, requires_grad=True)


def function_keeping(what):
    return Keeps.apply(leaf(), what)


def only(outputs, i):
    """One of two outputs, the other dies."""
    return outputs[i]


def with_attribute(t, **attributes):
    for name, value in attributes.items():
        setattr(t, name, value)
    return t


def own_attribute():
    t = leaf()
    return with_attribute(t, me=t)


def attribute_of_result():
    w = leaf()
    return with_attribute(w, loss=(w * 2).sum())


def result_with_base():
    base = deepseek.ones(3)
    view = base[1:]
    base.view = view
    return view


def gradient_with_attribute():
    w = leaf()
    (w * 2).sum().backward()
    w.grad.owner = w
    return w


def hook_of_result():
    y = leaf() * 2
    y.register_hook(lambda g: y.detach() * g)
    return y


def hook_further_up():
    y = leaf() * 2
    z = (y * y).sum()  # two edges lead to y
    y.register_hook(lambda g: g + 0 * z.detach())
    del y
    return z


def hook_that_is_a_method():  # no part of it but the tensor can be cleared
    y = leaf() * 2
    y.register_hook(y.mul)
    return y


def hook_that_is_partial():
    y = leaf() * 2
    y.register_hook(functools.partial(deepseek.mul, y))
    return y


def leaf_hook():
    w = leaf()
    w.register_hook(lambda g: g + w.detach())
    return w


def post_accumulate_hook():
    w = leaf()
    w.register_post_accumulate_grad_hook(lambda t: w)
    return w


def retained():
    y = leaf() * 2
    y.retain_grad()
    y.sum().backward()
    y.grad.owner = y
    return y


def closure():
    y = leaf() * 2
    y.call = lambda: y
    return y


def with_grad_fn():
    y = leaf() * 2
    y.fn = y.grad_fn
    y.register_hook(lambda g: y)
    del y.fn
    return y


def ctx_with_grad_fn():
    class Mine(Function):
        @staticmethod
        def forward(ctx, x):
            Mine.ctx = ctx
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    Mine.apply(leaf())
    y = Mine.apply(leaf())
    holder = Mine.ctx.holder = Holder()
    del Mine.ctx
    holder.fn = y.grad_fn
    return holder


def module_with_hooks():
    m = nn.Linear(3, 3)
    seen = []
    m.register_forward_hook(lambda module, args, out: seen.append((m, out)))
    m(deepseek.ones(3))
    return m


def compiled_closure():
    w = leaf()

    def f(x):
        return x * w + len(holder)

    f = deepseek.jit(f)
    holder = [f]
    f(deepseek.ones(3))
    f(deepseek.ones(3))
    return f


CYCLES = {
    "ctx keeps an output": lambda: only(function_keeping("first"), 0),
    "ctx keeps an output, both live": lambda: function_keeping("first")[0],
    "ctx keeps the outputs": lambda: function_keeping("both")[1],
    "ctx keeps an output deep down": lambda: function_keeping("nested")[0],
    "ctx keeps the input": lambda: function_keeping("input")[0],
    "ctx saves input and output": lambda: function_keeping("saved")[0],
    "ctx keeps itself": lambda: function_keeping("ctx")[0],
    **{f.__name__.replace("_", " "): f for f in (
        own_attribute, attribute_of_result, result_with_base, gradient_with_attribute, hook_of_result, hook_further_up,
        hook_that_is_a_method, hook_that_is_partial, leaf_hook, post_accumulate_hook, retained, closure, with_grad_fn,
        ctx_with_grad_fn, module_with_hooks, compiled_closure)},
}  # fmt: skip


@pytest.mark.parametrize("make", CYCLES.values(), ids=CYCLES)
def test_a_cycle_is_freed(make):
    gc.collect()
    before = deepseek.memory_stats()["allocated_bytes"]
    for _ in range(3):
        thing = make()
        watch = weakref.ref(thing)
        del thing
    gc.collect()
    gc.collect()  # what a finalizer put back
    assert watch() is None
    del watch
    gc.collect()
    assert deepseek.memory_stats()["allocated_bytes"] - before < 600  # a constant of the jit, no tensor a round


def test_outputs_kept_on_ctx_are_there_while_one_output_lives():
    for index in (0, 1):
        w = leaf()
        y = Keeps.apply(w, "both")[index]
        gc.collect()
        y.sum().backward()
        assert w.grad.tolist() == [2.0 + index] * 3


def test_ctx_lives_as_long_as_a_result_needs_it():
    w = leaf()
    first, second = Keeps.apply(w, "both")
    loop = [first, second]
    loop.append(loop)
    z = first * 2  # holds the node from C++
    del first, second, loop
    gc.collect()
    z.sum().backward()
    assert w.grad.tolist() == [4.0] * 3


def test_the_hook_of_a_leaf_that_went_in_a_cycle_still_runs():
    calls = []
    w = leaf()
    w.register_hook(lambda g: calls.append(g.tolist()))
    y = (w * 2).sum()
    loop = [w]
    loop.append(loop)
    del w, loop
    gc.collect()
    y.backward()
    assert calls == [[2.0] * 3]


def test_a_subclass_may_look_at_itself_while_it_dies():
    seen = []

    class Looks(deepseek.Tensor):
        def __del__(self):
            seen.append((tuple(self.shape), self.tolist(), self.grad_fn))

    w = deepseek.ones(2).as_subclass(Looks)
    w.requires_grad_()
    w.note = 1
    y = w * 2  # a result that holds the leaf, of its class too
    del w
    gc.collect()
    del y
    gc.collect()
    assert sorted(s[:2] for s in seen) == [((2,), [1.0, 1.0]), ((2,), [2.0, 2.0])]
