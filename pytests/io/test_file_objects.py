"""save and load with file objects whose write and read move a part only, nothing, or answer nonsense."""

import io
import os

import deepseek
import pytest

VALUE = {"a": deepseek.arange(1000.0), "b": [1, "x", deepseek.ones(3, dtype=deepseek.bfloat16)]}


def bytes_of(value):
    file = io.BytesIO()
    deepseek.save(value, file)
    return file.getvalue()


def same(loaded):
    return loaded["a"].equal(VALUE["a"]) and loaded["b"][:2] == VALUE["b"][:2] and loaded["b"][2].equal(VALUE["b"][2])


class Short(io.RawIOBase):
    """A raw file that takes and gives a few bytes at a time."""

    def __init__(self, data=b"", most=7):
        self.data, self.most, self.calls = bytearray(data), most, 0

    def writable(self):
        return True

    def readable(self):
        return True

    def write(self, data):
        self.calls += 1
        part = bytes(memoryview(data)[: self.most])
        self.data += part
        return len(part)

    def read(self, n=-1):
        part = bytes(self.data[: self.most])
        del self.data[: self.most]
        return part


@pytest.mark.parametrize("most", [1, 7, 4096, 1 << 30])
def test_short_writes_are_continued(most):
    file = Short(most=most)
    deepseek.save(VALUE, file)
    assert bytes(file.data) == bytes_of(VALUE)
    assert (file.calls > 1) == (most < len(file.data))


@pytest.mark.parametrize("most", [1, 7, 4096])
def test_short_reads_are_continued(most):
    assert same(deepseek.load(Short(bytes_of(VALUE), most)))


def test_a_raw_file_and_a_pipe(tmp_path):
    with open(tmp_path / "raw", "wb", buffering=0) as file:
        deepseek.save(VALUE, file)
    with open(tmp_path / "raw", "rb", buffering=0) as file:
        assert same(deepseek.load(file))
    read, write = os.pipe()
    with open(write, "wb", buffering=0) as file:
        deepseek.save({"a": 1}, file)
    with open(read, "rb", buffering=0) as file:
        assert deepseek.load(file) == {"a": 1}


def test_a_full_pipe_that_does_not_block_is_an_error():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with open(read, "rb", buffering=0), open(write, "wb", buffering=0) as file:
        with pytest.raises(BlockingIOError, match="would block") as caught:
            deepseek.save({"a": deepseek.zeros(1 << 20)}, file)
        assert 0 < caught.value.characters_written < 1 << 22


class Writes:
    def __init__(self, answer):
        self.answer, self.data = answer, b""

    def write(self, data):
        self.data += data
        return self.answer


def test_an_object_whose_write_returns_none_has_taken_everything():
    file = Writes(None)
    deepseek.save(VALUE, file)
    assert file.data == bytes_of(VALUE)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (0, OSError, "took 0 of"),
        (-1, OSError, "took -1 of"),
        (1 << 40, OSError, "took 1099511627776 of"),
        ("7", TypeError, "returned '7'"),
        (1.0, TypeError, r"returned 1\.0"),
    ],
)
def test_answers_that_are_no_count_are_errors(answer, error, message):
    with pytest.raises(error, match=message):
        deepseek.save(VALUE, Writes(answer))


def test_errors_of_the_file_go_through():
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        deepseek.save(VALUE, Full())


def test_reading_text_or_nothing_is_an_error():
    class Nothing:
        def read(self):
            return None

    with pytest.raises(BlockingIOError, match="no more bytes ready after 0"):
        deepseek.load(Nothing())
    with pytest.raises(TypeError, match="open the file in mode 'rb'"):
        deepseek.load(io.StringIO("text"))
    with pytest.raises(deepseek.LoadError):
        deepseek.load(io.BytesIO(bytes_of(VALUE)[:-1]))
