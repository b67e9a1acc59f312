"""Mutated safetensors files: we accept exactly what the `safetensors` package accepts, with the same error kinds and
equal tensors, and never crash. `make slow` tries twenty times as many as `make test`."""

import json
import math
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import deepseek
import pytest
from deepseek.io import safetensors as ours
from test_safetensors import our_verdict, package_verdict

BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "BF16": 16,
    "F16": 16,
    "U16": 16,
}
BITS |= {"I16": 16, "I32": 32, "F32": 32, "C64": 64, "I64": 64, "F64": 64, "U64": 64}
NO_COUNTERPART = {"F4", "F6_E2M3", "U16", "C64", "U64", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "U32"}
MAX_DIMS = 8


def has_duplicate_key(file: bytes) -> bool:
    found = []
    (length,) = struct.unpack("<Q", file[:8].ljust(8, b"\0"))
    try:
        json.loads(file[8 : 8 + length], object_pairs_hook=lambda pairs: found.append(len(dict(pairs)) != len(pairs)))
    except (ValueError, RecursionError):
        return False
    return any(found)


# Files that the package may accept and we refuse: when, our kind of error, why.
STRICTER = [
    (has_duplicate_key, "InvalidHeaderDeserialization", "the format forbids them; the package keeps the last one"),
]
# Tensors in accepted files that we do not load: message, when, why.
NOT_LOADED = [
    ("has no counterpart here", lambda dtype, shape: dtype in NO_COUNTERPART, "no tensor here has this dtype"),
    ("dimensions, at most 8", lambda dtype, shape: len(shape) > MAX_DIMS, "tensors here have at most 8 dims"),
    (
        "overflow 63 bits",
        lambda dtype, shape: 0 in shape and math.prod(max(n, 1) for n in shape) >= 2**63,
        "an empty tensor's strides do not fit; the package has no strides",
    ),
]
# The package checks tensors with equal offsets in an arbitrary order, so which of these it names first may differ.
DEPEND_ON_ORDER = {"InvalidOffset", "TensorInvalidInfo", "ValidationOverflow", "MisalignedSlice"}


# --- what is done to a file -------------------------------------------------------------------------------------------


@dataclass
class File:
    """A file in parts. `length` None: what the header's text has."""

    header: dict
    data: bytes
    text: bytes = b""
    length: int | None = None

    def bytes(self) -> bytes:
        length = len(self.text) if self.length is None else self.length
        return struct.pack("<Q", length % 2**64) + self.text + self.data


