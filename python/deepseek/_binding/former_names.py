"""Private modules of former versions that pickles, of tensors for instance, name: where their names are now."""

from __future__ import annotations

from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

PLACES = {
    "deepseek._composites": "deepseek",
    "deepseek._device": "deepseek._tensor.device",
    "deepseek._einsum": "deepseek",
    "deepseek._exchange": "deepseek",
    "deepseek._info": "deepseek",
    "deepseek._legacy": "deepseek._tensor.legacy_types",
    "deepseek._serialization": "deepseek",
    "deepseek._settings": "deepseek",
    "deepseek._storage": "deepseek",
    "deepseek._tensor_copy": "deepseek._tensor.copying",
    "deepseek._tensor_str": "deepseek",
    "deepseek._top": "deepseek",
    "deepseek._unique": "deepseek",
}


class _Loader(Loader):
    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        place = import_module(PLACES[module.__name__])
        vars(module)["__getattr__"] = lambda name: getattr(place, name)


def find(fullname: str) -> ModuleSpec | None:
    """For the import system: a stand-in for a module of a former name."""
    return ModuleSpec(fullname, _Loader()) if fullname in PLACES else None
