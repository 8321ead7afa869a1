"""The blocks of docs/guide.md run as printed, beside a stack that looks like the `make up` they are written for."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.home import Home, write_private
from cli.seed import seed_demo
from tests.stack import Stack

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(), re.DOTALL)
SAYS = {
    "organizations/create": r'"name":"Globex".*"team_id":"globex-prod".*"credits_available":1000\b',
    "key/generate": r'"key_alias":"batch-robot".*"cost":0\.06',
    "llm-call-stream": r'"content":" parcel".*data: \[DONE\]',
    "x-ndjson": r'"valid":true.*"status":"completed".*"custom_id":"a".*"content":"Paris"',
    "client.batches.create": r"[0-9a-f-]{36} 0\.\d+ 1",
    "webhooks/register": r'"ok":false.*"error":"connection refused or unreachable".*"events":\[.*"events":\[',
    "waybill doctor": r"the books are sound",
}
"""What each block prints, by a part of it: every block has its line here."""


@pytest.fixture
async def home(stack: Stack, tmp_path: Path) -> Path:
    """What `make up` keeps in its folder and makes in its database, for the programs of the stack."""
    home, key = Home(tmp_path / "home"), stack.env["WAYBILL_ADMIN_KEY"]
    home.prepare()
    write_private(home.run, {"api_url": stack.api_url, "database_url": stack.database_url})
    write_private(home.keys, {"admin_key": key})
    await asyncio.to_thread(seed_demo, stack.api_url, key, stack.provider_url, home, {})
    return home.path


async def test_the_guide_runs_as_printed(home: Path) -> None:
    (_, begin), *others = BLOCKS
    for language, block in others:
        [says] = [says for part, says in SAYS.items() if part in block]
        script = block if language == "sh" else f"{sys.executable} - <<'END'\n{block}END"
        said = await asyncio.to_thread(run, begin + script, home)
        assert re.search(says, said, re.DOTALL), said
    assert len(others) == len(SAYS)


def run(script: str, home: Path) -> str:
    """What a script prints in the project's folder, in a shell that was told nothing but where the home is."""
    env = {"PATH": os.environ["PATH"], "WAYBILL_HOME": str(home)}
    done = subprocess.run(
        ["sh", "-euc", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
