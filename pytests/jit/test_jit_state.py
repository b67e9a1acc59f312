"""The state of the program that ``deepseek.jit`` watches: globals, closures, attributes, classes, containers."""

from __future__ import annotations

import sys
import types
from typing import Any

import deepseek
import pytest
from deepseek import nn
from jit_helpers import Net, recordings

SCALE = 2.0


SETTINGS = {"depth": 2}


def test_globals_closure_and_containers_are_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    offset = 1.0

    @deepseek.jit
    def f(x: Any) -> Any:
        for _ in range(SETTINGS["depth"]):
            x = x * SCALE + offset
        return x

    x = deepseek.ones(2)
    assert f(x).tolist() == [7.0, 7.0]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert f(x).tolist() == [13.0, 13.0]
    assert "global SCALE changed from 2.0 to 3.0" in f.explain()
    offset = 0.0
    assert f(x).tolist() == [9.0, 9.0]
    monkeypatch.setitem(SETTINGS, "depth", 1)
    assert f(x).tolist() == [3.0, 3.0]


def helper(x: Any) -> Any:
    return x * SCALE


def test_what_called_functions_see_is_guarded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    f = deepseek.jit(lambda x: helper(x) + 1)
    x = deepseek.ones(2)
    assert f(x).tolist() == [3.0, 3.0]
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    assert f(x).tolist() == [6.0, 6.0]
    monkeypatch.setitem(globals(), "helper", lambda x: x)
    assert f(x).tolist() == [2.0, 2.0]


def test_attributes_of_modules_are_guards() -> None:
    net = Net()
    f = deepseek.jit(net)
    x = deepseek.ones(2, 4)
    net.eval()
    assert f(x).equal(net(x))
    net.gain = 3.0
    assert f(x).equal(net(x))
    assert "gain changed from 1.0 to 3.0" in f.explain()
    net.train()
    deepseek.manual_seed(1)
    expected = net(x)
    deepseek.manual_seed(1)
    assert f(x).equal(expected)
    net.eval()
    net.b = nn.Linear(8, 3)
    assert f(x).equal(net(x))
    net.b.weight = nn.Parameter(deepseek.ones(3, 8))
    assert f(x).equal(net(x))
    with deepseek.no_grad():
        net.b.weight.mul_(2)  # the same tensor: no new recording is needed
    before = recordings(f)
    assert f(x).equal(net(x)) and recordings(f) == before
    assert next(iter(f.parameters())) is net.a.weight


def test_class_attributes_and_function_attributes_are_guards() -> None:
    class Scaled(nn.Module):
        factor = 2.0

        def forward(self, x: Any) -> Any:
            return x * self.factor * scale.by

    def scale() -> None: ...

    scale.by = 1.0
    f = deepseek.jit(Scaled())
    x = deepseek.ones(1)
    assert f(x).item() == 2.0
    Scaled.factor = 3.0
    assert f(x).item() == 3.0
    scale.by = 2.0
    assert f(x).item() == 6.0
    assert "Scaled.factor changed from 2.0 to 3.0" in f.explain()


def test_a_class_seen_by_name_is_guarded_like_any_other() -> None:
    class Scaled:
        factor = 2.0

        def apply(self, x: Any) -> Any:
            return x * self.factor

    one = Scaled()
    f = deepseek.jit(lambda x: one.apply(x) if isinstance(one, Scaled) else x)
    x = deepseek.ones(1)
    assert f(x).item() == 2.0
    Scaled.factor = 3.0
    assert f(x).item() == 3.0


def test_items_of_a_dict_and_their_order_are_guards() -> None:
    table = {"a": 1.0, "b": 2.0}
    f = deepseek.jit(lambda x: x * table["a"] + table["b"])
    x = deepseek.ones(1)
    assert f(x).item() == 3.0
    table["a"] = table.pop("a")
    assert f(x).item() == 3.0 and recordings(f) == 2
    assert "the order of table's items changed" in f.explain() or "table" in f.explain()
    table["a"], table["b"] = table["b"], table["a"]
    assert f(x).item() == 3.0 and recordings(f) == 3
    assert "table['b'] changed from 2.0 to 1.0" in f.explain()


