"""`deepseek bench`: what it prints with and without PyTorch, and the process that measures."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

import deepseek
from deepseek.cli import main
from deepseek.cli.bench import attention_cases, moe_cases
from deepseek.cli.bench.measure import PYTHON, Bench, Worker
from deepseek.cli.bench.suites import Growth, Peer, Row, Suite, suite


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setenv(PYTHON, "/nowhere/python")


def test_a_row_of_numbers_without_pytorch(no_torch, capsys):
    assert main(["bench", "attention", "--only", "bytes a token", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["torch"] is None
    (row,) = result["rows"]
    assert (row["ours"], row["theirs"]) == (4 * 576, 4 * 16 * 320)
    assert row["met"] and row["at_most"]


def test_a_table_without_pytorch_says_what_a_peer_needs(no_torch, capsys):
    assert main(["bench", "moe", "--only", "forward int8", "--turns", "1"]) == 0
    output = capsys.readouterr()
    assert "forward int8" in output.out and " ms" in output.out
    assert f"needs PyTorch (in this Python, or in one that {PYTHON} names)" in " ".join(output.out.split())
    assert "measuring: forward int8" in output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["bench"], "attention, moe"), (["bench", "conv"], "conv"), (["bench", "moe", "--turns", "0"], "turns")],
)
def test_wrong_use_is_one_sentence(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", ["attention", "moe"])
def test_every_row_names_cases_that_there_are(name, full):
    ours = {"attention": attention_cases, "moe": moe_cases}[name].cases(deepseek, full)
    rows = suite(name, full).rows
    for row in rows:
        cases = [case for _, case in row.cases] + [row.part] if isinstance(row, Growth) else [row.case]
        if isinstance(row, Row):
            cases += [peer.case for peer in row.peers if peer.library == "deepseek"]
        assert set(cases) <= set(ours), row.what
    assert len({row.what for row in rows}) == len(rows)


def test_a_case_that_fails_leaves_the_others():
    peers = (Peer("missing", "deepseek", "no such case"), Peer("bytes", "deepseek", "expanded bytes", 0.2, most=True))
    rows = Suite("attention", "", (Row("bytes", "latent bytes", peers, "value"),))
    with Bench(rows, threads=1, turns=1, full=False) as bench:
        missing, found = bench.run("", lambda what: None)
    assert "no case" in missing["why"] and "ratio" not in missing
    assert found["ratio"] == pytest.approx(2304 / 20480) and found["met"]


def test_the_measuring_process_times_and_sees_memory():
    worker = Worker(sys.executable, "deepseek", "moe", 1, False)
    try:
        assert 0 < worker.ask("seconds", "8 experts f32") < 60
        with pytest.raises(RuntimeError, match="no case"):
            worker.ask("seconds", "nothing")
        worker.ask("forget")
        assert 1e6 < worker.ask("peak", "training f32") < 4e9
    finally:
        worker.close()
    with pytest.raises((RuntimeError, OSError)):
        Worker(sys.executable, "no_such_library", "moe", 1, False)
