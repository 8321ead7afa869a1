"""Starts the checks of one line of the SDK in a process of their own and hands back what they printed."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.contract.sdk_world import World
from tests.programs import PROJECT

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 90
INHERITED = ("PATH", "HOME", "LANG", "SSL_CERT_FILE")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the openai SDK. folder: where it is installed, None: in .venv."""

    version: str
    folder: Path | None = None
    lock: Path | None = None

    def require(self) -> None:
        """Fail unless it is installed as its lock says."""
        if self.folder is not None and self.lock is not None:
            installed = self.folder / "installed.lock"
            if not installed.exists() or installed.read_bytes() != self.lock.read_bytes():
                pytest.fail(f"openai {self.version} is not installed in {self.folder}: run `make sdks`", pytrace=False)


LINES = (
    Line(version="3.54.0"),
    Line(
        version="2.54.0",
        folder=PROJECT / ".tools" / "openai-2",
        lock=PROJECT / "requirements" / "openai-2.lock",
    ),
)


async def run(line: Line, world: World, folder: Path, files: Sequence[str]) -> str:
    """Run these files of checks; returns what pytest printed. Fails, with that, when one of them does."""
    line.require()
    told = folder / "world.json"
    told.write_text(json.dumps(asdict(world)), encoding="utf-8")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "--noconftest", "-p", "no:cacheprovider"),
        *("-p", "pytest_timeout", "-p", "anyio.pytest_plugin", "-p", "tests.contract.sdk_world"),
        *("-o", "timeout=30", "--world", str(told)),
        *(str(HERE / file) for file in files),
        env=_environment(line),
        cwd=PROJECT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            printed, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode != 0:
        pytest.fail(f"under openai {line.version}:\n{printed.decode(errors='replace')}", pytrace=False)
    return printed.decode()


def _environment(line: Line) -> dict[str, str]:
    """Its own folder comes before .venv's on the path; nothing else of this process is handed on."""
    folders = [str(folder) for folder in (line.folder, PROJECT) if folder]
    return {
        **{name: os.environ[name] for name in INHERITED if name in os.environ},
        "PYTHONPATH": os.pathsep.join(folders),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        # litellm would fetch a price list when it is imported.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
