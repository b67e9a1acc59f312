"""``deepseek doctor``: what this installation is made of and how it will run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from pathlib import Path
from typing import Any

import deepseek
from deepseek import _C
from deepseek.cli.report import print_table

# Package -> what it is used for.
_EXTRAS = {
    "numpy": "arrays (required)",
    "typer": "command line",
    "rich": "command line",
    "yaml": "YAML configuration files",
    "safetensors": "oracle in tests",
    "hypothesis": "tests",
    "pytest": "tests",
    "ml_dtypes": "bfloat16 and float8 in NumPy",
    "torch": "oracle in tests",
}
_DISTRIBUTIONS = {"yaml": "pyyaml", "ml_dtypes": "ml-dtypes"}


def collect() -> dict[str, Any]:
    """Returns everything doctor prints, as JSON values."""
    return {
        "version": deepseek.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "package": str(Path(deepseek.__file__).parent),
        "build": dict(_C.build_info()),
        "machine": {
            "cpu": _cpu_model(),
            "cpus_allowed": len(os.sched_getaffinity(0)),
            "cgroup_cpu_quota": cgroup_quota(),
        },
        "environment": {
            name: os.environ.get(name)
            for name in ("DEEPSEEK_NUM_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "DEEPSEEK_ISA")
        },
        "extras": {name: _version(name) for name in _EXTRAS},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Returns the CPUs' worth of time the control groups grant (the smallest on the way to the root), or None.

    Reads cgroup v2 (``cpu.max``) and v1 (``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``) below ``root``.
    """
    quotas: list[float] = []
    try:
        entries = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for entry in entries:
        _, controllers, path = entry.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" if not controllers else root / "sys/fs/cgroup/cpu"
        relative = Path(path.lstrip("/"))
        for folder in (relative, *relative.parents):
            quota = _quota_of(base / folder)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _version(module: str) -> str | None:
    """Returns the installed version of a package without importing it."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return "present, version unknown"


def _text(value: object) -> str:
    return ", ".join(f"{name}: {item}" for name, item in value.items()) if isinstance(value, dict) else str(value)


def run_doctor(as_json: bool) -> int:
    """Prints what :func:`collect` found; returns the exit code."""
    facts = collect()
    if as_json:
        print(json.dumps(facts, indent=1))
        return 0
    quota = facts["machine"]["cgroup_cpu_quota"]
    rows = [[name, str(facts[name])] for name in ("version", "python", "platform", "package")]
    rows += [[name.replace("_", " "), _text(value)] for name, value in facts["build"].items() if name != "version"]
    rows += [
        ["cpu", facts["machine"]["cpu"]],
        ["cpus allowed", str(facts["machine"]["cpus_allowed"])],
        ["cgroup cpu quota", "none" if quota is None else f"{quota:g} cpus"],
    ]
    rows += [[name, value] for name, value in facts["environment"].items() if value is not None]
    rows += [
        [f"extra: {name}", f"{version or 'absent'} ({_EXTRAS[name]})"] for name, version in facts["extras"].items()
    ]
    print_table("deepseek doctor", rows, numbers=False)
    return 0
