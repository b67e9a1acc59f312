"""deepseek.save and deepseek.load: nested Python objects with tensors in one safetensors file.

The tensors are ordinary entries, so any safetensors reader can open the file; the rest is JSON in its `__metadata__`.
In that JSON, strings, finite floats, None, bools, 64-bit integers and lists stand for themselves; everything else is an
object with one member that names its kind: {"tuple": [...]}, {"tensor": 3}, {"dtype": "float32"}, ...
"""

from __future__ import annotations

import base64
import json
import math
import os
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from deepseek._C import LoadError, _io
from deepseek._tensor.storage import address_of
from deepseek.io._streams import read_all, write_all
from deepseek.io.safetensors import _open, _parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek import Tensor

__all__ = ["load", "save"]

_FORMAT = "deepseek"
_VERSION = "1"
_MAX_DEPTH = 100  # of nested containers; each costs a few frames of the interpreter's 1,000


def save(obj: object, f: str | os.PathLike[str] | BinaryIO) -> None:
    """Writes `obj` to a path (atomically: temporary file, fsync, rename) or a binary file object.

    `obj` may be built of dict, OrderedDict and a module's `state_dict()` (both come back as dict), list, tuple, str,
    int of any size, float (NaN bits included), bool, None, bytes, Tensor, dtype and Size. Dict keys may be str, int,
    float, bool, None, bytes and tuples of these.

    A tensor that occurs twice is stored once and comes back as one object; tensors that overlap in memory are stored
    once and overlap again, if they have one dtype. `requires_grad` is kept; gradients and graph are not, and a
    Parameter comes back as a plain Tensor.

    Raises:
        TypeError: anything else, naming where in `obj` it is. For a Module or optimizer save its `state_dict()`.
        ValueError: a container that contains itself, nesting beyond 100 levels, JSON beyond 100,000,000 bytes.
        OSError: the file cannot be written; an existing one is unchanged. Or the file object took only a part.
    """
    encoder = _Encoder()
    root = encoder.node(obj, "obj", "", 0)
    stored, table = _place(encoder.tensors, encoder.names)
    skeleton = json.dumps({"tensors": table, "object": root}, separators=(",", ":"), allow_nan=False)
    metadata = {"format": _FORMAT, "deepseek.version": _VERSION, "deepseek.object": skeleton}
    if hasattr(f, "write"):
        write_all(f, _io.save(stored, metadata))
    else:
        _io.save_file(stored, os.fsencode(f), metadata)


def load(
    f: str | os.PathLike[str] | BinaryIO, map_location: Any = None, *, weights_only: bool = True, mmap: bool = False
) -> Any:
    """Reads what `save` wrote. Never unpickles, so a file from anywhere is safe to load.

    Args:
        f: a path or a binary file object.
        map_location: 'cpu' or None. A dict of devices must leave 'cpu' where it is; a function is not asked, because
            all tensors were and are on the CPU.
        weights_only: only True; there is no other mode.
        mmap: let tensors share a private mapping of the file instead of copying them (as `io.safetensors.load_file`).

    Raises:
        LoadError: the file is damaged, of another format, or a safetensors file that `save` did not write.
        ValueError: another `map_location`, or `weights_only=False`.
        OSError: the file cannot be opened.
    """
    if not weights_only:
        raise ValueError("weights_only=False is not available: deepseek.load never unpickles")
    where = map_location.get("cpu", "cpu") if isinstance(map_location, dict) else map_location
    if where is not None and not callable(where) and str(where) not in ("cpu", "cpu:0"):
        raise ValueError(f"map_location must be 'cpu', got {map_location!r}")
    file = _parse(read_all(f), str(getattr(f, "name", "<file object>"))) if hasattr(f, "read") else _open(f)
    metadata = file.metadata() or {}
    if metadata.get("format") != _FORMAT or "deepseek.object" not in metadata:
        raise LoadError(
            f"{file.name}: a safetensors file, but not one that deepseek.save wrote; "
            "read its tensors with deepseek.io.safetensors.load_file"
        )
    if metadata.get("deepseek.version") != _VERSION:
        raise LoadError(
            f"{file.name}: version {metadata.get('deepseek.version')!r} of the format, this build reads {_VERSION!r}"
        )
    return _decode(file, metadata["deepseek.object"], copy=not mmap and not hasattr(f, "read"))


# --- writing ----------------------------------------------------------------------------------------------------------


