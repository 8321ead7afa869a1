"""Make .venv from requirements/dev.lock, with uv from PATH or from .tools/, using only the standard library.

The lock is copied into .venv as the last step, so `cmp` of the two tells whether the environment is whole and current.
"""

from __future__ import annotations

import fcntl
import filecmp
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
LOCK = ROOT / "requirements" / "dev.lock"
UV_LOCK = ROOT / "requirements" / "bootstrap.lock"
INSTALLED = VENV / "installed.lock"


class CannotInstall(Exception):
    """The environment cannot be made here; the message says what the reader can do."""


def main(arguments: Sequence[str]) -> int:
    """With no argument make .venv when it is not current; with `uv ARGS` run the pinned uv at the root."""
    try:
        refuse_old_python()
        with only_one():
            if arguments[:1] == ["uv"]:
                return subprocess.run(
                    [find_uv(), *arguments[1:]], env=uv_environment(), cwd=ROOT, check=False
                ).returncode
            if not is_current():
                install(find_uv())
    except CannotInstall as failure:
        print(f"waybill: {failure}", file=sys.stderr)
        return 1
    return 0


def refuse_old_python() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what tells the owner of an older one
        has = ".".join(map(str, sys.version_info[:3]))
        raise CannotInstall(
            f"needs Python 3.11 or newer, {sys.executable} is {has}; name another one: make PYTHON=python3.12"
        )


@contextmanager
def only_one() -> Iterator[None]:
    """Two `make` at once must not install into the same directory."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "bootstrap.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def is_current() -> bool:
    python = VENV / "bin" / "python"
    return python.exists() and INSTALLED.exists() and filecmp.cmp(LOCK, INSTALLED, shallow=False)


def install(uv: str) -> None:
    """Install what the lock names and nothing else; the environment's Python starts only after check_venv.

    Modules are compiled last because that starts it: importing litellm takes 3 s compiled, 6 to 9 s not.
    """
    say("installing the locked packages into .venv (once per change of the lock)")
    INSTALLED.unlink(missing_ok=True)
    if not (VENV / "bin" / "python").exists():
        # uv's own `venv` would add a .pth file, the very thing that check_venv refuses.
        run([sys.executable, "-I", "-m", "venv", "--clear", "--without-pip", str(VENV)])
    check_venv()
    sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(VENV / "bin" / "python"), str(LOCK)]
    run(sync)
    check_venv()
    run([*sync, "--compile-bytecode"])
    shutil.copyfile(LOCK, INSTALLED)


def check_venv() -> None:
    check = [sys.executable, "-I", "-S", str(ROOT / "tools" / "check_venv.py"), str(VENV)]
    if subprocess.run(check, check=False).returncode != 0:
        raise CannotInstall(f"{VENV} would run unknown code at start and was not used; see the lines above")


def find_uv() -> str:
    """The pinned uv: the one on PATH when it is that version, else our own copy, installed by hash."""
    version = pinned_uv_version()
    own = TOOLS / f"uv-{version}"
    for candidate in (shutil.which("uv"), str(own / "bin" / "uv")):
        if candidate and reported_version(candidate) == version:
            return candidate
    say(f"installing uv {version} into .tools/")
    install_own_uv(own)
    return str(own / "bin" / "uv")


def pinned_uv_version() -> str:
    pin = re.search(r"^uv==([0-9.]+)", UV_LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    if pin is None:
        raise CannotInstall(f"{UV_LOCK} pins no uv")
    return pin.group(1)


def reported_version(uv: str) -> str | None:
    try:
        said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError:
        return None
    words = said.stdout.split()
    return words[1] if said.returncode == 0 and len(words) > 1 else None


def install_own_uv(target: pathlib.Path) -> None:
    """Install uv with pip, by hash; Debian ships pip and the pip inside `venv` as two packages, either will do."""
    shutil.rmtree(target, ignore_errors=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    requirements = [*options, "-r", str(UV_LOCK)]
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        run([sys.executable, "-I", "-m", "venv", str(target)])
        run([str(target / "bin" / "python"), "-I", "-m", "pip", "install", *requirements])
    elif pip_is_there():
        run([sys.executable, "-I", "-m", "pip", "install", "--target", str(target), *requirements])
    else:
        raise CannotInstall("python3 has neither venv nor pip: install them (Debian: apt-get install python3-venv)")


def pip_is_there() -> bool:
    probe = [sys.executable, "-I", "-m", "pip", "--version"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def uv_environment() -> dict[str, str]:
    """No source distribution runs code at install, no other Python is fetched, no active environment is meant."""
    ours = {"UV_NO_BUILD": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    left_out = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON", "PYTHONPATH", "PYTHONHOME"}
    return {name: value for name, value in os.environ.items() if name not in left_out} | ours


def run(command: Sequence[str]) -> None:
    """Run a command outside the tree: pyproject.toml's `exclude-newer` is for `make lock`, and an index that
    gives no upload times would have nothing to install.
    """
    done = subprocess.run(command, env=uv_environment(), cwd="/", check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise CannotInstall(f"this command failed with exit code {done.returncode}: {' '.join(command)}")


def say(line: str) -> None:
    print(f"waybill: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
