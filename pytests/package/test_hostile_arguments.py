"""Arguments that once ended the process or slipped through: each is a Python exception now.

`generators/test_hostile_calls.py` looks for more of them.
"""

import copy
import pickle

import deepseek as T
import numpy as np
import pytest
from deepseek import _C

HUGE = 2**40


@pytest.mark.parametrize(
    "sizes", [(-2,), (-2, 1), (-(2**63),), (HUGE, HUGE), (2**63 - 1, 2), (2**62, 2, 1), (2**31, 2**31, 2), (-1, 1)]
)
def test_expand_refuses_sizes_that_are_negative_or_too_many(sizes):
    for call in (T.Tensor.expand, T.Tensor.broadcast_to, T.broadcast_to):
        with pytest.raises(RuntimeError, match="negative|overflows|non-existing"):
            call(T.ones(1), sizes)
    assert T.ones(1).expand(-1).tolist() == [1]


def test_the_largest_sizes_are_counted():
    for sizes in [(2**62,), (2**31, 2**31), (2**63 - 1,), (2**63 - 1, 1)]:
        t = T.ones(1).expand(sizes)
        assert t.numel() == np.prod([int(n) for n in sizes], dtype=object)
        assert t.stride() == (0,) * len(sizes) or sizes[-1] == 1
        with pytest.raises(RuntimeError, match="nbytes"):
            _ = t.nbytes
    assert T.ones(1).expand(2**62)[1 :: 2**61].shape == (2,)
    assert T.ones(0, 1, 1).expand(0, HUGE, HUGE).numel() == 0
    assert T.ones(1).expand(HUGE).reshape(2**20, -1).shape == (2**20, 2**20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: T.ones(1).expand(2**32).unsqueeze(0).expand(2**32, 2**32),
        lambda: T.meshgrid(T.ones(1).expand(HUGE), T.ones(1).expand(HUGE)),
        lambda: T.broadcast_tensors(T.ones(1, 1).expand(HUGE, 1), T.ones(1, 1).expand(1, HUGE)),
        lambda: T.ones(1).as_strided((HUGE, HUGE), (0, 0)),
        lambda: T.ones(1).as_strided((2,), (2**62,)),
        lambda: T.ones(1).as_strided((3,), (2**62,)),
        lambda: T.ones(4).as_strided((5,), (2**62,)),  # 4 * 2**62 is 0 in 64 bits
        lambda: T.ones(1).as_strided((1,), (1,), 2**62),
        lambda: T.ones(4)[1:].as_strided((2, 2), (-(2**63), 1), 0),
        lambda: T.ones(1).as_strided((-1,), (1,)),
        lambda: T.ones(3).unfold(0, -1, 1),
        lambda: T.ones(0).view(HUGE, HUGE),
        lambda: T.Size([HUGE, HUGE]).numel(),
        lambda: T.ones(1).expand(HUGE, 1) + T.ones(1, 1).expand(1, HUGE),
    ],
)
def test_views_that_no_memory_or_number_can_hold_are_refused_where_they_are_made(make):
    with pytest.raises((RuntimeError, MemoryError)):
        make()


def test_strides_without_elements_may_be_anything():
    t = T.ones(4).as_strided((1, 1), (2**62, -(2**63)))
    assert t.numel() == 1 and t.sum().item() == 1
    assert t.diagonal(-(2**63)).shape == (0,) and t.diagonal(2**63 - 1).shape == (0,)
    assert T.ones(3).unfold(0, 2, 2**62).tolist() == [[1, 1]]


class Raises:
    def __init__(self, error):
        self.error = error

    def fail(self, *args):
        raise self.error

    __index__ = __float__ = __int__ = __bool__ = __len__ = __str__ = __repr__ = fail


@pytest.mark.parametrize(
    "call",
    [
        lambda o: T.ones(3)[o],
        lambda o: T.ones(3).size(o),
        lambda o: T.ones(3).stride(o),
        lambda o: T.ones(3).view(o),
        lambda o: T.ones(3).expand((o,)),
        lambda o: T.ones(3).requires_grad_(o),
        lambda o: T.ones(3, requires_grad=o),
        lambda o: T.full((1,), o),
        lambda o: T.ones(3) + o,
        lambda o: T.ones(3, device=o),
        lambda o: T.sum(T.ones(3), dim=o),
    ],
)
def test_what_an_argument_raises_is_raised(call):
    with pytest.raises(KeyboardInterrupt):
        call(Raises(KeyboardInterrupt()))
    with pytest.raises((ZeroDivisionError, TypeError, IndexError, RuntimeError)):
        call(Raises(ZeroDivisionError()))


def test_names_of_arguments_that_are_no_utf8():
    for f in (T.tensor, T.manual_seed, _C._grad_fn, T.add, T.ones(1).requires_grad_, T.ones(1).copy_, T.Generator):
        with pytest.raises((TypeError, UnicodeEncodeError)):
            f(1, **{"\ud800": 1})
    with pytest.raises(UnicodeEncodeError):
        T.nn.functional.gelu(T.ones(1), "\ud800")


def test_more_keywords_than_64():
    with pytest.raises(TypeError, match="70 keyword arguments"):
        T.sum(T.ones(1), **{f"k{i}": 1 for i in range(70)})


def test_methods_take_their_arguments_by_name():
    t = T.zeros(2)
    assert t.copy_(src=T.ones(2), non_blocking=True).tolist() == [1, 1]
    assert t.requires_grad_(requires_grad=False).requires_grad is False
    for call in (lambda: t.copy_(T.ones(2), other=1), lambda: t.copy_(1, src=1), lambda: t.requires_grad_(on=1)):
        with pytest.raises(TypeError, match="keyword|multiple"):
            call()


