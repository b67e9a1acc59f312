"""Containers of modules and of parameters."""

# mypy: no-implicit-reexport

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deepseek import _C, Tensor
from deepseek._binding.public import public
from deepseek.nn.modules.module import Module, describe_tensor
from deepseek.nn.parameter import Parameter


def _position(index: Any, length: int) -> int:
    """A list position as a non-negative int; IndexError outside."""
    place = operator.index(index)
    if not -length <= place < length:
        raise IndexError(f"index {place} is out of range")
    return place % length


class _ModuleSequence(Module):
    """Modules under the names "0", "1", …: the list behaviour of Sequential and ModuleList."""

    def _from(self, modules: list[Module]) -> Any:
        raise NotImplementedError

    def _key(self, index: Any) -> str:
        return list(self._modules)[_position(index, len(self))]

    def _set_all(self, modules: Iterable[Module]) -> None:
        self._modules.clear()
        for place, module in enumerate(modules):
            self.add_module(str(place), module)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._slice(index)
        return self._modules[self._key(index)]

    def _slice(self, index: slice) -> Any:
        return self._from(list(self._modules.values())[index])

    def __setitem__(self, index: Any, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: Any) -> None:
        modules = list(self._modules.values())
        del modules[index if isinstance(index, slice) else _position(index, len(self))]
        self._set_all(modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def append(self, module: Module) -> Any:
        """Put ``module`` at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Put several modules at the end."""
        if not isinstance(modules, Iterable):
            raise TypeError(f"{type(self).__name__}.extend should be called with an iterable, got {type(modules)}")
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put ``module`` before position ``index``."""
        if not isinstance(module, Module):
            raise TypeError(f"{_C._type_name(module)} is not a Module subclass")
        modules = list(self._modules.values())
        modules.insert(index, module)
        self._set_all(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Take the module at ``index`` out and return it."""
        module: Module = self[index]
        del self[index]
        return module


@public
class Sequential(_ModuleSequence):
    """Modules applied one after the other, given as arguments or as one ordered dict of names."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            self._set_all(args)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input

    def _slice(self, index: slice) -> Sequential:
        return type(self)(dict(list(self._modules.items())[index]))

    def __delitem__(self, index: Any) -> None:
        names = list(self._modules)
        named = any(not name.isdigit() for name in names)
        if not named:
            super().__delitem__(index)
            return
        doomed = names[index] if isinstance(index, slice) else [names[_position(index, len(self))]]
        for name in doomed:
            del self._modules[name]

    def __add__(self, other: Any) -> Sequential:
        if not isinstance(other, Sequential):
            return NotImplemented
        return Sequential(*self, *other)

    def __iadd__(self, other: Any) -> Any:
        if not isinstance(other, Sequential):
            return NotImplemented
        return self.extend(other)

    def __mul__(self, times: int) -> Sequential:
        if not isinstance(times, int):
            return NotImplemented
        if times <= 0:
            raise ValueError(f"Non-positive multiplication factor {times} for {type(self)}")
        return Sequential(*(list(self) * times))

    __rmul__ = __mul__


@public
class ModuleList(_ModuleSequence):
    """A list of modules that the parent sees; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def _from(self, modules: list[Module]) -> ModuleList:
        return type(self)(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self, modules: Iterable[Module]) -> Any:
        return self.extend(modules)

    def __repr__(self) -> str:
        """Runs of equal modules are written once: ``(0-3): 4 x Linear(...)``."""
        texts = [repr(module) for module in self]
        if not texts:
            return f"{self._get_name()}()"
        runs: list[list[Any]] = []  # [first, last, text]
        for place, text in enumerate(texts):
            if runs and runs[-1][2] == text:
                runs[-1][1] = place
            else:
                runs.append([place, place, text])
        lines = []
        for first, last, text in runs:
            head = f"({first})" if first == last else f"({first}-{last})"
            count = "" if first == last else f"{last - first + 1} x "
            lines.append(f"{head}: {count}{text}".replace("\n", "\n  "))
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


class _DictModule(Module):
    """Dict behaviour over named entries."""

    def _entries(self) -> dict[str, Any]:
        raise NotImplementedError

    def __getitem__(self, key: str) -> Any:
        return self._entries()[key]

    def __delitem__(self, key: str) -> None:
        del self._entries()[key]

    def __len__(self) -> int:
        return len(self._entries())

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries())

    def __contains__(self, key: object) -> bool:
        return key in self._entries()

    def __setitem__(self, key: str, value: Any) -> None:
        raise NotImplementedError

    def clear(self) -> None:
        """Remove every module and name."""
        self._entries().clear()

    def pop(self, key: str, *default: Any) -> Any:
        """Take the entry ``key`` out and return it."""
        return self._entries().pop(key, *default)

    def keys(self) -> Iterable[str]:
        """The names, in order."""
        return self._entries().keys()

    def values(self) -> Iterable[Any]:
        """The modules, in order."""
        return self._entries().values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and entries."""
        return self._entries().items()

    def get(self, key: str, default: Any = None) -> Any:
        """The entry ``key``, or ``default``."""
        return self._entries().get(key, default)

    def update(self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add or replace entries, given as a mapping or as pairs."""
        if isinstance(entries, Mapping) or hasattr(entries, "items"):
            pairs = list(entries.items())
        elif isinstance(entries, Iterable):
            pairs = [tuple(pair) for pair in entries]
        else:
            raise TypeError(
                f"{type(self).__name__}.update should be called with an iterable of key/value pairs, "
                f"but got {_C._type_name(entries)}"
            )
        for place, pair in enumerate(pairs):
            if len(pair) != 2:
                raise ValueError(
                    f"{type(self).__name__} update sequence element #{place} has length {len(pair)}; 2 is required"
                )
            self[pair[0]] = pair[1]


