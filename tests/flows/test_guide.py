"""The lines of docs/guide.md run as printed, and `waybill doctor` finds the books of a stack that works sound."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.stack import Stack
from tests.team import accepted

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(), re.DOTALL)


def run(stack: Stack, script: str) -> str:
    env = {
        **os.environ,
        "WAYBILL": stack.api_url,
        "WAYBILL_ADMIN_KEY": stack.env["WAYBILL_ADMIN_KEY"],
        "WAYBILL_DATABASE_URL": stack.database_url,
    }
    done = subprocess.run(
        ["sh", "-euc", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=90, check=True
    )
    return done.stdout


async def test_the_guides_customer_is_made_and_can_work(stack: Stack) -> None:
    team = await stack.team()
    [making] = [block for block in BLOCKS if "teams/create" in block]
    said = run(stack, making.replace("demo-models", f"group-{team.team_id}"))
    organization, made = (json.loads(line) for line in said.replace("}{", "}\n{").splitlines())
    assert (organization["name"], made["team_id"], made["credits_available"]) == ("Globex", "globex-prod", 1000)
    own = {"Authorization": f"Bearer {made['virtual_key']}"}
    job = {"team_id": "globex-prod", "job_type": "t", "calls": [{"messages": [{"role": "user", "content": "France?"}]}]}
    ended = accepted(await team.admin.post("/api/jobs/create", json=job, headers={**own, "Prefer": "wait=30"}))
    assert (ended["status"], ended["credits_remaining"]) == ("completed", 999)


async def test_the_doctor_finds_the_books_of_a_working_stack_sound(stack: Stack) -> None:
    team = await stack.team()
    await team.result(await team.submit("What is the capital of France?"))
    [asking] = [block for block in BLOCKS if "cli doctor" in block]
    assert "the books are sound" in run(stack, asking.replace("python ", f"{sys.executable} "))
