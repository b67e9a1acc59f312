"""Recognises files of other formats by their first bytes, for error messages."""

from __future__ import annotations

import json
import re

_CONVERT = "convert it with torch.load and safetensors.torch.save_file where you trust it"
_TORCH = f"a zip archive, as torch.save writes; pickles in it can run code and are never loaded here: {_CONVERT}"
# First bytes, what such a file is, and the way out.
_SIGNATURES = (
    (b"GGUF", "a GGUF file of quantized weights, as llama.cpp reads; there is no reader of it here: use the original"),
    (b"ggjt", "a GGML file, as old versions of llama.cpp read; there is no reader of it here: use the original"),
    (b"\x93NUMPY", "a .npy array: read it with numpy.load and deepseek.from_numpy"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file: read it with h5py and deepseek.from_numpy"),
    (b"\x1f\x8b", "gzip data: decompress it first"),
    (b"BZh", "bzip2 data: decompress it first"),
    (b"\xfd7zXZ\x00", "xz data: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "zstd data: decompress it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"PAR1", "a Parquet file: read it with pyarrow"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "an ELF binary, a program or a library; give the file of the weights"),
    (b"MZ", "a Windows program; give the file of the weights"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: fetch it with git lfs pull"),
)
# What follows a pickle's protocol: a frame, or the opcode of a first value (0x8a begins torch's files before 1.6).
_FIRST_OPCODES = frozenset(b"\x95}](cNXKMJG\x88\x89\x8a\x8c")


def describe(head: bytes) -> str | None:
    """What a file that begins with `head` (its first few hundred bytes) seems to be, and what to do; or None."""
    if not head:
        return "an empty file: the download or the copy of it failed"
    if not any(head):
        return "zeros: room was made for a file that was never written"
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2] in _FIRST_OPCODES:
        return f"a pickle, which is never loaded here because it can run code: {_CONVERT}"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(head)
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    return next((what for signature, what in _SIGNATURES if head.startswith(signature)), None) or _text(head)


def _zip(head: bytes) -> str:
    """A zip archive by the name of its first entry."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if name.endswith(b".npy"):
        return "an .npz archive of NumPy: read it with numpy.load and deepseek.from_numpy"
    if name.endswith((b"/data.pkl", b"/.format_version", b"/byteorder")):
        return _TORCH
    return "a zip archive: unpack it first"


def _text(head: bytes) -> str | None:
    """Text by its first characters; None for bytes that are no text."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else only the last character is cut off
            return None
        text = head[: error.start].decode("utf-8")
    if not all(character.isprintable() or character in "\t\n\r\f\ufeff" for character in text):
        return None
    start = text.lstrip("\ufeff \t\n\r").lower()
    if start.startswith(("<!doctype", "<html")):
        return "an HTML page: the download ended at a page of the site (an error, or a log-in); download it again"
    if start.startswith("<"):
        return "XML text"
    if '"weight_map"' in text:
        return "the index of a model in several files: load the files that it names"
    if re.match(r"[{\[]\s*[\"{\[\]}\d]", start):
        return "JSON text; weights are in the .safetensors files beside such a file"
    return f"text that begins with {json.dumps(text[:20], ensure_ascii=False)}"