def valid_file(rng: random.Random) -> File:
    header, end = {}, 0
    for i in range(rng.randrange(5)):
        dtype, shape = rng.choice(list(BITS)), [rng.choice([0, 1, 2, 4, 8]) for _ in range(rng.randrange(4))]
        nbytes = math.prod(shape) * BITS[dtype] // 8
        header[f"t{i}é"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    if rng.random() < 0.3:
        header["__metadata__"] = rng.choice([None, {}, {"k": "v"}])
    entries = list(header.items())
    rng.shuffle(entries)
    return File(dict(entries), rng.randbytes(end))


def entries(file: File) -> list[dict]:
    return [entry for name, entry in file.header.items() if name != "__metadata__" and isinstance(entry, dict)]


NUMBERS = [
    0,
    1,
    -1,
    2,
    4,
    7,
    8,
    127,
    2**31,
    2**32,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    1.0,
    0.5,
    1e300,
]
VALUES = [*NUMBERS, True, None, "U8", "é", [], {}, [0], [0, 4], [4, 0], [2**40, 2**40], [2**64 - 1, 0], [1.0], [[0, 4]]]
DTYPES = [
    *BITS,
    "F6_E3M2",
    "F8_E8M0",
    "F8_E4M3FNUZ",
    "F8_E5M2FNUZ",
    "U32",
    "U17",
    "f32",
    "",
    "F32 ",
    {"U8": None},
    {"U8": 1},
]
PIECES = [
    b"0",
    b"1",
    b"-0",
    b"4",
    b"1.0",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"18446744073709551616",
    b"null",
    b'"U8"',
    b"[]",
]
PIECES += [
    b"{}",
    b"[0,4]",
    b'"\\ud800"',
    b'"\\ud834\\udd1e"',
    b",",
    b'"',
    b"\\",
    b"\0",
    b"\n",
    b"\xff",
    b"\xed\xa0\x80",
]
PIECES += ["é".encode(), b"\xc0\x80", b"\xf4\x90\x80\x80", b"/**/", b"//", b"+", b"0x1", b"01"]
LENGTHS = [0, 1, 7, 100_000_000, 100_000_001, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]


def edit_offsets(rng: random.Random, file: File) -> None:
    """Holes, overlaps, reversed, swapped, beyond the end, other types."""
    for entry in entries(file):
        if rng.random() < 0.5:
            begin, end = entry["data_offsets"]
            near = [begin + rng.choice([-1, 1, 8]), end + rng.choice([-1, 1, 8])]
            moved = [[near[0], end], [begin, near[1]], near, [end, begin], [begin], [begin, end, end]]
            strange = [[rng.choice(NUMBERS), end], [begin, rng.choice(NUMBERS)], rng.choice(VALUES)]
            entry["data_offsets"] = rng.choice(moved + strange)


def edit_shape(rng: random.Random, file: File) -> None:
    for entry in entries(file):
        shape = entry["shape"]
        at = rng.randrange(len(shape) + 1)
        ones = [1] * rng.choice([1, 7, 9])
        changed = [*shape[:at], rng.choice(NUMBERS), *shape[at + rng.randrange(2) :]]
        entry["shape"] = rng.choice([shape, shape, shape[::-1], shape + ones, changed, rng.choice(VALUES)])


def edit_empty(rng: random.Random, file: File) -> None:
    """A tensor without elements whose other sizes are huge."""
    sizes = [0, *rng.choices([1, 2, 2**31, 2**40, 2**62, 2**63, 2**64 - 1], k=rng.randrange(4))]
    rng.shuffle(sizes)
    at = len(file.data)
    file.header["empty"] = {"dtype": rng.choice(DTYPES), "shape": sizes, "data_offsets": [at, at]}


def edit_dtype(rng: random.Random, file: File) -> None:
    for entry in entries(file):
        if rng.random() < 0.5:
            entry["dtype"] = rng.choice([rng.choice(DTYPES), rng.choice(DTYPES), rng.choice(VALUES)])


def edit_fields(rng: random.Random, file: File) -> None:
    """Fields that are missing, unknown, or renamed; an entry as a list; another value in place of an entry."""
    for name, entry in list(file.header.items()):
        if name == "__metadata__" or rng.random() < 0.5:
            continue
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        field = rng.choice(list(entry))
        file.header[name] = rng.choice(
            [
                {key: value for key, value in entry.items() if key != field},
                {key.upper() if key == field else key: value for key, value in entry.items()},
                {**entry, rng.choice(["x", "", "__metadata__", "strides"]): rng.choice(VALUES)},
                [dtype, shape, offsets],
                [dtype, shape, offsets, 0],
                [dtype, shape],
                rng.choice(VALUES),
            ]
        )


def edit_metadata(rng: random.Random, file: File) -> None:
    texts = {"": "", "é": "𝄞\x00\n", "__metadata__": "x"}
    file.header["__metadata__"] = rng.choice([texts, {"k": rng.choice(VALUES)}, rng.choice(VALUES), {"a": {"b": "c"}}])


def nest(rng: random.Random, file: File) -> None:
    """Deep values around the limit of 128 levels."""
    depth = rng.choice([1, 50, 120, 124, 125, 126, 127, 128, 1000, 50_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    value = opening * depth + b"0" + closing * rng.choice([depth, depth, depth, depth - 1])
    at = file.text.rfind(b"}", 0, len(file.text) - 1)
    if at > 0:
        file.text = file.text[:at] + b',"x":' + value + file.text[at:]


def repeat_key(rng: random.Random, file: File) -> None:
    """A key twice, spelled alike or by an escape."""
    names = [name for name in file.header if name != "__metadata__"]
    if names:
        name = rng.choice(names)
        spelled = json.dumps(name, ensure_ascii=rng.random() < 0.5).encode()
        value = json.dumps(rng.choice([file.header[name], rng.choice(VALUES)])).encode()
        file.text = file.text[:1] + spelled + b":" + value + b"," + file.text[1:]


def splice(rng: random.Random, file: File) -> None:
    for _ in range(rng.choice([1, 1, 1, 3])):
        at = rng.randrange(len(file.text) + 1)
        new = rng.choice([rng.choice(PIECES), bytes([rng.randrange(256)]), b""])
        file.text = file.text[:at] + new + file.text[at + rng.randrange(3) :]


def pad(rng: random.Random, file: File) -> None:
    before, after = (rng.choice([b"", b"", b" " * 9, b"\n\t\r", b"\0", b"\xef\xbb\xbf", b"x"]) for _ in range(2))
    file.text = before + file.text + after


def edit_length(rng: random.Random, file: File) -> None:
    size = len(file.text)
    near = [size - 8, size - 1, size + 1, size + 8, size + len(file.data), size + len(file.data) + 1, 2**40 + size]
    file.length = rng.choice(near + LENGTHS)


def edit_data(rng: random.Random, file: File) -> None:
    """Too much or too little data; other data is as good as this."""
    file.data = rng.choice(
        [file.data[:-1], b"", file.data + b"x", file.data + bytes(8), file.data[::-1], file.data * 2]
    )


# Kind -> what it changes: the parsed header, its text and length, or the bytes of the whole file.
HEADER_EDITS: dict[str, Callable[[random.Random, File], None]] = {
    f.__name__: f for f in (edit_offsets, edit_shape, edit_empty, edit_dtype, edit_fields, edit_metadata)
}
TEXT_EDITS: dict[str, Callable[[random.Random, File], None]] = {
    f.__name__: f for f in (nest, repeat_key, splice, pad, edit_length, edit_data)
}


def flip_bits(rng: random.Random, whole: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)


def truncate(rng: random.Random, whole: bytearray) -> None:
    del whole[rng.randrange(len(whole)) :]


BYTE_EDITS: dict[str, Callable[[random.Random, bytearray], None]] = {f.__name__: f for f in (flip_bits, truncate)}
KINDS = [*HEADER_EDITS, *TEXT_EDITS, *BYTE_EDITS]


def mutated_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Files with one change, some with several, some with none, and the name of the first change."""
    rng = random.Random(seed)
    for number in range(count):
        first = KINDS[number % len(KINDS)]
        kinds = {first, *(rng.choices(KINDS, k=2) if rng.random() < 0.15 else [])} if rng.random() < 0.95 else set()
        file = valid_file(rng)
        for kind in (k for k in HEADER_EDITS if k in kinds):  # edit_fields after those that expect all fields
            HEADER_EDITS[kind](rng, file)
        file.text = json.dumps(file.header, ensure_ascii=rng.random() < 0.5).encode()
        for kind in (k for k in TEXT_EDITS if k in kinds):
            TEXT_EDITS[kind](rng, file)
        whole = bytearray(file.bytes())
        for kind in (k for k in BYTE_EDITS if k in kinds):
            BYTE_EDITS[kind](rng, whole)
        yield first, bytes(whole)


# --- comparison -------------------------------------------------------------------------------------------------------


def check_tensor(file: object, name: str, dtype: str, shape: list[int], data: bytes) -> None:
    excuses = [message for message, when, _ in NOT_LOADED if when(dtype, shape)]
    try:
        tensor = file.tensor(name)
    except (TypeError, deepseek.LoadError) as error:
        assert any(message in str(error) for message in excuses), (error, dtype, shape)
        return
    assert not excuses, (dtype, shape)
    assert list(tensor.shape) == shape
    values = bytes(byte != 0 for byte in data) if dtype == "BOOL" else data  # any byte but 0 is True
    assert package_verdict(ours.save({"x": tensor}))[1] == {"x": (dtype, shape, values)}


def compare(whole: bytes, path: Path) -> tuple[str, bool]:
    """Our verdict, and whether we name the error that the package names; fails where we should and do not."""
    (mine, content), (theirs, expected) = our_verdict(whole), package_verdict(whole)
    if any(content == kind and when(whole) for when, kind, _ in STRICTER):
        return mine, True
    assert mine == theirs, (content, expected)
    if mine == "error":
        if content != expected:
            assert {content, expected} <= DEPEND_ON_ORDER, (content, expected)
        with pytest.raises(deepseek.LoadError):
            ours.load_file(path)
        return mine, content == expected
    for file in (content, ours._open(path)):
        assert set(file.offset_keys()) == set(expected)
        for name, (dtype, shape, data) in expected.items():
            if len(shape) <= MAX_DIMS:
                assert file.info(name) == (dtype, shape)
            check_tensor(file, name, dtype, shape, data)
    return mine, True


@pytest.mark.parametrize(
    ("count", "seed"), [(560, 1), pytest.param(11_200, 2, marks=pytest.mark.slow)], ids=["quick", "ten thousand"]
)
def test_mutated_files(tmp_path, count, seed):
    verdicts: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    other_kind = 0
    path = tmp_path / "the file that was read when the process died"
    for kind, whole in mutated_files(count, seed):
        path.write_bytes(whole)
        verdict, same = compare(whole, path)
        verdicts[kind][verdict] += 1
        other_kind += not same
    # No kind of change is harmless, and enough files are accepted for their tensors to be compared.
    assert all(seen["error"] > count / len(KINDS) / 4 for seen in verdicts.values()), verdicts
    assert sum(seen["ok"] for seen in verdicts.values()) > count / 5, verdicts
    assert other_kind < count / 50
