"""Pieces of programs for ``jit_programs``: what a captured function may do, and how the program changes between calls.

A piece has a ``top`` (module level), a ``body`` (in the function, where ``v`` is a tensor of three numbers, ``x`` the
argument, ``w`` a leaf that requires grad and ``out`` a list that is returned) and statements that ``change`` the
program between calls. ``#`` stands for a number of its own, ``@`` for a small random number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    body: str
    top: str = ""
    change: tuple[str, ...] = ()
    pure: bool = False  # a program made only of such pieces must be replayed


def p(body: str, top: str = "", *change: str, pure: bool = False) -> Piece:
    return Piece(body, top, change, pure)


TENSORS = [
    p("v = v * 2 + 1", pure=True),
    p("v = (v + T.tensor([1.0, 2.0, @])).tanh()", pure=True),
    p("c# = T.tensor([1.0, 2.0, 3.0])\nc#.add_(v)\nv = c# * 1", pure=True),
    p("t# = T.tensor(0.0)\nfor e# in v:\n    t# += e#.sum()\nv = v + t#", pure=True),
    p("c# = T.tensor([0.0, 0.0, 0.0])\nd# = c#[1:]\nd#.add_(1)\nout.append(c#)", pure=True),
    p("out.append(T.tensor([@]))", pure=True),
    p("c# = T.tensor([1.0, @, 2.0])\nout.append(c#[:2])\nv = v + c#", pure=True),
    p("c# = T.tensor([@, @, 3.0])\nw.grad = c#\nw.grad.add_(1)", pure=True),
    p("l# = T.tensor([1.0, 2.0, @], requires_grad=True)\n(l# * v).sum().backward()\nout.append(l#.grad)"),
    p("l# = T.ones(3, requires_grad=True)\nout.append(T.autograd.grad((l# * v).sum(), l#)[0])"),
    p("v = v.detach().clone().requires_grad_()"),
    p("c# = T.tensor([1, 2, 3])\nc#[0] = 5\nv = v * c#", pure=True),
    p("c# = T.tensor(@)\nc#.mul_(2)\nv = v * c#.item()", pure=True),
    p("v = v[T.tensor([2, 0, 1])]", pure=True),
    p("v = T.where(v > @, v, v * 0.5)", pure=True),
    p("z# = T.zeros(3)\nz#[:] = v\nz#[1] = @\nv = z#", pure=True),
    p("x.add_(1)", pure=True),
    p("x[0] = @\nv = v + x", pure=True),
    p("v = T.cat([v[:1], v[1:] * @])", pure=True),
    p("n# = T.ones(3, dtype=T.int64) // (x > @).long()[:3]\nv = v + n#"),
    p(
        "try:\n    n# = T.ones(3, dtype=T.int64) // (x > @).long()\n"
        "except Exception as e:\n    out.append(str(e))\n    v = v * 3"
    ),
    p("try:\n    v = v + T.ones(4)\nexcept RuntimeError as e:\n    out.append(type(e).__name__)"),
    p("u# = T.ones(3, dtype=T.int64) // (x > @).long()"),
    p("v = v + T.rand(3)", pure=True),
    p("v = F.dropout(v, 0.5, training=TRAIN#)", "TRAIN# = True", "TRAIN# = not TRAIN#"),
    p("v.attribute# = @\nout.append(v.attribute#)\nout.append(hasattr(x, 'attribute#'))"),
    p("v = v + T.full((3,), @)", pure=True),
    p("b# = v.sum() > @\nif b#:\n    v = v * 2\nelse:\n    v = v - 1"),
    p("out.append(v.sum().item())"),
    p("out.append(f'{v.sum().item():.3f}')"),
    p("v = v * len(x)", pure=True),
    p("v = v.to(T.float64).to(T.float32)", pure=True),
    p("out.append(v.tolist())"),
    p("v = v + x._version * 0.25"),
    p("m# = T.outer(v, v)\nm#.diagonal().add_(1)\nv = m#.sum(0)", pure=True),
    p("a#, b# = v.sort()\nv = a# + b#", pure=True),
    p("out.append((v > 0).nonzero())"),
    p("v = v + T.arange(3).sum()", pure=True),
    p("k# = [T.tensor([@]) for _ in range(2)]\nk#[0].add_(v.sum().detach())\nv = v + k#[0] + k#[1]", pure=True),
    p("v = v / T.tensor([1.0, 2.0, 4.0]).mul_(T.tensor(2.0))", pure=True),
]

STATE = [
    p("v = v + h#\nh#.copy_(v.detach())", "h# = T.zeros(3)", pure=True),
    p("v = h# * 2 + v\nh#.copy_(w * x.detach()[:3])", "h# = T.zeros(3)", "h#.detach_()", "h# = T.zeros(3)"),
    p("h#.add_(x)\nv = v + h#", "h# = T.zeros(3)", "h#.zero_()", pure=True),
    p("h#.mul_(w)\nv = v + h#.sum()", "h# = T.ones(3)", "h# = T.ones(3)"),
    p("h#[1:] += v[1:].detach()\nv = v + h#", "h# = T.zeros(3)", "h#[0] = @", pure=True),
    p("g#.mul_(2)\nv = v + h#[:3]", "h# = T.ones(4)\ng# = h#[1:]", "h#.fill_(1)", "g# = h#[:3]", pure=True),
    p("h#.data = v.detach() * 2\nv = v + h#", "h# = T.zeros(3)"),
    p("v = v * w", "", "w.requires_grad_(not w.requires_grad)", pure=True),
    p("v = v + (w.grad if w.grad is not None else 0)", "", "w.grad = None", "w.grad = T.ones(3)"),
    p("(w * v.detach()).sum().backward()", "", "w.grad = None", pure=True),
    p("w.grad = None\n(w * v.detach()).sum().backward()\nv = v + w.grad", pure=True),
    p("(g#,) = T.autograd.grad((w * v.detach()).pow(2).sum(), w)\nv = v + g#", pure=True),
    p("h# = v.detach().mul(2)\nw.grad = h#\nh#.add_(1)", pure=True),
    p("v = v + getattr(h#, 'extra', 0)", "h# = T.zeros(3)", "h#.extra = @", "h#.__dict__.clear()"),
    p("v = v + h#.extra", "h# = T.zeros(3)\nh#.extra = 1.0", "h#.extra = @"),
    p("v = v + (2 if h#.requires_grad else 1)", "h# = T.zeros(3)", "h#.requires_grad_()", pure=True),
    p("with T.no_grad():\n    w.mul_(0.5)\nv = v * w", pure=True),
    p("h#.copy_(T.tensor([1.0, @, 2.0]))\nout.append(h#)", "h# = T.zeros(3)", "h#.add_(1)", pure=True),
    p(
        "o#.zero_grad()\n(w * x.detach()).sum().backward()\no#.step()",
        "o# = T.optim.SGD([w], lr=0.25)",
        "o#.param_groups[0]['lr'] = @",
        pure=True,
    ),
    p("v = v * o#.param_groups[0]['lr']", "o# = T.optim.SGD([w], lr=0.25)", "o#.param_groups[0]['lr'] = @"),
    p("try:\n    h#.add_(1)\n    n# = T.ones(3, dtype=T.int64) // (x > @).long()\n"
      "except RuntimeError:\n    h#.add_(10)", "h# = T.zeros(3)"),
    p("try:\n    h#.add_(1)\n    v = v + x.sum()\nfinally:\n    h#.mul_(2)", "h# = T.zeros(3)"),
]  # fmt: skip

PYTHON = [
    p("v = v * G#", "G# = 2.0", "G# = @", pure=True),
    p("v = v * d#(v)", "def d#(a, k=2.0):\n    return k", "d#.__defaults__ = (@,)", pure=True),
    p("v = v * d#(v)", "def d#(a, *, k=2.0):\n    return k", "d#.__kwdefaults__ = {'k': @}",
      "d#.__kwdefaults__['k'] = @", pure=True),
    p("v = d#(v)", "def d#(a):\n    return a * 2\ndef e#(a):\n    return a * 3",
      "d#.__code__, e#.__code__ = e#.__code__, d#.__code__", "d# = e#", pure=True),
    p("v = v * d#()", "def d#(acc=[]):\n    acc.append(1)\n    return len(acc)"),
    p("v = v * d#()", "def d#(acc=[1.0]):\n    return acc[0]", "d#.__defaults__[0][0] = @", pure=True),
    p("v = v * d#.scale", "def d#():\n    pass\nd#.scale = 2.0", "d#.scale = @", pure=True),
    p("v = v * n#.scale", "n# = argparse.Namespace(scale=2.0)", "n#.scale = @", "n# = argparse.Namespace(scale=@)",
      "n#.other = 1", pure=True),
    p("v = v * n#.scale", "n# = types.SimpleNamespace(scale=2.0)", "n#.scale = @", pure=True),
    p("for k# in d#:\n    v = v * 2 - d#[k#]", "d# = {'a': 1.0, 'b': 2.0}", "d#['a'] = d#.pop('a')", "d#['b'] = @",
      "d#['c'] = @", "d#.pop('b', 0)", pure=True),
    p("for k#, e# in d#.items():\n    v = v * 2 - e#", "d# = collections.OrderedDict(a=1.0, b=2.0)",
      "d#.move_to_end('a')", "d#['b'] = @", pure=True),
    p("v = v * d#['k']", "d# = collections.defaultdict(lambda: 2.0)", "d#['k'] = @"),
    p("v = v * 2 if 1 in s# else v", "s# = {1, 2}", "s#.discard(1)", "s#.add(1)", pure=True),
    p("v = v * max(s#)", "s# = frozenset([1.0, 2.0])", "s# = frozenset([@])", pure=True),
    p("v = v * q#[0]", "q# = collections.deque([1.0, 2.0])", "q#.rotate()", "q#.appendleft(@)", pure=True),
    p("v = v * b#[0]", "b# = bytearray(b'ab')", "b#[0] = 3", pure=True),
    p("v = v * l#[0]", "class L#(list):\n    pass\nl# = L#([2.0])", "l#[0] = @", pure=True),
    p("v = v * l#.k", "class L#(list):\n    pass\nl# = L#([2.0])\nl#.k = 1.5", "l#.k = @", pure=True),
    p("v = v * l#['a'] * l#.k", "class L#(dict):\n    k = 2.0\nl# = L#(a=1.0)", "l#['a'] = @", "l#.k = @",
      "L#.k = @", pure=True),
    p("v = v * t#.k", "class P#(tuple):\n    pass\nt# = P#((1.0,))\nt#.k = 2.0", "t#.k = @", pure=True),
    p("v = v * C#.scale", "class C#:\n    scale = 2.0", "C#.scale = @", pure=True),
    p("v = v * C#.inner['k']", "class C#:\n    inner = {'k': 2.0}", "C#.inner['k'] = @", pure=True),
    p("v = v * o#.k", "class S#:\n    __slots__ = ('k',)\no# = S#()\no#.k = 2.0", "o#.k = @", pure=True),
    p("v = v * o#.double", "K# = 2.0\nclass O#:\n    @property\n    def double(self):\n        return K# * 2\n"
      "o# = O#()", "K# = @", pure=True),
    p("v = O#.go(v)", "K# = 2.0\nclass O#:\n    @staticmethod\n    def go(a):\n        return a * K#", "K# = @",
      "O#.go = staticmethod(lambda a: a * 5)", pure=True),
    p("v = o#.go(v)", "class O#:\n    k = 1.0\n    @classmethod\n    def go(cls, a):\n        return a * cls.k\n"
      "o# = O#()", "O#.k = @", "o#.k = @", pure=True),
    p("v = o#.go(v)", "class A#:\n    def go(self, a):\n        return a * 2\nclass B#:\n    def go(self, a):\n"
      "        return a * 3\no# = A#()", "o#.__class__ = B#", "A#.go = B#.go", pure=True),
    p("v = o#.go(v)", "class A#:\n    def go(self, a):\n        return a * 2\nclass B#(A#):\n    pass\nclass D#:\n"
      "    def go(self, a):\n        return a * 4\nclass E#(D#):\n    pass\no# = B#()", "B#.__bases__ = (D#,)",
      "B#.go = lambda self, a: a", pure=True),
    p("v = v * c#(2)", "@functools.lru_cache\ndef c#(k):\n    return k * J#\nJ# = 2.0", "J# = @", "c#.cache_clear()"),
    p("c#(3).add_(1)\nv = v + c#(3)", "@functools.lru_cache\ndef c#(k):\n    return T.zeros(k)"),
    p("v = p#(v)", "p# = functools.partial(lambda a, k: a * k, k=2.0)", "p#.keywords['k'] = @", pure=True),
    p("v = o#(v)", "class O#:\n    def __init__(self, k):\n        self.k = k\n    def __call__(self, a):\n"
      "        return a * self.k\no# = O#(2.0)", "o#.k = @", "O#.__call__ = lambda self, a: a + 1", pure=True),
    p("v = v * V#.get()", "V# = contextvars.ContextVar('V#', default=2.0)", "V#.set(@)"),
    p("V#.set(V#.get() + 1)", "V# = contextvars.ContextVar('V#', default=2.0)"),
    p("v = v * random.random()"),
    p("v = v * R#.random()", "R# = random.Random(7)"),
    p("v = v * rand#()", "from random import random as rand#"),
    p("print('called', v.sum().item())"),
    p("print('called')"),
    p("list(map(print, [1, 2]))"),
    p("log#('hello')", "log# = print"),
    p("say#[0]('hello')", "say# = [print]"),
    p("v = v * float(os.environ.get('DS_TEST_#', '2'))", "", "os.environ['DS_TEST_#'] = '3'"),
    p("v = v * next(i#)", "i# = itertools.count(1)"),
    p("v = v * next(i#)", "i# = (k for k in range(1, 100))"),
    p("v = v * L#.k", "L# = threading.local()\nL#.k = 2.0", "L#.k = @"),
    p("global N#\nN# += 1\nv = v * N#", "N# = 0"),
    p("v = v * n#()", "def make#():\n    n = 0\n    def inc():\n        nonlocal n\n        n += 1\n        return n\n"
      "    return inc\nn# = make#()"),
    p("v = v * a#.get()", "class A#:\n    k = 1\n    def get(self):\n        self.k += 1\n        return self.k\n"
      "a# = A#()"),
    p("S#.append(v.detach())\nv = v + S#[0]", "S# = []"),
    p("S#.append(1)\nv = v * len(S#)", "S# = collections.deque()"),
    p("if v.sum() > @:\n    raise ValueError('big')"),
    p("try:\n    raise KeyError('k')\nexcept KeyError as e:\n    out.append(repr(e))", pure=True),
    p("with contextlib.suppress(RuntimeError):\n    v = v + T.ones(3, dtype=T.int64) // (x > @).long()\n    v = v * 2"),
    p("v = v * sum([1, 2])", "", "sum = lambda xs: 7", pure=True),
    p("v = v * (2 if 'LATE#' in globals() else 3)", "", "LATE# = 1"),
    p("try:\n    v = v * LATE#\nexcept NameError:\n    v = v * 3", "", "LATE# = 5.0"),
    p("v = v * getattr(sys.modules[__name__], 'K#')", "K# = 2.0", "K# = @"),
    p("v = v * me.K#", "K# = 2.0\nimport program as me", "K# = @", pure=True),
    p("v = v * getattr(me, 'K' + '#')", "K# = 2.0\nimport program as me", "K# = @"),
    p("import program as me#\nv = v * me#.K#", "K# = 2.0", "K# = @", pure=True),
    p("v = v * eval('K#')", "K# = 2.0", "K# = @"),
    p("out.append(type(x).__name__)", pure=True),
    p("out.append(P#(v, 1))", "P# = collections.namedtuple('P#', 'a b')", pure=True),
    p("v = v * D#(2.0).k", "@dataclasses.dataclass\nclass D#:\n    k: float = 1.0", "D#.k = 5.0", pure=True),
    p("v = v * e#.value", "class E#(enum.Enum):\n    A = 2\n    B = 3\ne# = E#.A", "e# = E#.B", pure=True),
    p("v = v * sorted([3, 1, 2], key=lambda k: -k * G#)[0]", "G# = 1", "G# = -1", pure=True),
    p("v = v * functools.reduce(lambda a, b: a * b, [1, G#])", "G# = 2", "G# = 3", pure=True),
    p("d#['n'] = d#.get('n', 0) + 1\nv = v * d#['n']", "d# = {}"),
    p("del d#['n']\nd#['n'] = 1.0\nfor k# in d#:\n    v = v * 2 - d#[k#]", "d# = {'n': 1.0, 'm': 2.0}"),
    p("d#.x = 1\ndel d#.x", "d# = types.SimpleNamespace(y=1)", pure=True),
    p("np#.append(3)\nnp#.pop()", "np# = [1, 2]", pure=True),
    p("v = v * float(a#[0])", "a# = np.array([2.0, 3.0])", "a#[0] = @"),
    p("v = v * memoryview(b#)[0]", "b# = bytearray(b'ab')", "b#[0] = 3", pure=True),
    p("out.append(x is y)", pure=True),
    p("kw['tag'] = 1\nv = v * len(kw)", pure=True),
    p("v = v * math.sqrt(G#)", "G# = 4.0", "G# = @", pure=True),
    p("v = v * wr#().k", "class W#:\n    k = 1.0\nkeep# = W#()\nwr# = weakref.ref(keep#)", "keep#.k = @"),
    p("v = v * (r.k if (r := wr#()) else -1)", "class W#:\n    k = 1.0\nkeep# = W#()\nwr# = weakref.ref(keep#)",
      "keep# = None"),
    p("v = v * len(wt#)", "class W#:\n    pass\nkeep# = W#()\nwt# = weakref.WeakValueDictionary(k=keep#)",
      "keep# = None"),
    p("v = v * np.sqrt(x.shape[-1]) * np.float32(G#)", "G# = 2.0", "G# = @", pure=True),
    p("v = v * N#", "N# = np.float64(2)", "N# = np.float64(@)", pure=True),
    p("warnings.warn('careful')"),
    p("with lock#:\n    v = v + 1", "lock# = threading.Lock()", pure=True),
    p("v = v * (time#() * 0 + 2)", "from time import perf_counter as time#"),
    p("v = f#(v)", "f# = functools.wraps(len)(lambda a: a * KK#)\nKK# = 2.0", "KK# = @", pure=True),
    p("v = v + ex#.args[0]", "ex# = ValueError(1.0)", "ex#.args = (@,)"),
    p("v = v * mp#['a']", "mpd# = {'a': 2.0}\nmp# = types.MappingProxyType(mpd#)", "mpd#['a'] = @"),
    p("v = v * len(sys.argv)", "", "sys.argv.append('x')"),
]  # fmt: skip

MODULES = [
    p("v = m#(v)", "m# = nn.Linear(3, 3)", "m#.weight = nn.Parameter(T.ones(3, 3))",
      "with T.no_grad(): m#.bias.add_(1)", "m#.weight.requires_grad_(False)", pure=True),
    p("v = m#(v)", "class M#(nn.Module):\n    k = 1.0\n    def __init__(self):\n        super().__init__()\n"
      "        self.scale = 2.0\n        self.register_buffer('b', T.zeros(3))\n    def forward(self, a):\n"
      "        self.b.add_(1)\n        return a * self.scale * self.k + self.b\nm# = M#()", "m#.scale = @", "M#.k = @",
      "m#.b = T.ones(3)", "m#.forward = lambda a: a", pure=True),
    p("v = m#(v)", "m# = nn.Sequential(nn.Tanh(), nn.Dropout(0.5))", "m#.eval()", "m#.train()",
      "m#.append(nn.Sigmoid())", "m#[0] = nn.ReLU()", pure=True),
    p("v = m#(v)", "m# = nn.Tanh()\nm#.register_forward_hook(lambda mod, a, r: r * 2)",
      "m#.register_forward_hook(lambda mod, a, r: r + 1)", "m#._forward_hooks.clear()", pure=True),
    p("v = m#(v)", "m# = nn.Tanh()\nm#.register_forward_hook(lambda mod, a, r: print('hook'))",
      "m#._forward_hooks.clear()"),
    p("v = m#(v)", "m# = nn.Tanh()", "m#.register_forward_hook(lambda mod, a, r: print('hook'))",
      "m#.register_forward_pre_hook(lambda mod, a: (a[0] * 2,))"),
    p("(w * v.detach()).sum().backward()", "",
      "w.register_hook(lambda g: g * 2)", "w.register_hook(lambda g: print('grad'))",
      "w.register_post_accumulate_grad_hook(lambda t: print('done'))"),
    p("hk# = w.register_hook(lambda g: g * 2)\n(w * v.detach()).sum().backward()\nhk#.remove()"),
    p("v.register_hook(lambda g: g * 3) if v.requires_grad else None"),
    p("v = Q#.apply(v)",
      "class Q#(T.autograd.Function):\n    @staticmethod\n    def forward(ctx, a):\n        return a * 2\n"
      "    @staticmethod\n    def backward(ctx, g):\n        return g * 5"),
    p("(g#,) = T.autograd.grad(Q#.apply(w * v.detach()).sum(), w)\nv = v + g#",
      "class Q#(T.autograd.Function):\n    @staticmethod\n    def forward(ctx, a):\n        return a * 2\n"
      "    @staticmethod\n    def backward(ctx, g):\n        return g * B#\nB# = 5.0", "B# = @"),
    p("o#.zero_grad()\nm#(v.detach()).sum().backward()\no#.step()\nl#.step()",
      "m# = nn.Linear(3, 2)\no# = T.optim.Adam(m#.parameters(), lr=0.1)\n"
      "l# = T.optim.lr_scheduler.StepLR(o#, 2, gamma=0.5)", "o#.param_groups[0]['lr'] = 0.3", pure=True),
    p("o#.zero_grad()\nm#(v.detach()).sum().backward()\no#.step()\nv = v * l#.get_last_lr()[0]\nl#.step()",
      "m# = nn.Linear(3, 2)\no# = T.optim.SGD(m#.parameters(), lr=0.1)\n"
      "l# = T.optim.lr_scheduler.StepLR(o#, 1, gamma=0.5)"),
    p("o#.zero_grad()\n(w * u# * v.detach()).sum().backward()\no#.step()",
      "u# = T.ones(3, requires_grad=True)\no# = T.optim.SGD([w], lr=0.25)",
      "o#.add_param_group({'params': [u#]}) if len(o#.param_groups) == 1 else None"),
]  # fmt: skip

MORE = [
    p("out.append(x is w)", pure=True),
    p("h# = v.detach() * 1\nw.grad = h#\nh#.mul_(3)\nw.grad.add_(1)", pure=True),
    p("out.append(h#)\nh#.add_(x.detach())", "h# = T.zeros(3)", pure=True),
    p("out.append(h#[1:])", "h# = T.zeros(3)", "h#.fill_(@)", pure=True),
    p("v = v + h# * 1\nw.grad = h#", "h# = T.ones(3)", "h#.add_(1)", pure=True),
    p("for t# in L#:\n    v = v + t#", "L# = [T.ones(3), T.zeros(3)]", "L#.append(T.ones(3) * @)", "L#.reverse()",
      "L#[0].add_(1)", pure=True),
    p("v = v + P#[0] + P#[1]['k']", "P# = (T.ones(3), {'k': T.zeros(3)})", "P#[1]['k'] = T.ones(3)",
      "P#[0].mul_(2)", pure=True),
    p("T.manual_seed(3)\nv = v + T.rand(3)"),
    p("T.set_grad_enabled(False)\nv = v + 1\nT.set_grad_enabled(True)", pure=True),
    p("with T.inference_mode():\n    q# = v.detach() * 2\nout.append(q# + 0)"),
    p("g# = T.autograd.grad((w * w * w).sum(), w, create_graph=True)[0]\nv = v + g#", pure=True),
    p("g# = T.autograd.grad((w ** 3).sum(), w, create_graph=True)[0]\ng#.sum().backward()", pure=True),
    p("i# = x.detach().long()[0]\nv = v + T.arange(4.0)[i#]"),
    p("v = v + F.embedding(x.detach()[:3].long(), T.ones(3, 3)).sum()"),
    p("i# = x.detach().long()\ntry:\n    v = v + T.arange(2.0)[i#[:3]]\nexcept IndexError:\n    v = v + 100"),
    p("T.ones(2)[x.detach().long()]"),
    p("n# = 0\nwhile v.sum() > 3 and n# < 3:\n    v = v - 1\n    n# += 1\nout.append(n#)"),
    p("def rec#(a, n):\n    return a if n == 0 else rec#(a * 2, n - 1)\nv = rec#(v, D#)", "D# = 2",
      "D# = 1", pure=True),
    p("def gen#():\n    for k in range(2):\n        yield v * k\nfor e# in gen#():\n    v = v + e#", pure=True),
    p("v = v + sum([K# * e for e in (1, 2)])", "K# = 2.0", "K# = @", pure=True),
    p("n# = 0\ndef inc#():\n    nonlocal n#\n    n# += 1\n    return n#\nv = v * inc#() * inc#()", pure=True),
    p("v = (lambda a, k=K#: a * k)(v)", "K# = 2.0", "K# = @", pure=True),
    p("v = de#(v)", "def twice(g):\n    def run(a):\n        return g(g(a))\n    return run\n@twice\ndef de#(a):\n"
      "    return a * K#\nK# = 1.5", "K# = @", pure=True),
    p("class Z#:\n    k = K#\nv = v * Z#.k", "K# = 2.0", "K# = @", pure=True),
    p("match K#:\n    case 1:\n        v = v * 2\n    case _:\n        v = v * 3", "K# = 1", "K# = 2", pure=True),
    p("v = v * A#.anything", "class AA#:\n    def __getattr__(self, name):\n        return K#\nA# = AA#()\nK# = 2.0",
      "K# = @", "AA#.anything = 5.0", "A#.anything = 3.0", pure=True),
    p("v = v * A#[0] * len(A#)",
      "class AA#:\n    def __getitem__(self, i):\n        return K#\n    def __len__(self):\n"
      "        return 2\nA# = AA#()\nK# = 2.0", "K# = @", "AA#.__len__ = lambda self: 3", pure=True),
    p("A#.n += 1\nv = v * A#.n", "class AA#:\n    n = 0\nA# = AA#()"),
    p("with A#:\n    v = v * 2\n    v = v + T.ones(3, dtype=T.int64) // (x.detach() > @).long()[:3]",
      "class AA#:\n    def __enter__(self):\n        pass\n    def __exit__(self, *e):\n        return True\n"
      "A# = AA#()"),
    p("v = v * A#.lazy",
      "class AA#:\n    @functools.cached_property\n    def lazy(self):\n        return K#\nA# = AA#()\n"
      "K# = 2.0", "K# = @", "A#.__dict__.pop('lazy', None)"),
    p("if not hasattr(A#, 'made'):\n    A#.made = v.detach()\nv = v + A#.made", "A# = types.SimpleNamespace()",
      "A#.__dict__.clear()"),
    p("v = v * copy.deepcopy(C#)['k'][0]", "import copy\nC# = {'k': [2.0]}", "C#['k'][0] = @", pure=True),
    p("v = v + T.tensor([K#, 1.0, 2.0])", "K# = 2.0", "K# = @", pure=True),
    p("v = v + T.tensor(N#)", "N# = [1.0, 2.0, 3.0]", "N#[0] = @", pure=True),
    p("v = v + h#.data", "h# = T.ones(3, requires_grad=True)", "h#.data.add_(1)", "h#.data = T.zeros(3)", pure=True),
    p("q# = w * v.detach()\nq#.retain_grad()\nq#.sum().backward()\nout.append(q#.grad)"),
    p("out.append(v.grad_fn is None)"),
    p("out.append((v.is_leaf, v.requires_grad, v.dtype, tuple(v.shape)))", pure=True),
    p("S#.k = K#\nv = v * S#.k", "class S#:\n    k = 2.0\nK# = 2.0", "K# = @"),
    p("assert x.shape[-1] == 3\nv = v * 2", pure=True),
    p("out.append(str(v.detach()))"),
    p("v = v.numpy() if False else v", pure=True),
    p("v = v + T.from_numpy(np.ones(3, dtype=np.float32))"),
    p("out.append(v.detach().numpy().copy().tolist())"),
    p("sys.modules['program'].Q# = 1"),
    p("setattr(n#, 'k', n#.k + 1)\nv = v * n#.k", "n# = types.SimpleNamespace(k=1)"),
    p("v = v * n#.__dict__['k']", "n# = types.SimpleNamespace(k=1.5)", "n#.k = @", pure=True),
    p("n#.__dict__['k'] = n#.__dict__['k'] + 1\nv = v * n#.k", "n# = types.SimpleNamespace(k=1)"),
    p("c#.append(1) if len(c#) < 3 else c#.clear()\nv = v * (1 + len(c#))", "c# = []"),
    p("v = v * 2\nreturn v, T.tensor([@])"),
    p("v = v * T.get_num_threads()"),
    p("out.append(T.initial_seed())"),
    p("v = v + T.randn(3, generator=g#)", "g# = T.Generator().manual_seed(3)"),
    p("v = v * x.detach().max().item()"),
    p("x.requires_grad_(True) if x.is_leaf else None"),
    p("w.detach_()", "", "w.requires_grad_(True)"),
    p("v = m#(v)\nm#.weight.data.mul_(0.5)", "m# = nn.Linear(3, 3)", pure=True),
    p("m#.train(not m#.training)\nv = m#(v)", "m# = nn.Dropout(0.5)"),
    p("for q# in m#.parameters():\n    v = v + q#.sum()", "m# = nn.Linear(3, 3)", "m#.extra = nn.Parameter(T.ones(3))",
      "del m#.bias\nm#.bias = None", pure=True),
    p("v = v + len(list(m#.children()))", "m# = nn.Sequential(nn.Tanh())", "m#.append(nn.Tanh())", pure=True),
    p("sd# = m#.state_dict()\nv = v + sd#['weight'].sum()", "m# = nn.Linear(3, 3)",
      "m#.weight.data.fill_(@)", pure=True),
    p("m#.load_state_dict({'weight': T.ones(3, 3), 'bias': v.detach()[:3]})\nv = m#(v)", "m# = nn.Linear(3, 3)"),
    p("nn.utils.clip_grad_norm_([w], 1.0) if w.grad is not None else None"),
    p("nn.init.ones_(h#)\nv = v + h#\nh#.mul_(3)", "h# = T.zeros(3)", pure=True),
    p("v = host#(v) + 1", "@T.jit.disable\ndef host#(a):\n    LOG#.append(1)\n    return a * 2\nLOG# = []", pure=True),
    p("try:\n    v = host#(v)\nexcept ValueError:\n    v = v * 9",
      "@T.jit.disable\ndef host#(a):\n    if a.sum() > 1:\n        raise ValueError\n    return a * 2"),
    p("v = inner#(v)", "@T.jit\ndef inner#(a):\n    return a * K#\nK# = 2.0", "K# = @", pure=True),
]  # fmt: skip

# Arguments besides the first, as source: what the function does with them is in these pieces.
WITH_ARGUMENTS = [
    (p("v = v * o.k", "class Arg:\n    k = 2.0\narg = Arg()", "arg.k = @", "Arg.k = @",
      "arg = Arg()", pure=True), "o=arg"),
    (p("v = o(v)", "arg = nn.Linear(3, 3)", "arg.weight.data.fill_(@)", "arg = nn.Linear(3, 3)", pure=True), "o=arg"),
    (p("v = o(v)", "AK = 2.0\narg = lambda a: a * AK", "AK = @", "arg = lambda a: a + 1", pure=True), "o=arg"),
    (p("v = v + o[0] + o[1]", "", pure=True), "o=[T.ones(3), T.tensor([@, 1.0, 2.0])]"),
    (p("o.append(v)\nv = v * len(o)"), "o=[1, 2]"),
    (p("v = v + o['a']\no['b'] = 1"), "o={'a': T.ones(3)}"),
    (p("v = v + o['a']", pure=True), "o={'a': T.ones(3) * @}"),
    (p("o.k += 1\nv = v * o.k", "arg = types.SimpleNamespace(k=1)"), "o=arg"),
    (p("v = v + o\nv = v + h", "h = T.ones(3)", pure=True), "o=h[:]"),
    (p("o.add_(1)\nv = v + h", "h = T.ones(3)", "h.zero_()", pure=True), "o=h"),
    (p("v = v * next(o)"), "o=iter([2.0, 3.0])"),
    (p("v = v * sorted(o)[0]"), "o={2.0, 3.0}"),
    (p("v = v[o]", pure=True), "o=slice(0, 3)"),
    (p("v = v * getattr(o, 'tag', 1)"), "o=w"),
    (p("v = v + (o is l)", "l = [1.0]", "l.append(1)", pure=True), "o=random.choice([l, [1.0]])"),
    (p("v = v + (o['a'] is l)\nout.append(o)", "l = [1.0]", pure=True), "o={'a': random.choice([l, [1.0]])}"),
    (p("v = v + (o[0] is o[1])\nout.append(o[1])", pure=True), "o=random.choice([[[1.0]] * 2, [[1.0], [1.0]]])"),
    (p("T.add(v.detach(), 1, out=o)\nv = v + 1"), "o=T.zeros(random.choice([0, 3]))"),
]  # fmt: skip

# How a call is made: {0} is the call.
CONTEXTS = ["T.no_grad()", "T.autocast('cpu', dtype=T.bfloat16)", "T.inference_mode()", "T.enable_grad()"]

# Each wraps a block: {0} stands for its lines.
WRAPPERS = [
    "with T.no_grad():\n{0}",
    "with T.autocast('cpu', dtype=T.bfloat16):\n{0}",
    "for _ in range(2):\n{0}",
    "if x.shape[0] == 3:\n{0}",
    "try:\n{0}\nfinally:\n    out.append(1)",
    "with manager():\n{0}",
]

# Functions that run on every replay, and what the call makes for them.
_RUN = """@T.jit.disable
def run#(g, *a):
    return g(*a)
