"""deepseek.save and deepseek.load."""

import collections
import io
import itertools
import json
import math
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import time
import zipfile

import deepseek
import numpy as np
import pytest
from deepseek.io import safetensors
from hypothesis import given
from hypothesis import strategies as st


def reload(obj):
    buffer = io.BytesIO()
    deepseek.save(obj, buffer)
    return deepseek.load(io.BytesIO(buffer.getvalue()))


def equal(a, b) -> bool:
    """Same types, same values, floats by their bits, dicts in order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            equal(x, y) for x, y in zip(itertools.chain(*a.items()), itertools.chain(*b.items()), strict=True)
        )
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


NAN_WITH_PAYLOAD = struct.unpack("<d", bytes.fromhex("efbeadde0000f8ff"))[0]
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    10**5000,
    -(10**30),
    0.0,
    -0.0,
    1.0,
    0.1,
    1e16,
    5e-324,
    1.7976931348623157e308,
    math.inf,
    -math.inf,
    math.nan,
    NAN_WITH_PAYLOAD,
    "",
    'é𝄞"\\\n\0',
    "\ud800 alone",
    b"",
    b"\x00\xff",
    [],
    (),
    {},
    [[], ()],
    (1, [2.0, (None,)]),
    {"a": 1, "b": {"c": [True]}},
    {0: {"step": 5}, 1: {}},
    {None: 1, True: 2, 2: 3, 2.5: 4, b"k": 5, "s": 6, (1, ("a", None)): 7, -math.inf: 8},
    {"tensor": 0, "dict": {"items": []}, "": 1, "__metadata__": 2},
    {"b": 1, "a": 2},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_come_back(value):
    assert equal(reload(value), value)
    assert equal(reload({"nested": [value]}), {"nested": [value]})


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=8)
OBJECTS = st.recursive(
    SCALARS,
    lambda x: st.lists(x, max_size=4) | st.lists(x, max_size=4).map(tuple) | st.dictionaries(SCALARS, x, max_size=4),
    max_leaves=20,
)


@given(OBJECTS)
def test_any_object_comes_back(value):
    assert equal(reload(value), value)


def test_dtypes_and_sizes():
    value = {"dtype": deepseek.bfloat16, "size": deepseek.Size([2, 3])}
    loaded = reload(value)
    assert loaded["dtype"] is deepseek.bfloat16
    assert type(loaded["size"]) is deepseek.Size
    assert loaded["size"] == (2, 3)


def test_ordered_dict_becomes_dict():
    loaded = reload(collections.OrderedDict(b=1, a=2))
    assert type(loaded) is dict
    assert list(loaded.items()) == [("b", 1), ("a", 2)]


# --- tensors ----------------------------------------------------------------------------------------------------------

CODES = {
    "bool": ("BOOL", 1),
    "uint8": ("U8", 1),
    "int8": ("I8", 1),
    "int16": ("I16", 2),
    "int32": ("I32", 4),
    "int64": ("I64", 8),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "float32": ("F32", 4),
    "float64": ("F64", 8),
}


@pytest.mark.parametrize("dtype", CODES)
def test_every_dtype(dtype):
    code, size = CODES[dtype]
    header = json.dumps({"w": {"dtype": code, "shape": [2, 8 // size], "data_offsets": [0, 16]}})
    w = safetensors.load(struct.pack("<Q", len(header)) + header.encode() + bytes([1, 0] * 8))["w"]
    loaded = reload({"w": w, "empty": w[:0]})
    assert loaded["w"].dtype is getattr(deepseek, dtype)
    assert loaded["w"].shape == w.shape
    assert loaded["empty"].shape == (0, w.shape[1])
    assert safetensors.save({"w": loaded["w"]}) == safetensors.save({"w": w})


def test_one_tensor_twice_is_one_tensor():
    w = deepseek.arange(6, dtype=deepseek.float32).reshape(2, 3)
    loaded = reload({"a": w, "b": [w], 3: deepseek.arange(6)})
    assert loaded["a"] is loaded["b"][0]
    assert loaded["a"].data_ptr() != loaded[3].data_ptr()


def test_overlapping_tensors_overlap_again():
    w = deepseek.arange(12, dtype=deepseek.float32).reshape(3, 4)
    loaded = reload({"row": w[1], "w": w, "t": w.t(), "tail": w.reshape(12)[7:]})
    for name, expected in {"row": w[1], "w": w, "t": w.t(), "tail": w.reshape(12)[7:]}.items():
        assert loaded[name].stride() == expected.stride()
        np.testing.assert_array_equal(loaded[name].numpy(), expected.numpy())
    loaded["w"][1, 3] = 100.0
    assert loaded["row"].tolist() == [4, 5, 6, 100]
    assert loaded["t"].tolist()[3][1] == 100
    assert loaded["tail"].tolist()[0] == 100


def test_overlap_without_a_tensor_that_covers_it():
    w = deepseek.arange(10, dtype=deepseek.int64)
    loaded = reload([w[1:5], w[4:8]])
    loaded[0][3] = -1
    assert [t.tolist() for t in loaded] == [[1, 2, 3, -1], [-1, 5, 6, 7]]


def test_disjoint_parts_of_one_storage_are_stored_compactly(tmp_path):
    w = deepseek.arange(1_000_000, dtype=deepseek.float32)
    deepseek.save({"head": w[:2], "tail": w[-2:], "sparse": w[::500_000]}, tmp_path / "f")
    assert (tmp_path / "f").stat().st_size < 4_000_000  # `sparse` overlaps `head`: one span of half the storage
    deepseek.save({"head": w[:2], "tail": w[-2:]}, tmp_path / "f")
    assert (tmp_path / "f").stat().st_size < 1000
    deepseek.save(w[::500_000], tmp_path / "f")
    assert (tmp_path / "f").stat().st_size < 1000
    assert deepseek.load(tmp_path / "f").tolist() == [0, 500_000]


def test_dense_strides_are_kept_and_expanded_tensors_stay_small(tmp_path):
    w = deepseek.arange(6, dtype=deepseek.float32).reshape(2, 3)
    assert reload(w.t()).stride() == (1, 3)
    np.testing.assert_array_equal(reload(w.t()).numpy(), w.t().numpy())
    deepseek.save(w[:1].expand(1_000_000, 3), tmp_path / "f")
    assert (tmp_path / "f").stat().st_size < 1000
    loaded = deepseek.load(tmp_path / "f")
    assert loaded.shape == (1_000_000, 3)
    assert loaded[999_999].tolist() == [0, 1, 2]


def test_requires_grad_is_kept_and_gradients_are_not():
    w = deepseek.arange(3, dtype=deepseek.float32).requires_grad_(True)
    loaded = reload({"w": w, "x": deepseek.arange(3, dtype=deepseek.float32)})
    assert loaded["w"].requires_grad
    assert loaded["w"].is_leaf
    assert loaded["w"].grad is None
    assert not loaded["x"].requires_grad


def test_a_parameter_comes_back_as_a_tensor():
    parameter = deepseek.nn.Parameter(deepseek.arange(3, dtype=deepseek.float32))
    loaded = reload({"w": parameter})["w"]
    assert type(loaded) is deepseek.Tensor
    assert loaded.requires_grad


def test_state_dicts_of_module_and_optimizer_round_trip():
    model = deepseek.nn.Linear(3, 2)
    optimizer = deepseek.optim.AdamW(model.parameters(), lr=0.1)
    model(deepseek.ones(4, 3)).sum().backward()
    optimizer.step()
    loaded = reload({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    fresh = deepseek.nn.Linear(3, 2)
    fresh.load_state_dict(loaded["model"])
    np.testing.assert_array_equal(fresh.weight.detach().numpy(), model.weight.detach().numpy())
    other = deepseek.optim.AdamW(fresh.parameters(), lr=0.5)
    other.load_state_dict(loaded["optimizer"])
    assert list(loaded["optimizer"]["state"]) == list(optimizer.state_dict()["state"])
    for m, o in ((model, optimizer), (fresh, other)):
        o.zero_grad()
        m(deepseek.ones(4, 3)).sum().backward()
        o.step()
    np.testing.assert_array_equal(fresh.weight.detach().numpy(), model.weight.detach().numpy())


# --- the file ---------------------------------------------------------------------------------------------------------


def test_any_safetensors_reader_opens_the_file(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    w = deepseek.arange(6, dtype=deepseek.float32).reshape(2, 3)
    deepseek.save({"model": {"layers.0": [w, w.t()]}, "model.layers": {"0.0": deepseek.arange(2)}}, tmp_path / "f")
    loaded = package.load_file(tmp_path / "f")
    assert sorted(loaded) == ["model.layers.0.0", "model.layers.0.0#2"]
    np.testing.assert_array_equal(loaded["model.layers.0.0"], w.numpy())
    deepseek.save(w, tmp_path / "f")
    assert list(package.load_file(tmp_path / "f")) == ["tensor"]


def test_equal_objects_give_equal_bytes():
    def one() -> bytes:
        buffer = io.BytesIO()
        w = deepseek.arange(6)
        deepseek.save({"a": w, "b": w[2:], 1: (2.5, None)}, buffer)
        return buffer.getvalue()

    assert one() == one()


def test_load_copies_unless_mmap_is_asked_for(tmp_path):
    path = tmp_path / "f"
    deepseek.save({"w": deepseek.arange(1000)}, path)
    before = path.read_bytes()
    copied, mapped = deepseek.load(path)["w"], deepseek.load(path, mmap=True)["w"]
    deepseek.save({"w": mapped}, path)  # onto the file that is mapped
    assert path.read_bytes() == before
    mapped[0] = 7
    assert path.read_bytes() == before
    path.write_bytes(bytes(len(before)))  # in place: only a copy is safe from this
    assert copied.tolist() == list(range(1000))


def test_load_arguments(tmp_path):
    path = tmp_path / "f"
    deepseek.save([1], path)
    for arguments in ({"map_location": "cpu"}, {"map_location": None}, {"weights_only": True}, {"mmap": True}):
        assert deepseek.load(path, **arguments) == [1]
    assert deepseek.load(str(path), "cpu") == [1]
    with open(path, "rb") as f:
        assert deepseek.load(f) == [1]
    with pytest.raises(ValueError, match="never unpickles"):
        deepseek.load(path, weights_only=False)
    with pytest.raises(ValueError, match="map_location must be 'cpu', got 'cuda'"):
        deepseek.load(path, map_location="cuda")
    with pytest.raises(FileNotFoundError):
        deepseek.load(tmp_path / "none")


# --- what save refuses ------------------------------------------------------------------------------------------------

Point = collections.namedtuple("Point", "x y")


class Subclass(dict):
    pass


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"a": [0, 1, 2, {1}]}, r"cannot save obj\['a'\]\[3\] of type builtins.set: only dict"),
        (object(), "cannot save obj of type builtins.object"),
        ([1j], r"obj\[0\] of type builtins.complex"),
        ({"p": Point(1, 2)}, r"obj\['p'\] of type .*Point"),
        (Subclass(), "Subclass"),
        ({1: {"x": np.ones(2)}}, r"obj\[1\]\['x'\] of type numpy.ndarray: convert it with deepseek.from_numpy"),
        ([np.float64(1)], r"obj\[0\] of type numpy.float64: convert it with .item\(\)"),
        ([np.int32(1)], r"numpy.int32: convert it with .item\(\)"),
        ({frozenset(): 1}, r"key frozenset\(\) of obj: keys may be"),
        ({(1, frozenset()): 1}, r"keys may be"),
        (lambda: 0, "of type builtins.function"),
        (len, "builtin_function"),
        (signal.SIGTERM, "Signals"),
    ],
)
def test_other_types_are_refused_by_path(tmp_path, obj, message):
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(TypeError, match=message):
        deepseek.save(obj, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"old"


def test_modules_and_optimizers_are_refused_with_the_way_out():
    model = deepseek.nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"obj\['model'\] of type .*Linear: save its state_dict\(\) instead"):
        reload({"model": model})
    with pytest.raises(TypeError, match=r"SGD: save its state_dict\(\)"):
        reload(deepseek.optim.SGD(model.parameters(), lr=0.1))


def test_cycles_and_depth():
    cycle = {"a": []}
    cycle["a"].append(cycle)
    with pytest.raises(ValueError, match=r"cannot save obj\['a'\]\[0\]: it contains itself"):
        reload(cycle)
    shared = [1]
    assert reload([shared, shared]) == [[1], [1]]
    nested = [0]
    for _ in range(99):
        nested = [nested]
    assert reload(nested) == nested
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        reload([nested])


# --- what load refuses ------------------------------------------------------------------------------------------------


def container(skeleton: object, version: str = "1", **tensors: deepseek.Tensor) -> bytes:
    text = skeleton if isinstance(skeleton, str) else json.dumps(skeleton)
    return safetensors.save(tensors, {"format": "deepseek", "deepseek.version": version, "deepseek.object": text})


def table(*entries: object) -> dict:
    return {"tensors": list(entries), "object": [{"tensor": i} for i in range(len(entries))]}


DAMAGED = [
    "",
    "nope",
    "[1]",
    '{"tensors":[],"object":NaN}',
    '{"tensors":[],"object":1,"object":2}',
    '{"tensors":[],"object":' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"tensors":[],"object":' + "9" * 10_000 + "}",
    {"tensors": []},
    {"object": 1},
    {"tensors": 5, "object": 1},
    {"tensors": [], "object": {}},
    {"tensors": [], "object": {"list": []}},
    {"tensors": [], "object": {"tuple": [], "int": "0x1"}},
    {"tensors": [], "object": {"int": "zz"}},
    {"tensors": [], "object": {"int": 5}},
    {"tensors": [], "object": {"float": "00"}},
    {"tensors": [], "object": {"float": "00" * 9}},
    {"tensors": [], "object": {"bytes": "*"}},
    {"tensors": [], "object": {"tuple": "abc"}},
    {"tensors": [], "object": {"dict": []}},
    {"tensors": [], "object": {"items": [[[1], 2]]}},
    {"tensors": [], "object": {"items": [[1]]}},
    {"tensors": [], "object": {"dtype": "Tensor"}},
    {"tensors": [], "object": {"dtype": "__doc__"}},
    {"tensors": [], "object": {"dtype": "nope"}},
    {"tensors": [], "object": {"size": 3}},
    {"tensors": [], "object": {"size": ["a"]}},
    {"tensors": [], "object": {"tensor": 0}},
    {"tensors": [{"name": "w"}], "object": {"tensor": -1}},
    {"tensors": [{"name": "w"}], "object": {"tensor": True}},
    table({"name": "missing"}),
    table({}),
    table({"name": 3}),
    table("w"),
    table({"name": "i", "requires_grad": True}),
    table({"name": "w", "size": [5], "stride": [1], "offset": 0}),
    table({"name": "w", "size": [4], "stride": [1], "offset": 1}),
    table({"name": "w", "size": [1], "stride": [1], "offset": -1}),
    table({"name": "w", "size": [2], "stride": [-1], "offset": 0}),
    table({"name": "w", "size": [2], "stride": [2**62], "offset": 0}),
    table({"name": "w", "size": [2**62, 2**62], "stride": [0, 0], "offset": 0}),
    table({"name": "w", "size": [2**63], "stride": [0], "offset": 0}),
    table({"name": "w", "size": [-1], "stride": [1], "offset": 0}),
    table({"name": "w", "size": [2], "stride": [], "offset": 0}),
    table({"name": "w", "size": [2], "stride": [1]}),
    table({"name": "w", "size": [1] * 9, "stride": [1] * 9, "offset": 0}),
    table({"name": "w", "size": "ab", "stride": "ab", "offset": "a"}),
]


@pytest.mark.parametrize("skeleton", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_descriptions_are_load_errors(tmp_path, skeleton):
    (tmp_path / "f").write_bytes(
        container(skeleton, w=deepseek.arange(4, dtype=deepseek.float32), i=deepseek.arange(4))
    )
    with pytest.raises(deepseek.LoadError, match="f: damaged object description"):
        deepseek.load(tmp_path / "f")


def test_damaged_files_are_load_errors_or_valid():
    buffer = io.BytesIO()
    w = deepseek.arange(4, dtype=deepseek.float32)
    deepseek.save({"a": w, "b": w[1:], 1: (2**80, math.inf, b"x", deepseek.float32)}, buffer)
    good, rng, refused = buffer.getvalue(), random.Random(5), 0
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 4])):
            data[rng.randrange(len(data))] = rng.choice([rng.randrange(256), rng.choice(b'{}[]",:0123456789-.e\\')])
        try:
            deepseek.load(io.BytesIO(bytes(data)))
        except deepseek.LoadError:
            refused += 1
    assert refused > 1500


def test_other_files_are_load_errors(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(container({"tensors": [], "object": 1}, version="2"))
    with pytest.raises(deepseek.LoadError, match="version '2' of the format, this build reads '1'"):
        deepseek.load(path)
    safetensors.save_file({"w": deepseek.arange(3)}, path)
    with pytest.raises(deepseek.LoadError, match=r"not one that deepseek.save wrote.*load_file"):
        deepseek.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)
    with pytest.raises(deepseek.LoadError, match=r"zip archive, as torch.save.*never loaded here: convert"):
        deepseek.load(path)


class Explodes:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_recognised_and_never_run(tmp_path, protocol):
    path = tmp_path / "f"
    for content in (Explodes(), [Explodes()], {"a": 1}):
        path.write_bytes(pickle.dumps(content, protocol) + bytes(64))
        with pytest.raises(deepseek.LoadError, match="a pickle, which is never loaded"):
            deepseek.load(path)


def test_load_works_where_pickle_cannot_be_imported(tmp_path):
    path = tmp_path / "f"
    deepseek.save({"w": deepseek.arange(3), 1: [2.5, b"x"]}, path)
    code = (
        "import sys; sys.modules.update(pickle=None, _pickle=None, cPickle=None, marshal=None, shelve=None)\n"
        "import deepseek\n"
        "assert deepseek.load(sys.argv[1])['w'].shape == (3,)\n"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


# --- crashes ----------------------------------------------------------------------------------------------------------

WRITER = """
import sys, deepseek
path = sys.argv[1]
step = 0
while True:
    step += 1
    w = deepseek.arange(step, step + 50_000)
    deepseek.save({"step": step, "w": w}, path)
    print(step, flush=True)
"""


def test_kill_at_any_time_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "checkpoint"
    rng = random.Random(3)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            writer.kill()
            reported = writer.stdout.read().split()
        loaded = deepseek.load(path)
        assert loaded["w"][0].item() == loaded["step"]
        assert loaded["w"][49_999].item() == loaded["step"] + 49_999
        assert not reported or loaded["step"] >= int(reported[-1])
