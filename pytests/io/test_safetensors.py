"""deepseek.io.safetensors against the `safetensors` package: same bytes, same files accepted, same error kinds.

Mutated files by the thousand are in test_safetensors_mutations.py.
"""

import os
import re
import resource
import struct
import sys

import deepseek
import ml_dtypes
import numpy as np
import pytest
from deepseek.io import safetensors as ours

package = pytest.importorskip("safetensors", minversion="0.8", reason="error kinds are those of 0.8")
package_numpy = pytest.importorskip("safetensors.numpy")

NUMPY_DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
ML_DTYPES = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]
# How the package words each kind of error.
KINDS = {
    "invalid UTF-8 in header": "InvalidHeader",
    "invalid JSON in header": "InvalidHeaderDeserialization",
    "header too large": "HeaderTooLarge",
    "header too small": "HeaderTooSmall",
    "invalid header length": "InvalidHeaderLength",
    "invalid shape, data type": "TensorInvalidInfo",
    "invalid offset for": "InvalidOffset",
    "incomplete metadata": "MetadataIncompleteBuffer",
    "overflow computing": "ValidationOverflow",
    "The slice is slicing": "MisalignedSlice",
}


def raw_file(header: str | bytes, data: bytes = b"") -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header)) + header + data


def array(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.random.default_rng(7).integers(0, 2 if dtype == "bool" else 100, size=shape)
    return bits.astype(getattr(ml_dtypes, dtype) if dtype in ML_DTYPES else dtype)


def package_verdict(data: bytes) -> tuple[str, object]:
    try:
        entries = package.deserialize(data)
    except package.SafetensorError as error:
        message = str(error).removeprefix("Error while deserializing: ")
        return "error", next(kind for text, kind in KINDS.items() if message.startswith(text))
    return "ok", {name: (e["dtype"], list(e["shape"]), bytes(e["data"])) for name, e in entries}


def our_verdict(data: bytes) -> tuple[str, object]:
    try:
        file = ours._parse(data, "x")
    except deepseek.LoadError as error:
        return "error", re.findall(r"\((\w+)\)", str(error))[-1]
    return "ok", file


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMPY_DTYPES + ML_DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (5, 7), (2, 1, 3, 1, 2)])
def test_bytes_equal_the_package(dtype, shape):
    expected = package_numpy.save({"w": array(dtype, shape)})
    tensors = ours.load(expected)
    assert list(tensors["w"].shape) == list(shape)
    assert tensors["w"].dtype is getattr(deepseek, dtype)
    assert ours.save(tensors) == expected
    if dtype in NUMPY_DTYPES:
        np.testing.assert_array_equal(tensors["w"].numpy(), array(dtype, shape))