class H#:
    def __init__(self, x):
        self.x = x
    def get(self):
        return self.x * 2
K# = H#(T.ones(3))"""
_CLOSURE = """o# = T.optim.SGD([w], lr=0.25)
X# = T.ones(3)
def cl#():
    o#.zero_grad()
    l = (w * X#).sum()
    l.backward()
    return None"""
HOSTED = [
    p("v = run#(lambda: v * 3)", _RUN),
    p("v = run#(lambda a=v: a * 3)", _RUN),
    p("v = run#(functools.partial(T.mul, v.detach(), 2))", _RUN),
    p("v = run#(H#(v).get)", _RUN),
    p("v = run#(H#.get, H#(v))", _RUN),
    p("v = run#(lambda o: o[0].x * 2, [H#(v)])", _RUN),
    p("v = T.jit.disable(lambda: v * 3)()"),
    p("v = run#(sum, (v * k for k in range(3)))", _RUN),
    p("v = run#(next, iter([v]))", _RUN),
    p("v = run#(sum, map(T.sin, [v, v]))", _RUN),
    p("K#.x = v\nv = run#(K#.get)\nK#.x = None", _RUN),
    p("K#.y = v\nv = v + run#(K#.get)\ndel K#.y", _RUN),
    p("v = v + run#(K#.get)", _RUN, "K#.x = T.ones(3) * @", "K#.x.add_(1)", pure=True),
    p("v = v + run#(H#.get, K#)", _RUN, "K#.x = T.ones(3) * @", pure=True),
    p("v = run#(T.mul, v, 2)", _RUN, pure=True),
    p("v = run#(T.stack, [v, v]).sum(0)", _RUN, pure=True),
    p("v = run#(v.sin)", _RUN),
    p("def cl#():\n    o#.zero_grad()\n    (w * x.detach()).sum().backward()\no#.step(cl#)",
      "o# = T.optim.SGD([w], lr=0.25)"),
    p("o#.step(cl#)", _CLOSURE, "X# = T.ones(3) * @", pure=True),
    p("X#.copy_(x.detach()[:3])\no#.step(cl#)", _CLOSURE, pure=True),
]  # fmt: skip