def test_make_subclass_wants_a_subclass():
    for kind in (int, object, type, dict):
        with pytest.raises(TypeError, match="no subclass of Tensor"):
            T.Tensor._make_subclass(kind, T.ones(1))


def test_lists_that_change_while_they_are_read():
    class Grows(list):
        def __len__(self):
            self.append(1.0)
            return list.__len__(self)

    class Fails(list):
        def __len__(self):
            raise ZeroDivisionError

    class Deepens(list):
        calls = 0

        def __getitem__(self, i):
            Deepens.calls += 1
            return 1.0 if Deepens.calls <= 2 else [1.0, 2.0]

    with pytest.raises(ValueError, match="while it was read"):
        T.tensor(Grows([1.0]))
    with pytest.raises(ZeroDivisionError):
        T.tensor([Fails([1.0])])
    with pytest.raises(ValueError, match="while it was read"):
        T.tensor(Deepens([1.0, 2.0]))
    sizes = [2, 2]

    class Clears:
        def __index__(self):
            sizes.clear()
            return 2

    sizes[0] = Clears()
    with pytest.raises(RuntimeError, match="invalid for input of size 4"):  # one size is left, 2
        T.ones(4).view(sizes)


def test_ranges():
    for make in (T.tensor, T.as_tensor, T.Tensor):
        with pytest.raises((MemoryError, RuntimeError)):
            make(range(2**62))
    assert T.tensor(range(3)).dtype == T.int64
    assert T.tensor([range(2), range(2, 4)]).tolist() == [[0, 1], [2, 3]]
    assert T.tensor(range(0)).shape == (0,)
    with pytest.raises(ValueError, match="got a number"):
        T.tensor([[[1, 2]], range(1)])


def test_arrays_that_lie_about_their_memory():
    class Lies(np.ndarray):
        shape = property(lambda self: (10**9,))
        strides = property(lambda self: (10**9,))

    a = np.arange(4.0).view(Lies)
    assert T.from_numpy(a).tolist() == [0, 1, 2, 3]
    assert T.tensor(a).tolist() == [0, 1, 2, 3]
    T.from_numpy(a)[0] = 7
    assert np.asarray(a)[0] == 7


def test_numbers_beyond_64_bits_inside_numpy_like_scalars():
    class Large:
        def __index__(self):
            return 2**70

    with pytest.raises(RuntimeError, match="overflow"):
        T.ones(1) + Large()


def test_pickling_objects_of_the_extension_is_refused():
    node = (T.ones(1, requires_grad=True) * 2).grad_fn
    for thing in (node, next(iter(_C.op_table().values())), _C.Saved(T.ones(1), -1)):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises((TypeError, RuntimeError)):
                pickle.dumps(thing, protocol)
        with pytest.raises((TypeError, RuntimeError)):
            copy.copy(thing)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("_layer_norm", (T.tensor(1.0), None, None, 1e-5)),
        ("_layer_norm", (T.ones(2, 3), T.ones(4), None, 1e-5)),
        ("_layer_norm_backward", (T.ones(3), T.ones(2, 3), T.ones(2), T.ones(2), None, None, 1e-5)),
        ("_layer_norm_backward", (T.ones(2, 3), T.ones(2, 3), T.ones(0), T.ones(2), None, None, 1e-5)),
        ("_rms_norm", (T.tensor(1.0), None, 1e-5)),
        ("_rms_norm", (T.ones(2, 3), T.ones(2), 1e-5)),
        ("_rms_norm_backward", (T.ones(2, 3), T.ones(2, 3), T.ones(1), None, None, 1e-5)),
        ("_cross_entropy_backward", (T.ones(2), T.ones(2, 3), T.tensor([0, 5]), None, T.ones(2), -1, 0.0)),
        ("_cross_entropy_backward", (T.ones(1), T.ones(2, 3), T.tensor([0, 1]), None, T.ones(2), -1, 0.0)),
        ("_embedding_backward", (T.ones(2, 3), T.tensor([0, 9]), 4, -1)),
        ("_embedding_backward", (T.ones(2, 3), T.tensor([0, 1, 1]), 4, -1)),
        ("_as_strided_scatter", (T.ones(4), T.ones(2), [2, 2], [1], 0)),
        ("_as_strided_scatter", (T.ones(4), T.ones(3), [2], [1], 0)),
    ],
)
def test_ops_behind_the_public_ones_check_what_they_are_given(op, arguments):
    with pytest.raises((RuntimeError, IndexError)):
        _C.op_call(op, *arguments)


def test_private_functions_of_the_jit_check_what_they_are_given():
    for call in (
        lambda: _C._jit_call(3, (), {}),
        lambda: _C._jit_call([3], (), {}),
        lambda: _C._jit_call([(1, 2)], (), {}),
        lambda: _C._jit_call([], 3, {}),
        lambda: _C._jit_record(len, 3, {}, None, False),
        lambda: _C._jit_host(len, (), 3),
    ):
        with pytest.raises(TypeError):
            call()


def test_a_list_that_its_entry_empties():
    """To ask whether an entry is a number runs code of its class."""
    entries = []

    class Emptying(type):
        def __getattr__(cls, name):
            entries.clear()
            raise AttributeError(name)

    class Number(metaclass=Emptying):
        def __float__(self):
            return 1.0

    entries[:] = [Number()]
    with pytest.raises(TypeError):
        T.cat(entries)
    p, grad, mean, square = (T.full((1,), 0.5) for _ in range(4))
    entries[:] = [Number()]  # how many steps the parameter has taken
    options = {"eps": 1e-8, "weight_decay": 0.0, "decoupled": True, "maximize": False}
    _C._adam_step([p], [grad], [mean], [square], [], [], entries, 0.1, 1.0, beta1=0.9, beta2=0.9, **options)
    assert p.item() < 0.5