def test_order_escapes_and_metadata_equal_the_package(tmp_path):
    names = ["b", "a", "A", 'q"\\', "é", "𝄞", "tab\t\x01\x7f", "", "a.b.0"]
    arrays = {n: array(NUMPY_DTYPES[i % len(NUMPY_DTYPES)], (i % 4,)) for i, n in enumerate(names)}
    metadata = {"format": 'é"\n'}
    package_numpy.save_file(arrays, tmp_path / "theirs", metadata=metadata)
    ours.save_file({n: deepseek.from_numpy(a) for n, a in arrays.items()}, tmp_path / "ours", metadata=metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    for name, value in package_numpy.load_file(tmp_path / "ours").items():
        np.testing.assert_array_equal(value, arrays[name])


def test_metadata_are_sorted_and_optional():
    assert ours.save({}) == raw_file("{}      ")
    one, two = ours.save({}, {"b": "1", "a": "2"}), ours.save({}, {"a": "2", "b": "1"})
    assert one == two
    assert package.deserialize(one) == []


def test_non_contiguous_tensors_are_stored_in_row_major_order():
    base = deepseek.arange(12, dtype=deepseek.int32).reshape(3, 4)
    loaded = ours.load(ours.save({"t": base.t(), "s": base[:, 1::2], "e": base[:1].expand(2, 4)}))
    values = np.arange(12, dtype=np.int32).reshape(3, 4)
    np.testing.assert_array_equal(loaded["t"].numpy(), values.T)
    np.testing.assert_array_equal(loaded["s"].numpy(), values[:, 1::2])
    np.testing.assert_array_equal(loaded["e"].numpy(), np.broadcast_to(values[:1], (2, 4)))
    assert all(t.is_contiguous() for t in loaded.values())


def test_shared_memory_is_written_separately():
    w = deepseek.arange(4, dtype=deepseek.float32)
    loaded = ours.load(ours.save({"a": w, "b": w, "c": w[1:]}))
    assert len({t.data_ptr() for t in loaded.values()}) == 3
    np.testing.assert_array_equal(loaded["c"].numpy(), [1, 2, 3])


# --- the mapping ------------------------------------------------------------------------------------------------------


def test_tensors_are_mapped_privately(tmp_path):
    path = tmp_path / "w"
    ours.save_file({"w": deepseek.arange(1000, dtype=deepseek.float32)}, path)
    before = path.read_bytes()
    first, second = ours.load_file(path)["w"], ours.load_file(path)["w"]
    assert (first.data_ptr() - (8 + struct.unpack("<Q", before[:8])[0])) % 4096 == 0  # a page of the file, not a copy
    first[0] = 5.0
    assert first.numpy()[0] == 5
    assert second.numpy()[0] == 0
    assert path.read_bytes() == before


def test_the_file_may_be_replaced_and_removed_while_mapped(tmp_path):
    path = tmp_path / "w"
    ours.save_file({"w": deepseek.arange(100_000, dtype=deepseek.int64)}, path)
    w = ours.load_file(path)["w"]
    ours.save_file({"w": w[:10]}, path)
    np.testing.assert_array_equal(ours.load_file(path)["w"].numpy(), np.arange(10))
    path.unlink()
    np.testing.assert_array_equal(w.numpy(), np.arange(100_000))


def test_unaligned_and_improper_bool_data_are_copied():
    header = '{"a":["U8",[1],[0,1]],"f":["F64",[1],[1,9]],"b":["BOOL",[4],[9,13]]}'
    loaded = ours.load(raw_file(header, b"\1" + struct.pack("<d", 2.5) + b"\0\1\2\xff"))
    assert loaded["f"].data_ptr() % 8 == 0
    assert loaded["f"].numpy()[0] == 2.5
    assert loaded["b"].numpy().view(np.uint8).tolist() == [0, 1, 1, 1]


# --- safe_open --------------------------------------------------------------------------------------------------------


def test_safe_open_equals_the_package(tmp_path):
    path = tmp_path / "w"
    arrays = {"b": array("float32", (4, 6)), "a": array("int64", (3,)), "s": array("float32", ())}
    package_numpy.save_file(arrays, path, metadata={"k": "v"})
    with ours.safe_open(path, framework="pt") as f, package.safe_open(path, framework="np") as g:
        assert f.keys() == sorted(g.keys()) == ["a", "b", "s"]
        assert f.offset_keys() == g.offset_keys()
        assert f.metadata() == g.metadata() == {"k": "v"}
        for name in f.keys():  # noqa: SIM118 (not a dict)
            np.testing.assert_array_equal(f.get_tensor(name).numpy(), g.get_tensor(name))
        mine, theirs = f.get_slice("b"), g.get_slice("b")
        assert mine.get_shape() == theirs.get_shape()
        assert mine.get_dtype() == theirs.get_dtype() == "F32"
        np.testing.assert_array_equal(mine[1:3].numpy(), theirs[1:3])
        np.testing.assert_array_equal(mine[:, 2:4].numpy(), theirs[:, 2:4])
        assert list(f.get_tensors()) == f.offset_keys()
        with pytest.raises(KeyError, match="no tensor 'nope'"):
            f.get_tensor("nope")
        with pytest.raises(KeyError, match="no tensor 'nope'"):
            f.get_slice("nope")
        kept = f.get_tensor("a")
    np.testing.assert_array_equal(kept.numpy(), arrays["a"])
    with pytest.raises(ValueError, match="File is closed"):
        f.keys()
    with pytest.raises(ValueError, match="File is closed"):
        f.get_tensor("a")


def test_metadata_may_be_absent(tmp_path):
    ours.save_file({}, tmp_path / "w")
    with ours.safe_open(tmp_path / "w") as f:
        assert f.metadata() is None
        assert f.keys() == []


def test_dtypes_without_counterpart_are_named(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(raw_file('{"u":["U16",[2],[0,4]],"f":["F4",[2],[4,5]],"w":["U8",[1],[5,6]]}', b"123456"))
    with ours.safe_open(path) as f:
        assert f.get_tensor("w").numpy().tolist() == [ord("6")]
        assert f.get_slice("f").get_dtype() == "F4"
        with pytest.raises(TypeError, match=r"w: tensor 'u': dtype U16 has no counterpart"):
            f.get_tensor("u")
    with pytest.raises(TypeError, match="dtype U16"):
        ours.load_file(path)


# --- what is refused --------------------------------------------------------------------------------------------------


def u8(rest: str) -> str:
    """A header with one tensor of four bytes; `rest` is the value of data_offsets and whatever follows it."""
    return '{"w":{"dtype":"U8","shape":[4],"data_offsets":' + rest + "}}"


REFUSED = [
    b"",
    b"\0" * 7,
    b"\xff" * 8,
    struct.pack("<Q", 100_000_001),
    struct.pack("<Q", 100_000_000),
    raw_file("{}")[:9],
    raw_file(b'{"\xff":1}'),
    raw_file(b'{"\xed\xa0\x80":1}'),
    raw_file(""),
    raw_file("[]"),
    raw_file("{}\0"),
    raw_file("\ufeff{}"),
    raw_file('{"__metadata__":{"a":1}}'),
    raw_file('{"__metadata__":{},"__metadata__":{}}'),
    raw_file(u8('[0,4],"x":' + "[" * 126 + "]" * 126), b"0123"),
    raw_file(u8('[0,4],"x":1e999'), b"0123"),
    raw_file(u8('[0,4],"x":"\\ud800"'), b"0123"),
    raw_file(u8("[0,4.0]"), b"0123"),
    raw_file(u8("[-0,4]"), b"0123"),
    raw_file(u8("[0,4]"), b"01234"),
    raw_file(u8("[0,4]"), b"012"),
    raw_file(u8("[1,5]"), b"01234"),
    raw_file(u8("[4,0]"), b"0123"),
    raw_file(u8("[0,5]"), b"01234"),
    raw_file('{"a":["U8",[4],[0,4]],"b":["U8",[4],[2,6]]}', b"012345"),
    raw_file('{"w":["U8",[4294967296,4294967296,0],[0,0]]}'),
    raw_file('{"w":["F32",[4611686018427387904],[0,0]]}'),
    raw_file('{"w":["F4",[3],[0,2]]}', b"01"),
]


@pytest.mark.parametrize("data", REFUSED, ids=range(len(REFUSED)))
def test_error_kinds_equal_the_package(data):
    verdict = our_verdict(data)
    assert verdict[0] == "error"
    assert verdict == package_verdict(data)


def test_a_good_message(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw_file('{"layers.0.w":{"dtype":"F32","shape":[4,8],"data_offsets":[0,64]}}', bytes(64)))
    with pytest.raises(deepseek.LoadError) as caught:
        ours.load_file(path)
    assert str(caught.value) == (
        f"{path}: tensor 'layers.0.w': data_offsets [0, 64] do not match shape [4, 8] x F32 (128 bytes) "
        "(TensorInvalidInfo)"
    )


@pytest.mark.parametrize(
    "header",
    [
        '{"w":["U8",[4],[0,4]],"w":["U8",[4],[0,4]]}',
        u8('[0,4],"x":1,"x":1'),
        '{"__metadata__":{"a":"","a":""},"w":["U8",[4],[0,4]]}',
    ],
)
def test_duplicate_keys_are_always_refused(header):
    assert our_verdict(raw_file(header, b"0123")) == ("error", "InvalidHeaderDeserialization")


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"\x80\x04\x95" + bytes(60), "pickle"),
        (b"\x80\x02}q\x00." + bytes(60), "pickle"),
        (b"GGUF\x03\0\0\0" + bytes(60), "GGUF"),
        (b"\x93NUMPY\x01\0" + bytes(60), "npy"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_other_formats_are_recognised(tmp_path, head, what):
    (tmp_path / "f").write_bytes(head)
    with pytest.raises(deepseek.LoadError, match=f"f: .*not a safetensors file but.*{what}"):
        ours.load_file(tmp_path / "f")
    with pytest.raises(deepseek.LoadError, match=what):
        ours.load(head)


# --- arguments and the file system ------------------------------------------------------------------------------------


def test_argument_errors(tmp_path):
    t = deepseek.arange(2)
    for tensors, metadata, message in [
        ([t], None, "must be a dict"),
        ({1: t}, None, "names must be str"),
        ({"w": [1.0]}, None, r"tensors\['w'\] must be a Tensor, got list"),
        ({"w": np.ones(1)}, None, "got numpy.ndarray"),
        ({"w": t}, {"a": 1}, "metadata must be a dict of str to str"),
        ({"w": t}, {1: "a"}, "metadata must be a dict of str to str"),
        ({"w": t}, "meta", "metadata must be a dict"),
    ]:
        with pytest.raises(TypeError, match=message):
            ours.save_file(tensors, tmp_path / "w", metadata)
    for tensors, metadata in [({"__metadata__": t}, None), ({"\ud800": t}, None), ({}, {"a": "\udfff"})]:
        with pytest.raises(ValueError, match=r"__metadata__|surrogates"):
            ours.save_file(tensors, tmp_path / "w", metadata)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="device must be 'cpu'"):
        ours.load_file(tmp_path / "w", device="cuda")
    with pytest.raises(ValueError, match="framework must be one of"):
        ours.safe_open(tmp_path / "w", framework="np")
    with pytest.raises(TypeError):
        ours.load("text")


def test_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        ours.load_file(tmp_path / "none")
    assert caught.value.filename == str(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        ours.load_file(tmp_path)
    with pytest.raises(IsADirectoryError):
        ours.save_file({}, tmp_path)
    with pytest.raises(FileNotFoundError):
        ours.save_file({}, tmp_path / "none" / "w")
    with pytest.raises(OSError, match="not a regular file"):
        ours.save_file({}, "/dev/null")
    with pytest.raises(OSError, match="not a regular file"):
        ours.load_file("/dev/zero")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w"
    ours.save_file({"w": deepseek.arange(3)}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            ours.save_file({"w": deepseek.arange(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_mode_follows_the_umask_and_is_kept(tmp_path):
    path = tmp_path / "w"
    before = os.umask(0o027)
    try:
        ours.save_file({}, path)
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o600)
        ours.save_file({}, path)
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_paths_that_are_not_text(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.safetensors"
    ours.save_file({"w": deepseek.arange(3)}, os.fsdecode(path))
    assert ours.load_file(path)["w"].tolist() == [0, 1, 2]
    with open(path, "wb") as f:
        f.write(b"bad")
    with pytest.raises(deepseek.LoadError, match=r"\?.safetensors: .*HeaderTooSmall"):
        ours.load_file(path)