@public
class ModuleDict(_DictModule):
    """A dict of modules that the parent sees."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def _entries(self) -> dict[str, Any]:
        return self._modules

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)


class _ValueContainer(Module):
    """Values under names, in order. Tensors become parameters, and modules are registered; others are just kept."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}

    def _put(self, key: str, value: Any) -> None:
        if isinstance(value, Tensor) and not isinstance(value, Parameter):
            differentiable = value.is_floating_point() or value.is_complex()
            value = Parameter(value, requires_grad=value.requires_grad or differentiable)
        if key not in self._keys:
            self._check_name("parameter", key, {})
        setattr(self, key, value)
        self._keys[key] = None

    def _line(self, key: str) -> str:
        value = getattr(self, key)
        text = describe_tensor(value) if isinstance(value, Tensor) else f"Object of type: {_C._type_name(value)}"
        return f"({key}): {text}"

    def extra_repr(self) -> str:
        return "\n".join(self._line(key) for key in self._keys if key not in self._modules)  # these are shown anyway


@public
class ParameterDict(_ValueContainer, _DictModule):
    """A dict of parameters that the parent sees; plain tensors become parameters, other values stay what they are."""

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None) -> None:
        super().__init__()
        if parameters is not None:
            self.update(parameters)

    def _entries(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self._keys}

    def __setitem__(self, key: str, value: Any) -> None:
        self._put(key, value)

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def clear(self) -> None:
        for key in list(self._keys):
            del self[key]

    def pop(self, key: str, *default: Any) -> Any:
        if key not in self._keys and default:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Take the last entry out and return its name and value."""
        if not self._keys:
            raise KeyError("popitem(): the ParameterDict is empty")
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The entry ``key``, put there first if it is missing."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A new dict of these names, all with the one value."""
        return ParameterDict((key, default) for key in keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._keys)

    def __or__(self, other: Any) -> ParameterDict:
        copied = self.copy()
        copied.update(other)
        return copied

    def __ror__(self, other: Any) -> ParameterDict:
        return ParameterDict(other) | self

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self

    def copy(self) -> ParameterDict:
        """A new dict of the same parameters."""
        return ParameterDict(self._entries())


@public
class ParameterList(_ValueContainer):
    """A list of parameters that the parent sees; plain tensors become parameters, other values stay what they are."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        if values is not None:
            self.extend(values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, str(_position(index, len(self))))

    def __setitem__(self, index: int, value: Any) -> None:
        self._put(str(_position(index, len(self))), value)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, key) for key in list(self._keys))

    def append(self, value: Any) -> ParameterList:
        """Put one value at the end."""
        self._put(str(len(self)), value)
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Put several values at the end."""
        if isinstance(values, Tensor) or not isinstance(values, Iterable):
            raise TypeError(f"ParameterList.extend should be called with an iterable, but got {_C._type_name(values)}")
        for value in list(values):
            self.append(value)
        return self

    __iadd__ = extend