def test_a_changed_attribute_is_noticed() -> None:
    class Counting(Net):
        def forward(self, x: Any) -> Any:
            self.calls += 1
            return super().forward(x)

    net = Counting().eval()
    f = deepseek.jit(net)
    for _ in range(3):
        f(deepseek.ones(1, 4))
    assert net.calls == 3 and "calls changed from 0 to 1" in f.explain()


def test_more_state_than_can_be_watched_is_not_captured() -> None:
    numbers = [1.0] * 2000

    def f(x: Any) -> Any:
        return x * numbers[1500]

    compiled = deepseek.jit(f)
    assert compiled(deepseek.ones(1)).item() == 1
    numbers[1500] = 3.0
    assert compiled(deepseek.ones(1)).item() == 3
    assert "too much state" in compiled.explain()


def test_a_list_inside_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        deepseek.jit(lambda x, y: x + 1)(deepseek.ones(1), endless)


# --- every kind of state: a program, a change of it that eager execution sees

CHANGES = {
    "defaults": ("def d(x, k=2.0): return x * k", "d(x)", "d.__defaults__ = (3.0,)"),
    "keyword defaults": ("def d(x, *, k=2.0): return x * k", "d(x)", "d.__kwdefaults__['k'] = 3.0"),
    "a mutable default": ("def d(x, k=[2.0]): return x * k[0]", "d(x)", "d.__defaults__[0][0] = 3.0"),
    "code": ("def d(x): return x * 2\ndef e(x): return x * 3", "d(x)", "d.__code__ = e.__code__"),
    "function attributes": ("def d(x): return x * d.k\nd.k = 2.0", "d(x)", "d.k = 3.0"),
    "argparse.Namespace": ("import argparse\nn = argparse.Namespace(k=2.0)", "x * n.k", "n.k = 3.0"),
    "an attribute that comes later": (
        "import argparse\nn = argparse.Namespace()\ndef k():\n    try:\n        return n.k\n"
        "    except AttributeError:\n        return 2.0",
        "x * k()",
        "n.k = 3.0",
    ),
    "SimpleNamespace": ("import types\nn = types.SimpleNamespace(k=2.0)", "x * n.k", "n.k = 3.0"),
    "order of a dict": ("d = {'a': 1.0, 'b': 2.0}", "x * list(d.values())[0]", "d['a'] = d.pop('a')"),
    "order of an OrderedDict": (
        "import collections\nd = collections.OrderedDict(a=1.0, b=2.0)",
        "x * list(d.values())[0]",
        "d.move_to_end('a')",
    ),
    "class of an object": (
        "class A:\n    k = 2.0\nclass B:\n    k = 3.0\na = A()",
        "x * a.k",
        "a.__class__ = B",
    ),
    "bases of a class": (
        "class A:\n    k = 2.0\nclass B:\n    k = 3.0\nclass C(A):\n    pass\nclass D(B):\n    pass",
        "x * C.k",
        "C.__bases__ = (B,)",
    ),
    "attribute of a class": ("class A:\n    k = 2.0", "x * A.k", "A.k = 3.0"),
    "metaclass": ("class M(type):\n    k = 2.0\nclass A(metaclass=M):\n    pass", "x * A.k", "M.k = 3.0"),
    "slots": ("class A:\n    __slots__ = ('k',)\na = A()\na.k = 2.0", "x * a.k", "a.k = 3.0"),
    "the whole __dict__": ("class A:\n    pass\na = A()\na.k = 2.0", "x * a.k", "a.__dict__ = {'k': 3.0}"),
    "attribute of a tensor": ("t = T.ones(1)\nt.k = 2.0", "x * t.k", "t.k = 3.0"),
    "new attribute of a tensor": ("t = T.ones(1)", "x * getattr(t, 'k', 2.0)", "t.k = 3.0"),
    "set": ("s = {1}", "x * len(s)", "s.add(2)"),
    "deque": ("import collections\nq = collections.deque([2.0])", "x * q[0]", "q[0] = 3.0"),
    "bytearray": ("b = bytearray([2])", "x * b[0]", "b[0] = 3"),
    "derived list": ("class L(list):\n    pass\nl = L([2.0])", "x * l[0]", "l[0] = 3.0"),
    "attribute of a derived tuple": ("class P(tuple):\n    pass\np = P()\np.k = 2.0", "x * p.k", "p.k = 3.0"),
    "what a property reads": (
        "k = 2.0\nclass A:\n    @property\n    def p(self): return k\na = A()",
        "x * a.p",
        "global k\nk = 3.0",
    ),
    "what a static method reads": (
        "k = 2.0\nclass A:\n    @staticmethod\n    def p(): return k",
        "x * A.p()",
        "global k\nk = 3.0",
    ),
    "what a special method reads": (
        "k = 2.0\nclass A:\n    def __rmul__(self, x): return x * k\na = A()",
        "x.__mul__(a) if False else a.__rmul__(x)",
        "global k\nk = 3.0",
    ),
    "whether a tensor requires grad": ("t = T.ones(1)", "x * (2 + t.requires_grad)", "t.requires_grad_()"),
    "the memory of a tensor": ("t = T.ones(1)", "x * t", "t.data = T.zeros(1)"),
    "a parameter group": (
        "p = T.ones(1, requires_grad=True)\np.grad = T.ones(1)\nq = T.ones(1, requires_grad=True)\n"
        "o = T.optim.SGD([q], lr=1.0)\ndef z():\n    o.zero_grad()\n    return p.grad is None",
        "x * (2 - z())",
        "o.add_param_group({'params': [p]})",
    ),
    "the rate of an optimizer": (
        "o = T.optim.SGD([T.ones(1, requires_grad=True)], lr=2.0)",
        "x * o.param_groups[0]['lr']",
        "o.param_groups[0]['lr'] = 3.0",
    ),
    "cache": (
        "import functools\nk = 2.0\n@functools.lru_cache\ndef c(): return k",
        "x * c()",
        "global k\nk = 3.0\nc.cache_clear()",
    ),
    "context variable": (
        "import contextvars\nv = contextvars.ContextVar('v', default=2.0)",
        "x * v.get()",
        "v.set(3.0)",
    ),
    "a builtin that gets hidden": ("", "x * max([2.0])", "global max\nmax = lambda _: 3.0"),
    "a name that comes later": ("", "x * (3.0 if 'late' in globals() else 2.0)", "global late\nlate = 1"),
    "array": ("import numpy as np\na = np.array([2.0])", "x * float(a[0])", "a[0] = 3.0"),
    "thread's own": ("import threading\nl = threading.local()\nl.k = 2.0", "x * l.k", "l.k = 3.0"),
    "partial": ("import functools\np = functools.partial(lambda x, k: x * k, k=2.0)", "p(x)", "p.keywords['k'] = 3.0"),
    "module imported inside": ("k = 2.0", "inside(x)", "global k\nk = 3.0"),
    "a name made while it runs": ("class A:\n    k = 2.0\na = A()", "x * getattr(a, 'K'.lower())", "a.k = 3.0"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_change_of_the_program_is_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    top, expression, change = CHANGES[kind]
    module = types.ModuleType("jit_state_program")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    inside = "def inside(x):\n    import jit_state_program as me\n    return x * me.k\n"
    body = change.replace("\n", "\n    ")
    source = f"import deepseek as T\n{top}\n{inside}def f(x): return {expression}\ndef change():\n    {body}\n"
    exec(source, vars(module))
    f, x = deepseek.jit(module.f, verify=True), deepseek.ones(1)
    before = [f(x).item() for _ in range(3)]
    module.change()
    assert before == [module.f(x).item()] * 3 or before[0] != module.f(x).item()
    assert [f(x).item() for _ in range(3)] == [module.f(x).item()] * 3, f.explain()
    assert before[0] != module.f(x).item()


def test_an_argument_that_the_function_reaches_by_name_too() -> None:
    w, h = deepseek.ones(3), deepseek.ones(3)
    f = deepseek.jit(lambda x: x * 2 + w)
    same = deepseek.jit(lambda x: x * (2 if x is w else 1))
    part = deepseek.jit(lambda x: x.add_(1) * 0 + h.sum())
    for x in (w, deepseek.zeros(3), w, deepseek.zeros(3)):
        assert f(x).equal(x * 2 + w)
        assert same(x).equal(x * (2 if x is w else 1))
    for x in (h[:], deepseek.zeros(3), h[1:2].expand(3).clone(), h[:]):
        expected = (h.sum() + (3 if x.data_ptr() == h.data_ptr() else 0)).item()
        assert part(x)[0].item() == expected
