"""Byte data from source files: found, split by file into train and held-out, and drawn in a repeatable order."""

from __future__ import annotations

import hashlib
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deepseek

if TYPE_CHECKING:
    import numpy as np

    from deepseek import Tensor

SEPARATOR = 0  # the byte between files; it does not occur in text
# Not the library itself: installed packages, tests (Debian leaves most of them out), and caches.
_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})


class DataError(ValueError):
    """The training text is missing or too small."""


@dataclass(frozen=True)
class Corpus:
    """Training and held-out bytes, each the files joined by :data:`SEPARATOR`.

    Attributes:
        name: What it was read from, for people.
        train: uint8 [train bytes].
        held_out: uint8 [held-out bytes].
        n_train_files: Files in ``train``.
        n_held_out_files: Files in ``held_out``.
        digest: SHA-256 of both parts; a resumed run refuses other data.
        remark: What the reader may want to know about the text; mostly empty.
    """

    name: str
    train: np.ndarray[Any, Any]
    held_out: np.ndarray[Any, Any]
    n_train_files: int
    n_held_out_files: int
    digest: str
    remark: str = ""


def standard_library() -> Path:
    """Returns the folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def load_corpus(path: str | Path | None = None, suffix: str = ".py", held_out_share: float = 0.08) -> Corpus:
    """Reads all files below a folder (or one file) that end in ``suffix`` and splits them by file.

    Which side a file falls on depends on the SHA-256 of its relative path alone, so it is the same on every machine
    and stays the same when other files come and go. A single file is split by position, its end is held out.

    Args:
        path: Folder or file; None reads Python's standard library.
        suffix: End of the file names to read, empty for all (not used when ``path`` is a file).
        held_out_share: Share of the files that is held out, between 0 and 1.

    Raises:
        DataError: Nothing was found, or one of the two sides is empty.
    """
    import numpy as np

    if not 0.0 < held_out_share < 1.0:
        raise DataError(f"data.held_out must lie between 0 and 1, got {held_out_share}")
    root = standard_library() if path is None else Path(path)
    name = "Python standard library" if path is None else str(root)
    if root.is_dir():
        train, held_out = _split_files(root, suffix, held_out_share)
    else:
        text = _read(root)
        cut = int(len(text) * (1.0 - held_out_share))
        train, held_out = [text[:cut]], [text[cut:]]
        if not 0 < cut < len(text):
            what = f"has {len(text)} bytes, too few to hold out {held_out_share:g} of them" if text else "is empty"
            raise DataError(f"data.path: {root} {what}")
    odd = sum(not _is_text(text) for text in ((*train, *held_out) if root.is_dir() else (text,)))
    separator = bytes([SEPARATOR])
    train_bytes, held_out_bytes = separator.join(train), separator.join(held_out)
    digest = hashlib.sha256(hashlib.sha256(train_bytes).digest() + hashlib.sha256(held_out_bytes).digest())
    return Corpus(
        name=name,
        train=np.frombuffer(train_bytes, dtype=np.uint8),
        held_out=np.frombuffer(held_out_bytes, dtype=np.uint8),
        n_train_files=len(train),
        n_held_out_files=len(held_out),
        digest=digest.hexdigest(),
        remark=f"data.path: {odd} files of {name} are not UTF-8 text, they are read as bytes" if odd else "",
    )


def _split_files(root: Path, suffix: str, held_out_share: float) -> tuple[list[bytes], list[bytes]]:
    """Returns the contents of the training and of the held-out files, each ordered by the hash of the path."""
    files = list(_files_to_read(root))
    ranked = [
        (hashlib.sha256(file.relative_to(root).as_posix().encode()).digest(), file)
        for file in files
        if file.name.endswith(suffix)
    ]
    if not ranked:
        others = Counter(file.suffix for file in files).most_common(3)
        hint = ", ".join(f"{count} ending in {end!r}" for end, count in others) or "no files at all"
        raise DataError(
            f"data.path: {root} holds no files to read ending in {suffix!r}, as data.suffix asks for; it holds {hint}"
        )
    ranked.sort()
    limit = int(held_out_share * 2**32)
    train: list[bytes] = []
    held_out: list[bytes] = []
    for rank, file in ranked:
        (held_out if int.from_bytes(rank[:4], "big") < limit else train).append(_read(file))
    if not any(train) or not any(held_out):
        raise DataError(
            f"data.path: {root} has too few files ending in {suffix!r}: of its {len(ranked)} files with "
            f"{sum(map(len, (*train, *held_out)))} bytes, data.held_out = {held_out_share:g} leaves {len(train)} to "
            f"train on and {len(held_out)} held out; give more files, one file, or another data.held_out"
        )
    return train, held_out


def _files_to_read(root: Path) -> Iterator[Path]:
    """The files below a folder that may be text to train on, whatever their names end in."""
    for file in root.rglob("*"):
        relative = file.relative_to(root)
        generated = relative.name.startswith("_sysconfigdata")  # differs between builds of one Python version
        if _SKIPPED_FOLDERS.isdisjoint(relative.parts[:-1]) and not generated and file.is_file():
            yield file


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"data.path: {file} does not exist") from None
    except OSError as error:
        raise DataError(f"data.path: cannot read {file}: {error.strerror or error}") from None


def _is_text(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class WindowSampler:
    """Draws training windows in a shuffled order without repetition within an epoch.

    The order is a function of (seed, position) only, so ``position`` is all there is to save and restore.
    """

    def __init__(self, data: np.ndarray[Any, Any], context: int, seed: int) -> None:
        if len(data) < 2 * context + 1:
            raise DataError(
                f"data.path: the training text has {len(data)} bytes, model.context = {context} needs at least "
                f"{2 * context + 1}"
            )
        self._data = data
        self._context = context
        self._seed = seed
        self._windows = (len(data) - context - 1) // context
        self._epoch = -1
        self._order: Any = None
        self._phase = 0
        self.position = 0  # windows drawn since the start of the run

    def next_batch(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets, both int64 [batch_size, context]; targets are one byte later."""
        import numpy as np

        rows = np.empty((batch_size, self._context + 1), dtype=np.int64)
        for row in rows:
            start = self._start_of(self.position)
            row[:] = self._data[start : start + self._context + 1]
            self.position += 1
        return deepseek.from_numpy(rows[:, :-1].copy()), deepseek.from_numpy(rows[:, 1:].copy())

    def _start_of(self, position: int) -> int:
        import numpy as np

        epoch, index = divmod(position, self._windows)
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
            # Another phase every epoch, so that the windows do not begin at the same bytes again.
            self._phase = int(rng.integers(self._context))
            self._order = rng.permutation(self._windows)
            self._epoch = epoch
        return self._phase + self._context * int(self._order[index])
