"""Checkpoints that survive a kill at any moment.

A checkpoint is an immutable folder ``step-N``: it is written under a temporary name, flushed to disk, and appears under
its own name by one rename. ``manifest.json`` holds the SHA-256 of every file; a folder that does not match it is
not a checkpoint. There is no pointer to the latest one: it is found by looking.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    _make_folder(root)
    final = root / f"step-{step}"
    with _writing(root):
        existing = verify(final)
        if existing is not None:
            _sync(root)  # its writer may have been killed before it could
            return existing
        temporary = root / f"{_TEMPORARY}step-{step}-{secrets.token_hex(8)}"
        temporary.mkdir()
        try:
            manifest = _write(temporary, step, parts, info)
            if final.exists():  # it failed verification above, or another writer was faster
                existing = verify(final)
                if existing is not None:
                    _remove(temporary)
                    _sync(root)
                    return existing
                _discard(final)
            os.rename(temporary, final)
        except BaseException:
            _remove(temporary)  # a full disk must not stay full
            raise
        _sync(root)
    return Checkpoint(final, step, manifest)


def _write(folder: Path, step: int, parts: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Writes the files of a checkpoint and makes them durable; returns the manifest, which is written last."""
    files: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        file = folder / f"{name}.ds"
        deepseek.save(part, str(file))  # synced
        files[file.name] = {"sha256": _sha256(file), "bytes": file.stat().st_size}
    manifest = {"format": FORMAT, "step": step, "files": files, "info": info}
    with open(folder / _MANIFEST, "w", encoding="utf-8") as out:
        json.dump(manifest, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    _sync(folder)
    return manifest


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


def is_step_folder(path: Path) -> bool:
    """Whether ``path`` has the name of a checkpoint."""
    return _STEP.fullmatch(path.name) is not None


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
    found = verify(path) if is_step_folder(path) else newest(path)
    if found is None:
        raise CheckpointError(no_checkpoint(path))
    return found


def no_checkpoint(path: Path) -> str:
    """Says why nothing can be read from ``path``, which is a ``step-N`` folder or the folder of a run."""
    if not path.exists():
        return f"{path} does not exist"
    damaged = [path] if is_step_folder(path) else step_folders(path)
    if not damaged:
        return f"{path} holds no usable checkpoint: there is no folder step-N in it"
    names = ", ".join(folder.name for folder in damaged)
    return f"{path} holds no usable checkpoint: {names} damaged or incomplete (files do not match manifest.json)"


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

    Folders that it made are removed again if the block fails before anything was saved.

    Raises:
        CheckpointError: Another process is training into the folder.
    """
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    _make_folder(root)
    path = root / ".lock"
    with open(path, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock.fileno()), path.stat()):  # its maker has just removed it, see below
                raise FileNotFoundError(path)
        except OSError:
            raise CheckpointError(f"{root} is in use by another training process") from None
        with _writing(root):
            pass
        try:
            yield
        except BaseException:
            if made and [entry.name for entry in root.iterdir()] == [path.name]:
                path.unlink()
                with suppress(OSError):  # somebody else put something there meanwhile
                    for folder in made:
                        folder.rmdir()
            raise


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Removes what killed writers left in ``root``, and keeps other writers from removing what this one writes."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):  # nobody else is writing
            for entry in root.iterdir():
                if entry.name.startswith(_TEMPORARY):
                    _remove(entry)
        _lock(handle, fcntl.LOCK_SH)
        yield
    finally:
        _lock(handle, fcntl.LOCK_UN)  # a child forked meanwhile would hold it on
        os.close(handle)


def _lock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how)
    except OSError:  # held, or a file system without locks, where leftovers stay until somebody removes them
        return False
    return True


def _discard(folder: Path) -> None:
    """Removes a folder such that a kill in the middle leaves no half a checkpoint under a step's name."""
    doomed = folder.with_name(f"{_TEMPORARY}old-{folder.name}-{secrets.token_hex(8)}")
    os.rename(folder, doomed)
    _remove(doomed)


def _remove(folder: Path) -> None:
    with suppress(OSError):  # rmtree does not ignore all errors; the next writer tries again
        shutil.rmtree(folder, ignore_errors=True)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _make_folder(folder: Path) -> None:
    """Creates ``folder`` and its parents such that they are there after a power failure too."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and user-space file systems cannot sync a directory; their rename is as durable as they make it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)
