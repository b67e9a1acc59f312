"""Op entries by family, in the folders of `csrc/ops/`. Importing this package fills `core.REGISTRY`."""

import importlib
import pkgutil

from .core import REGISTRY, OpInfo, Sample

__all__ = ["REGISTRY", "OpInfo", "Sample"]

WITHOUT_ENTRIES = {"core", "inplace_programs", "printed", "running"}  # what tests of ops share

for module in pkgutil.walk_packages(__path__, f"{__name__}."):
    if module.name.removeprefix(f"{__name__}.") not in WITHOUT_ENTRIES:
        importlib.import_module(module.name)
