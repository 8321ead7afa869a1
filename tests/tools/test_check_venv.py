"""An environment that would run unknown code at start is refused, and its Python is not started to find out."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parents[2] / "tools" / "check_venv.py"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    directory = tmp_path / "venv"
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(directory)], check=True)
    return directory


@pytest.fixture
def site_packages(venv: Path) -> Path:
    return next(venv.glob("lib/python*/site-packages"))


def check(venv: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(CHECK), str(venv)], capture_output=True, text=True, check=False
    )


def test_new_environment_may_start(venv: Path):
    assert check(venv).returncode == 0


def test_environment_of_this_run_may_start():
    found = check(Path(sys.prefix))
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    "name",
    [
        "litellm_init.pth",
        "next.start",
        "sitecustomize.py",
        "usercustomize.py",
        "sitecustomize.cpython-311-x86_64-linux-gnu.so",
    ],
)
def test_file_that_runs_at_start_is_refused_and_does_not_run(venv: Path, site_packages: Path, name: str):
    ran = venv / "ran"
    (site_packages / name).write_text(f"import pathlib; pathlib.Path({str(ran)!r}).touch()\n", encoding="utf-8")
    found = check(venv)
    assert found.returncode == 1
    assert name in found.stderr
    assert not ran.exists()


def test_package_that_runs_at_start_is_refused(venv: Path, site_packages: Path):
    (site_packages / "sitecustomize").mkdir()
    assert check(venv).returncode == 1


def test_interpreter_put_there_by_a_package_is_refused(venv: Path):
    python = venv / "bin" / "python"
    python.unlink()
    python.write_text("#!/bin/sh\n", encoding="utf-8")
    found = check(venv)
    assert found.returncode == 1
    assert "replaced by a package" in found.stderr


def test_unlocked_packages_of_the_system_are_not_let_in(venv: Path):
    config = venv / "pyvenv.cfg"
    text = config.read_text(encoding="utf-8")
    config.write_text(
        text.replace("include-system-site-packages = false", "include-system-site-packages = true"), encoding="utf-8"
    )
    assert check(venv).returncode == 1


def test_directory_that_is_no_environment_is_refused(tmp_path: Path):
    assert check(tmp_path).returncode == 1
