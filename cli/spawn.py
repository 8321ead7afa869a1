"""Processes that die with the one that started them, and the ports and files they need."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

PR_SET_PDEATHSIG = 1
TAIL_LINES = 20
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


def end_with_parent(death_signal: int) -> None:
    """Ask the kernel to send this process a signal when the thread that started it ends (Linux only)."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, death_signal)


def _before_exec(parent: int, death_signal: int) -> None:
    end_with_parent(death_signal)
    if os.getppid() != parent:  # the parent ended between fork and prctl: no signal will come
        os._exit(1)


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    death_signal: int = signal.SIGKILL,
    uid: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in its own session, its output appended to `log`.

    Call it from the main thread: the death signal follows the thread, not the process.
    uid: run as this user and group instead of ours.
    """
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            preexec_fn=partial(_before_exec, os.getpid(), death_signal),  # noqa: PLW1509 -- two system calls, no lock
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and what it started in its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def port_is_free(port: int) -> bool:
    """Whether a server can listen on the port now, on loopback and on every interface."""
    for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 -- a probe, nothing listens
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def free_port(preferred: int | None = None) -> int:
    """The preferred port when it is free, else one the kernel picks."""
    if preferred is not None and port_is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    with suppress(FileNotFoundError), log.open("rb") as text:
        text.seek(0, os.SEEK_END)
        text.seek(max(0, text.tell() - 16_384))
        return "\n".join(text.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
    return ""
