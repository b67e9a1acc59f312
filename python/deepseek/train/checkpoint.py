"""Checkpoints that survive a kill at any moment.

A checkpoint is an immutable folder ``step-N``: it is written under a temporary name, flushed to disk, and appears under
its own name by one rename. ``manifest.json`` holds the SHA-256 of every file; a folder that does not match it is
not a checkpoint. There is no pointer to the latest one: it is found by looking.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepseek

FORMAT = 1
_STEP = re.compile(r"step-(\d+)")
_TEMPORARY = ".tmp-"
_MANIFEST = "manifest.json"


class CheckpointError(ValueError):
    """No usable checkpoint, or the folder belongs to something else."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk.

    Attributes:
        path: Its folder.
        step: The step after which it was taken.
        manifest: Parsed ``manifest.json``: format, step, files, info.
    """

    path: Path
    step: int
    manifest: dict[str, Any]

    @property
    def info(self) -> dict[str, Any]:
        """What the writer put in: config, data digest, command."""
        info: dict[str, Any] = self.manifest["info"]
        return info

    def load(self, name: str) -> Any:
        """Reads the object that was saved under ``name``."""
        return deepseek.load(str(self.path / f"{name}.ds"))


def save_checkpoint(root: Path, step: int, parts: dict[str, Any], info: dict[str, Any]) -> Checkpoint:
    """Writes ``parts`` (name -> object for :func:`deepseek.save`) as ``root/step-N``; an existing valid one is kept.

    Args:
        root: Folder of the run; created if needed.
        step: Number N of the checkpoint.
        parts: Objects, each in a file of its own.
        info: JSON values for the manifest.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"step-{step}"
    existing = verify(final)
    if existing is not None:
        return existing
    temporary = root / f"{_TEMPORARY}step-{step}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    files: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        file = temporary / f"{name}.ds"
        deepseek.save(part, str(file))
        _sync(file)
        files[file.name] = {"sha256": _sha256(file), "bytes": file.stat().st_size}
    manifest = {"format": FORMAT, "step": step, "files": files, "info": info}
    with open(temporary / _MANIFEST, "w", encoding="utf-8") as out:
        json.dump(manifest, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    _sync(temporary)
    if final.exists():  # it failed verification above
        _discard(final)
    os.rename(temporary, final)
    _sync(root)
    return Checkpoint(final, step, manifest)


def verify(folder: Path) -> Checkpoint | None:
    """Returns the checkpoint in ``folder``, or None if it is incomplete, damaged or of another format."""
    match = _STEP.fullmatch(folder.name)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        good = (
            match is not None
            and manifest["format"] == FORMAT
            and manifest["step"] == int(match.group(1))
            and isinstance(manifest["info"], dict)
            and all(Path(name).name == name and _sha256(folder / name) == files[name]["sha256"] for name in files)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Checkpoint(folder, manifest["step"], manifest) if good else None


def step_folders(root: Path) -> list[Path]:
    """Returns the folders named ``step-N`` below ``root``, highest N first, verified or not."""
    if not root.is_dir():
        return []
    found = [(int(match.group(1)), entry) for entry in root.iterdir() if (match := _STEP.fullmatch(entry.name))]
    return [entry for _, entry in sorted(found, key=lambda item: item[0], reverse=True)]


def newest(root: Path) -> Checkpoint | None:
    """Returns the verified checkpoint with the highest step below ``root``."""
    return next((found for folder in step_folders(root) if (found := verify(folder))), None)


def find_checkpoint(path: Path) -> Checkpoint:
    """Returns the checkpoint at ``path``, which is a ``step-N`` folder or the folder of a run.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if _STEP.fullmatch(path.name):
        found = verify(path)
        if found is None:
            raise CheckpointError(f"{path} is damaged or incomplete: its files do not match its manifest")
        return found
    found = newest(path)
    if found is None:
        raise CheckpointError(f"{path} holds no usable checkpoint (a folder step-N with a matching manifest)")
    return found


def prune(root: Path, keep: int) -> None:
    """Removes all but the ``keep`` newest verified checkpoints; a damaged folder does not count as kept."""
    kept = 0
    for folder in step_folders(root):
        if kept >= keep:
            _discard(folder)
        elif verify(folder) is not None:
            kept += 1


@contextmanager
def run_lock(root: Path) -> Iterator[None]:
    """Holds the run's folder for one writer and clears what a killed one left half-written.

    Raises:
        CheckpointError: Another process is training into the folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckpointError(f"{root} is in use by another training process") from None
        for entry in root.iterdir():
            if entry.name.startswith(_TEMPORARY):
                shutil.rmtree(entry, ignore_errors=True)
        yield


def _discard(folder: Path) -> None:
    """Removes a folder such that a kill in the middle leaves no half a checkpoint under a step's name."""
    doomed = folder.with_name(f"{_TEMPORARY}old-{folder.name}-{os.getpid()}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
