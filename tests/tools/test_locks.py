"""The committed locks are exact, hashed, name no index, and hold what pyproject.toml pins."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.lock"))
PIN = re.compile(r"([a-z0-9][a-z0-9._-]*)==([a-z0-9.!+]+)( ; [^\\]+)?((?: --hash=sha256:[0-9a-f]{64})+)", re.IGNORECASE)


def requirements(lock: Path) -> list[str]:
    """One string per requirement, its continued lines joined."""
    joined = re.sub(r"\s*\\\n\s*", " ", lock.read_text(encoding="utf-8"))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def pins(lock: Path) -> dict[str, str]:
    found = [PIN.fullmatch(line) for line in requirements(lock)]
    return {pin[1]: pin[2] for pin in found if pin}


def direct_pins(names: list[str]) -> dict[str, str]:
    """`name[extra]==version; marker`, as pyproject.toml writes it, to name and version."""
    split = [re.fullmatch(r"([a-z0-9-]+)(?:\[[a-z,]+\])?==([^;\s]+)(?:;.*)?", name) for name in names]
    assert all(split), f"not an exact pin in {names}"
    return {pin[1]: pin[2] for pin in split if pin}


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_there_is_a_lock_for_each_thing_that_is_installed():
    assert [lock.stem for lock in LOCKS] == ["api", "bootstrap", "dev", "openai-2", "worker"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_names_no_index(lock: Path):
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-", re.sub(r"^\s+--hash=", "", text, flags=re.MULTILINE), re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_requirement_is_an_exact_pin_with_hashes(lock: Path):
    lines = requirements(lock)
    assert lines
    assert [line for line in lines if not PIN.fullmatch(line)] == []


def test_locks_hold_what_pyproject_pins(pyproject: dict):
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    api = direct_pins(project["dependencies"])
    worker = api | direct_pins(extras["worker"])
    dev = worker | direct_pins(extras["embedded"]) | direct_pins(pyproject["dependency-groups"]["dev"])
    older = direct_pins(pyproject["dependency-groups"]["openai-2"])
    for name, wanted in {"api": api, "worker": worker, "dev": dev, "openai-2": older}.items():
        assert wanted.items() <= pins(REQUIREMENTS / f"{name}.lock").items(), f"run `make lock`: {name}.lock is behind"


def test_api_does_not_install_litellm_and_dev_holds_the_rest():
    api, worker, dev = (pins(REQUIREMENTS / f"{name}.lock") for name in ("api", "worker", "dev"))
    assert "litellm" not in api
    assert "litellm" in worker
    assert api.items() <= worker.items() <= dev.items()


def test_two_lines_of_the_openai_sdk_are_locked():
    lines = {pins(REQUIREMENTS / f"{name}.lock")["openai"].split(".")[0] for name in ("dev", "openai-2")}
    assert lines == {"2", "3"}


def test_only_one_version_of_uv_is_named(pyproject: dict):
    locked = pins(REQUIREMENTS / "bootstrap.lock")
    asked = (REQUIREMENTS / "bootstrap.in").read_text(encoding="utf-8").strip()
    assert asked == f"uv=={locked['uv']}"
    assert pyproject["tool"]["uv"]["required-version"] == f"=={locked['uv']}"