class _Encoder:
    """Turns an object into JSON and collects its tensors, each once."""

    def __init__(self) -> None:
        import deepseek

        self._tensor_type = deepseek.Tensor
        self._dtype_type = deepseek.dtype
        self._size_type: type = deepseek.Size
        self.tensors: list[Tensor] = []
        self.names: list[str] = []
        self._index: dict[int, int] = {}
        self._used_names: set[str] = {"__metadata__"}
        self._open: set[int] = set()  # containers being encoded, to find cycles

    def node(self, obj: Any, path: str, name: str, depth: int) -> Any:
        kind = type(obj)
        if obj is None or kind is bool or kind is str:
            return obj
        if kind is int:
            return obj if -(2**63) <= obj < 2**63 else {"int": hex(obj)}
        if kind is float:
            return obj if math.isfinite(obj) else {"float": struct.pack(">d", obj).hex()}
        if kind is bytes:
            return {"bytes": base64.b64encode(obj).decode()}
        if isinstance(obj, self._tensor_type):
            return {"tensor": self._tensor(obj, name)}
        if isinstance(obj, self._dtype_type):
            return {"dtype": str(obj).removeprefix("deepseek.")}
        if kind is self._size_type:
            return {"size": list(obj)}
        if kind in (list, tuple, dict, OrderedDict) or _is_state_dict(obj):
            return self._container(obj, path, name, depth)
        raise TypeError(_refusal(obj, path))

    def _container(self, obj: Any, path: str, name: str, depth: int) -> Any:
        if id(obj) in self._open:
            raise ValueError(f"cannot save {path}: it contains itself")
        if depth >= _MAX_DEPTH:
            raise ValueError(f"cannot save {path}: nested deeper than {_MAX_DEPTH} levels")
        self._open.add(id(obj))
        try:
            if isinstance(obj, dict):
                return self._dict(obj, path, name, depth + 1)
            items = [self.node(x, f"{path}[{i}]", f"{name}.{i}", depth + 1) for i, x in enumerate(obj)]
            return items if type(obj) is list else {"tuple": items}
        finally:
            self._open.remove(id(obj))

    def _dict(self, obj: dict[Any, Any], path: str, name: str, depth: int) -> Any:
        values = [(k, self.node(v, f"{path}[{k!r}]", f"{name}.{k}", depth)) for k, v in obj.items()]
        if all(type(k) is str for k in obj):
            return {"dict": dict(values)}
        return {"items": [[self._key(k, f"key {k!r} of {path}", depth), v] for k, v in values]}

    def _key(self, key: Any, path: str, depth: int) -> Any:
        if type(key) is tuple:
            return {"tuple": [self._key(k, path, depth + 1) for k in key]}
        if key is None or type(key) in (str, int, float, bool, bytes):
            return self.node(key, path, "", depth)
        raise TypeError(
            f"cannot save {path}: keys may be str, int, float, bool, None, bytes and tuples of these, "
            f"got {type(key).__name__}"
        )

    def _tensor(self, tensor: Tensor, name: str) -> int:
        if id(tensor) not in self._index:
            self._index[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor)
            self.names.append(self._unique(name))
        return self._index[id(tensor)]

    def _unique(self, name: str) -> str:
        base = name.removeprefix(".").encode("utf-8", "backslashreplace").decode() or "tensor"
        unique, n = base, 1
        while unique in self._used_names:
            n += 1
            unique = f"{base}#{n}"
        self._used_names.add(unique)
        return unique


def _is_state_dict(obj: object) -> bool:
    if not isinstance(obj, OrderedDict):
        return False
    from deepseek.nn.modules._state import StateDict

    return type(obj) is StateDict


def _refusal(obj: object, path: str) -> str:
    kind = type(obj)
    message = f"cannot save {path} of type {kind.__module__}.{kind.__qualname__}"
    if callable(getattr(kind, "state_dict", None)):
        return f"{message}: save its state_dict() instead"
    if kind.__module__.partition(".")[0] == "numpy":
        way_out = "deepseek.from_numpy(...)" if kind.__name__ == "ndarray" else ".item()"
        return f"{message}: convert it with {way_out}"
    return (
        f"{message}: only dict, list, tuple, str, int, float, bool, None, bytes, Tensor, dtype and Size can be saved "
        "(subclasses are not, because they would come back as their base class)"
    )


class _Span(NamedTuple):
    """The bytes that a tensor's elements lie in."""

    begin: int
    end: int
    number: int


