"""Runs a function in a forked child under strace, from its first system call on: killed or failed at one of them."""

from __future__ import annotations

import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SAVED, FAILED = 0, 3  # exit codes of the child: done, or an OSError
TRACED = "%file,%desc"  # everything that takes a path or a descriptor
MEMORY = {"mmap", "munmap", "mremap"}  # mostly the allocators'
_PR_SET_PTRACER, _PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)


def require_strace() -> None:
    """Skips the calling module where system calls cannot be traced; in CI that is a failure."""
    lacking = "strace is not installed (apt-get install strace)"
    if shutil.which("strace"):
        probe = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
        lacking = f"strace does not work here: {probe.stderr.strip()}" if probe.returncode else ""
    if lacking and os.environ.get("DEEPSEEK_CI"):
        raise RuntimeError(lacking)
    if lacking:
        pytest.skip(lacking, allow_module_level=True)


@dataclass(frozen=True)
class Point:
    """The ``number``-th call of the system call ``name``."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class Server:
    """A process that has everything imported and forks a child for each run of ``module.function(argument)``.

    ``module.warm_up()`` is called once before, so that lazy imports and first calls are not traced.
    """

    def __init__(self, module: str) -> None:
        code = f"import strace_runner, {module} as m; strace_runner.serve(m)"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "DEEPSEEK_NUM_THREADS": "1"},
        )
        self._environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}

    def run(self, function: str, argument: Path, log: Path, inject: str | None = None) -> int:
        """Calls the function; ``inject`` as strace's. Returns the exit code, negative for a signal."""
        process = self._process
        process.stdin.write(f"{function} {argument}\n")
        process.stdin.flush()
        child = int(process.stdout.readline())
        command = ["strace", "-f", "-y", "-s", "0", "-e", f"trace={TRACED}", "-o", str(log), "-p", str(child)]
        if inject:
            command += ["-e", f"inject={inject}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=self._environment) as strace:
            message = b""
            while b"attached" not in message:
                assert select.select([strace.stderr], [], [], 30)[0]
                part = os.read(strace.stderr.fileno(), 4096)
                assert part, message
                message += part
            os.kill(child, signal.SIGUSR1)
            code = int(process.stdout.readline())
        return code

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def serve(module: object) -> None:
    """The other side of Server."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    libc = ctypes.CDLL(None)
    module.warm_up()
    for line in sys.stdin:
        name, argument = line.rstrip("\n").split(" ", 1)
        child = os.fork()
        if child == 0:
            libc.prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)  # strace is no ancestor
            _child(getattr(module, name), Path(argument))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _child(function: Callable[[Path], object], argument: Path) -> None:
    code = 1
    try:
        signal.sigwait([signal.SIGUSR1])
        function(argument)
        code = SAVED
    except OSError:
        code = FAILED
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


# --- logs -------------------------------------------------------------------------------------------------------------

_CALL = re.compile(r"^\d+ +(\w+)\((.*)$")


def calls(log: Path) -> list[tuple[str, str]]:
    """(name, arguments and result) of each system call in a log, but for memory."""
    found = [match.groups() for line in log.read_text().splitlines() if (match := _CALL.match(line))]
    return [(name, rest) for name, rest in found if name not in MEMORY]


def points(log: Path) -> list[Point]:
    """One for each call in a log."""
    seen: dict[str, int] = {}
    result = []
    for name, _ in calls(log):
        seen[name] = seen.get(name, 0) + 1
        result.append(Point(name, seen[name]))
    return result
