"""Recognises files of other formats by their first bytes, for error messages."""

from __future__ import annotations

_CONVERT = "convert it with torch.load and safetensors.torch.save_file where you trust it"
_SIGNATURES = (
    (b"PK\x03\x04", f"a zip archive, as torch.save writes; pickles in it are never loaded here: {_CONVERT}"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a .npy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x1f\x8b", "gzip data: decompress it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
# What follows a pickle's protocol: a frame, or the opcode of a first value (0x8a begins torch's files before 1.6).
_FIRST_OPCODES = frozenset(b"\x95}](cNXKMJG\x88\x89\x8a\x8c")


def describe(head: bytes) -> str | None:
    """What a file that begins with `head` (its first few hundred bytes) seems to be, or None."""
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2] in _FIRST_OPCODES:
        return f"a pickle, which is never loaded here because it can run code: {_CONVERT}"
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((what for signature, what in _SIGNATURES if head.startswith(signature)), None)
