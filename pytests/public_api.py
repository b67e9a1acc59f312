"""Every public module, class, function and method of the package, found by looking: what tests of the API go over."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import deepseek


def modules() -> list[ModuleType]:
    """The package and its public modules; the command line's files are not an API."""
    found = [deepseek]
    for entry in pkgutil.walk_packages(deepseek.__path__, "deepseek."):
        path = entry.name.split(".")
        if not any(part.startswith("_") for part in path) and not entry.name.startswith("deepseek.cli."):
            found.append(importlib.import_module(entry.name))
    return [module for module in found if hasattr(module, "__all__")]


def public_names(module: ModuleType) -> list[str]:
    """What a user sees after the module's name and a dot."""
    return [name for name in dir(module) if not name.startswith("_")]


def callables() -> Iterator[tuple[str, Any]]:
    """Dotted name and object of every public function and class."""
    for module in modules():
        for name in public_names(module):
            value = getattr(module, name)
            if callable(value) and not inspect.ismodule(value):
                yield f"{module.__name__}.{name}", value


def methods(owner: type) -> Iterator[tuple[str, Any]]:
    """Name and function of every public method that is defined in this package."""
    for name in dir(owner):
        value = inspect.getattr_static(owner, name, None)
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if name.startswith("_") or not inspect.isroutine(value):
            continue
        if getattr(value, "__module__", None) is None or str(value.__module__).startswith("deepseek"):
            yield name, value
