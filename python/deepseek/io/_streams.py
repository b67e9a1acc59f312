"""Whole reads and writes of file objects, whose own calls may move less than they were asked to."""

from __future__ import annotations

import errno
import io
import operator
from typing import Any

__all__ = ["read_all", "write_all"]


def write_all(file: Any, data: bytes) -> None:
    """Writes all of `data`. A raw file's ``write`` may take a part only, and says so by what it returns.

    Objects that are no files of `io` and whose ``write`` returns None count as having taken everything.

    Raises:
        OSError: the file takes nothing any more; BlockingIOError when it would have to be waited for.
        TypeError: ``write`` returns neither a count nor None.
    """
    done = 0
    while done < len(data):
        count = file.write(data if done == 0 else memoryview(data)[done:])
        if count is None and not isinstance(file, io.RawIOBase):
            return
        if count is None:
            reason = f"the file took {done} of {len(data)} bytes and would block on the rest"
            raise BlockingIOError(errno.EAGAIN, reason, done)
        try:
            count = operator.index(count)
        except TypeError:
            raise TypeError(
                f"{type(file).__name__}.write() returned {count!r}; a file object returns how many bytes it took"
            ) from None
        if not 0 < count <= len(data) - done:
            raise OSError(
                errno.EIO,
                f"{type(file).__name__}.write() took {count} of the {len(data) - done} bytes left; "
                f"{done} of {len(data)} are written",
            )
        done += count


def read_all(file: Any) -> bytes:
    """Everything up to the end. A raw file's ``read`` may return a part only; the end is where it returns nothing.

    Raises:
        BlockingIOError: the file has no bytes ready.
        TypeError: ``read`` returns no bytes, as of a file opened as text.
    """
    parts: list[bytes | bytearray | memoryview] = []
    while True:
        part = file.read()
        if part is None:
            read = sum(map(len, parts))
            raise BlockingIOError(errno.EAGAIN, f"the file has no more bytes ready after {read}")
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise TypeError(
                f"{type(file).__name__}.read() returned {type(part).__name__}, not bytes: open the file in mode 'rb'"
            )
        if not part:
            return b"".join(parts) if len(parts) != 1 else bytes(parts[0])
        parts.append(part)