def _span(tensor: Tensor, index: int) -> _Span:
    reach = [(n - 1) * s * tensor.element_size() for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
    start = address_of(tensor)
    return _Span(
        start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + tensor.element_size(), index
    )


def _place(tensors: list[Tensor], names: list[str]) -> tuple[list[tuple[str, Tensor]], list[dict[str, Any]]]:
    """Chooses what to store: (name, tensor) pairs for the file, and for each of `tensors` where it is found in them."""
    stored: list[tuple[str, Tensor]] = []
    table: list[dict[str, Any]] = [{"name": name} for name in names]
    for index, tensor in enumerate(tensors):
        if tensor.requires_grad:
            table[index]["requires_grad"] = True
        if tensor.numel() == 0:
            stored.append((names[index], tensor))
    for cluster in _overlapping([_span(t, i) for i, t in enumerate(tensors) if t.numel() > 0]):
        _place_cluster(cluster, tensors, names, stored, table)
    return stored, table


def _overlapping(spans: list[_Span]) -> list[list[_Span]]:
    """Groups spans that are connected through overlaps."""
    clusters: list[list[_Span]] = []
    end = 0
    for span in sorted(spans):
        if clusters and span.begin < end:
            clusters[-1].append(span)
        else:
            clusters.append([span])
        end = max(end, span.end) if len(clusters[-1]) > 1 else span.end
    return clusters


def _place_cluster(
    cluster: list[_Span],
    tensors: list[Tensor],
    names: list[str],
    stored: list[tuple[str, Tensor]],
    table: list[dict[str, Any]],
) -> None:
    cluster.sort(key=lambda span: span.number)
    members = [tensors[span.number] for span in cluster]
    size = members[0].element_size()
    begin, end = min(span.begin for span in cluster), max(span.end for span in cluster)
    length = (end - begin) // size
    one_dtype = all(t.dtype == members[0].dtype and (address_of(t) - begin) % size == 0 for t in members)
    alone = len(members) == 1
    # A lone tensor needs its span only where that is no larger than its values (a transposed or expanded one).
    if not one_dtype or (alone and (members[0].is_contiguous() or length > members[0].numel())):
        stored.extend((names[span.number], tensor) for span, tensor in zip(cluster, members, strict=True))
        return
    whole = [t for t in members if t.is_contiguous() and t.numel() == length]
    base = whole[0] if whole else _io.strided_view(members[0], [length], [1], (begin - address_of(members[0])) // size)
    name = names[cluster[0].number]
    stored.append((name, base))
    for span, tensor in zip(cluster, members, strict=True):
        table[span.number].update(
            name=name,
            size=list(tensor.shape),
            stride=list(tensor.stride()),
            offset=(address_of(tensor) - begin) // size,
        )


# --- reading ----------------------------------------------------------------------------------------------------------


# What a wrong type, name, index or number in the JSON leads to.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error)


def _decode(file: Any, text: str, copy: bool) -> Any:
    try:
        skeleton = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        tensors = _read_tensors(file, skeleton["tensors"], copy)
        return _Decoder(tensors).node(skeleton["object"])
    except MemoryError:
        raise
    except _DAMAGE as error:
        if isinstance(error, LoadError) and str(error).startswith(file.name):
            raise
        raise LoadError(f"{file.name}: damaged object description: {type(error).__name__}: {error}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _read_tensors(file: Any, table: list[dict[str, Any]], copy: bool) -> list[Tensor]:
    bases: dict[str, Tensor] = {}
    result = []
    for entry in table:
        name = entry["name"]
        if name not in bases:
            mapped = file.tensor(name)
            bases[name] = mapped.clone() if copy else mapped
        tensor = bases[name]
        if "size" in entry:
            tensor = _io.strided_view(tensor, entry["size"], entry["stride"], entry["offset"])
        if entry.get("requires_grad", False):
            tensor.requires_grad_(True)
        result.append(tensor)
    return result


class _Decoder:
    """Rebuilds an object from its JSON; any surprise raises an exception that _decode explains."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "int": lambda digits: int(digits, 16),
            "float": lambda bits: struct.unpack(">d", bytes.fromhex(bits))[0],
            "bytes": lambda text: base64.b64decode(text, validate=True),
            "tuple": lambda items: tuple(self.node(x) for x in _list(items)),
            "dict": lambda members: {k: self.node(v) for k, v in members.items()},
            "items": lambda items: {self.node(k): self.node(v) for k, v in _list(items)},
            "tensor": self._tensor,
            "dtype": _dtype,
            "size": _size,
        }

    def node(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.node(x) for x in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        return self._kinds[kind](content)

    def _tensor(self, index: Any) -> Tensor:
        if type(index) is not int or not 0 <= index < len(self._tensors):
            raise ValueError(f"no tensor {index!r}")
        return self._tensors[index]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value


def _size(sizes: Any) -> Any:
    import deepseek

    if not all(type(n) is int for n in _list(sizes)):
        raise TypeError("sizes must be integers")
    return deepseek.Size(sizes)


def _dtype(name: Any) -> Any:
    import deepseek

    dtype = getattr(deepseek, name)
    if not isinstance(dtype, deepseek.dtype):
        raise ValueError(f"no dtype {name!r}")
    return dtype
