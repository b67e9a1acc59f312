"""Prints the Python interpreters of this machine that the package can be built for, one "version path" a line.

Arguments, where given, are the versions wanted: 3.12 stands for each 3.12.x.

Looks at what PATH and pyenv offer; each version once. One that lacks headers or pip is named on stderr and left out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = tuple(int(n) for n in PROJECT["requires-python"].removeprefix(">=").split("."))
# sys.executable looks through launcher scripts; the base prefix through virtual environments.
ASK = """
import importlib.util, json, os, platform, sys, sysconfig
print(json.dumps({
    "path": getattr(sys, "_base_executable", None) or sys.executable,
    "version": platform.python_version(),
    "number": list(sys.version_info[:2]),
    "implementation": sys.implementation.name,
    "headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
    "pip": importlib.util.find_spec("ensurepip") is not None and importlib.util.find_spec("venv") is not None,
}))
"""


def candidates() -> list[Path]:
    """Executables called python3 or python3.N, of PATH and of pyenv's versions."""
    folders = [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep) if p]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        folders += sorted(Path(root).glob("versions/*/bin"))
    return [p for f in folders if f.is_dir() for p in sorted(f.iterdir()) if re.fullmatch(r"python3(\.\d+)?", p.name)]


def main() -> None:
    found: dict[str, str] = {}
    for path in candidates():
        asked = subprocess.run([path, "-c", ASK], capture_output=True, text=True)
        if asked.returncode != 0:
            continue  # a launcher of a version that is not switched on
        about = json.loads(asked.stdout)
        if about["implementation"] != "cpython" or tuple(about["number"]) < OLDEST or about["version"] in found:
            continue
        if not (about["headers"] and about["pip"]):
            print(f"left out, no headers or no pip: {about['path']}", file=sys.stderr)
            continue
        found[about["version"]] = about["path"]
    wanted = sys.argv[1:]
    for version in sorted(found, key=lambda v: [int(n) for n in re.findall(r"\d+", v)]):
        if not wanted or any(f"{version}.".startswith(f"{w}.") for w in wanted):
            print(version, found[version])


main()
