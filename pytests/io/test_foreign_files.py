"""Files of other formats given to ``load`` and ``load_file``: the error says what they look like and what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import random
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek.io import safetensors
from deepseek.io._foreign import describe


def zipped(name: str, data: bytes = b"x" * 50) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, data)
    return out.getvalue()


def from_numpy(write: Callable[..., None]) -> bytes:
    out = io.BytesIO()
    write(out, np.arange(20.0))
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


WEIGHTS = {"w": [1.0, 2.0]}
FILES: dict[str, tuple[bytes, str]] = {
    "torch.pt": (zipped("archive/data.pkl"), r"zip archive, as torch\.save writes; pickles.*torch\.load"),
    "other.zip": (zipped("readme.txt"), "a zip archive.*unpack it"),
    "empty.zip": (b"PK\5\6" + bytes(18), "a zip archive"),
    "weights.npz": (from_numpy(np.savez), r"\.npz archive of NumPy.*numpy\.load"),
    "weights.npy": (from_numpy(np.save), r"\.npy array.*numpy\.load"),
    "weights.pkl": (pickle.dumps(WEIGHTS), "a pickle.*can run code"),
    "old.pkl": (pickle.dumps(WEIGHTS, protocol=2), "a pickle"),
    "model.gguf": (b"GGUF" + (3).to_bytes(4, "little") + bytes(100), "a GGUF file.*use the original"),
    "weights.gz": (gzip.compress(b"weights" * 20), "gzip data: decompress"),
    "weights.bz2": (bz2.compress(b"weights" * 20), "bzip2 data"),
    "weights.xz": (lzma.compress(b"weights" * 20), "xz data"),
    "weights.tar": (tarred(), "a tar archive"),
    "lib.so": (b"\x7fELF\2\1\1" + bytes(200), "an ELF binary"),
    "nothing": (b"", "an empty file"),
    "zeros": (bytes(5000), "zeros"),
    "config.json": (json.dumps({"dim": 3}, indent=2).encode(), "JSON text"),
    "list.json": (b"[1, 2, 3]", "JSON text"),
    "model.safetensors.index.json": (b'{"metadata": {}, "weight_map": {"a": "b"}}', "load the files that it names"),
    "page": (b"<!DOCTYPE html>\n<html><head><title>404</title>", "HTML page.*download it again"),
    "feed": (b'<?xml version="1.0"?><a/>', "XML text"),
    "notes.txt": ("Grüße, this is no file of weights".encode(), 'text that begins with "Grüße, this is no fi"'),
    "hi": (b"hi", 'text that begins with "hi"'),
    "config.toml": (b'[model]\ndim = 16\n', "text that begins"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
    "data.h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5 file"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_error_says_what_it_looks_like(tmp_path: Path, name: str) -> None:
    data, what = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    reads: list[Callable[[], Any]] = [
        lambda: deepseek.load(path),
        lambda: deepseek.load(str(path)),
        lambda: deepseek.load(io.BytesIO(data)),
        lambda: safetensors.load_file(path),
        lambda: safetensors.load(data),
        lambda: safetensors.safe_open(path),
    ]
    for read in reads:
        with pytest.raises(deepseek.LoadError, match=f"not a safetensors file but.*{what}") as caught:
            read()
        text = str(caught.value)
        assert len(text) < 400 and not any(word.isdigit() and len(word) > 9 for word in text.split()), text


def test_random_bytes_and_damaged_files_are_no_other_format(tmp_path: Path) -> None:
    """What is a safetensors file, whole or damaged, is never called something else."""
    good = safetensors.save({"w": deepseek.arange(40.0), "b": deepseek.ones(3, dtype=deepseek.bfloat16)})
    assert describe(good[:512]) is None
    rng = random.Random(0)
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(8, len(data))] = rng.randrange(256)
        assert describe(bytes(data[:512])) is None
        try:
            safetensors.load(bytes(data[: rng.randint(9, len(data))]))
        except deepseek.LoadError as error:
            assert "not a safetensors file" not in str(error)
        noise = bytes(rng.randrange(256) for _ in range(300))
        with pytest.raises(deepseek.LoadError):
            safetensors.load(noise)


def test_a_safetensors_file_of_others_is_named_too(tmp_path: Path) -> None:
    safetensors.save_file({"w": deepseek.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(deepseek.LoadError, match=r"not one that deepseek\.save wrote; read its tensors with"):
        deepseek.load(tmp_path / "w.safetensors")


def test_the_running_interpreter_is_no_weights() -> None:
    with pytest.raises(deepseek.LoadError, match="an ELF binary|text|program"):
        deepseek.load(os.path.realpath(sys.executable))


def test_folders_and_missing_files_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        deepseek.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        deepseek.load(tmp_path / "absent")
