"""The main story: a job in one request, its answers, its signed webhook; and the README's first job as printed."""

import asyncio
import base64
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from tests.invariants import verify
from tests.stack import Stack
from tests.team import Team, accepted
from tests.workers.receiver import response

README = (Path(__file__).parents[2] / "README.md").read_text()
TEAM = "acme-corp"
SECRET = f"whsec_{base64.b64encode(b'm' * 32).decode()}"


async def test_one_request_brings_a_job_its_answers_and_a_signed_webhook(stack: Stack) -> None:
    team = await stack.team()
    hooks = await stack.receiver()
    hooks.secret = SECRET
    texts = ("What is the capital of France?", "What is the capital of Italy?")

    job = await team.job(*texts, auto_complete=True, callback_url=hooks.url, callback_secret=SECRET)

    (event,) = await hooks.arrived(1)
    ended = await team.ended(job["job_id"])
    assert (event["type"], event["job_id"], event["data"]["status"]) == ("job.completed", job["job_id"], "completed")
    assert event["data"]["total_cost_usd"] == ended["costs"]["total_cost_usd"] > 0
    assert (event["data"]["credits_charged"], event["data"]["credits_remaining"]) == (1, 999)
    answers = [
        accepted(await team.client.get(f"/api/jobs/{job['job_id']}/calls/{call['call_id']}")) for call in job["calls"]
    ]
    assert [answer["response"]["content"] for answer in answers] == ["Paris", "Rome"]
    await verify(stack, delivered=True)
    callback = accepted(await team.client.get(f"/api/jobs/{job['job_id']}"))["callback"]
    assert (callback["url"], callback["state"], callback["last_status"]) == (hooks.url, "delivered", 200)


async def test_the_result_is_readable_before_the_webhook_arrives(stack: Stack) -> None:
    team = await stack.team()
    seen: list[dict[str, Any]] = []

    async def look_first(writer: asyncio.StreamWriter) -> None:
        event = json.loads(hooks.receiver.received[-1].body)
        seen.append(accepted(await team.client.get(event["data"]["result_url"])))
        writer.write(response(200))

    hooks = await stack.receiver(look_first)
    hooks.secret = SECRET
    events = ["call.completed", "job.completed"]
    job = await team.job("Hello", callback_url=hooks.url, callback_events=events, callback_secret=SECRET)

    await hooks.arrived(2)
    await verify(stack, delivered=True)
    assert len(seen) == 2
    assert {found["status"] for found in seen} == {"completed"}
    (call,) = (found for found in seen if "call_id" in found)
    assert call["response"]["content"] == "Hello! How can I help you today?"
    assert {found["job_id"] for found in seen} == {job["job_id"]}


async def test_the_webhook_is_the_event_row_byte_for_byte(stack: Stack) -> None:
    team = await stack.team()
    hooks = await stack.receiver()
    hooks.secret = SECRET
    job = await team.job("Grüße aus Köln", callback_url=hooks.url, callback_secret=SECRET, metadata={"name": "Zoë"})

    await hooks.arrived(1)

    (row,) = await stack.sql(
        "select body, sequence from events where job_id = %s and type = 'job.completed'", job["job_id"]
    )
    (received,) = hooks.receiver.received
    assert received.body.decode() == row.body
    event = json.loads(received.body)
    assert (event["id"], event["sequence"]) == (received.headers["webhook-id"], row.sequence)
    assert event["data"]["metadata"] == {"name": "Zoë"}


async def test_the_shell_lines_of_the_readme_run_as_printed(stack: Stack) -> None:
    team = await stack.team()
    lines = snippet("sh", "jobs/create", team)

    said = await output(stack, team, "sh", "-e", "-c", lines)

    call, completed = objects(said)
    assert call["response"]["content"] == call["choices"][0]["message"]["content"] == "Paris"
    assert (completed["status"], completed["credits_remaining"], completed["total_calls"]) == ("completed", 999, 1)
    await verify(stack)


async def test_the_python_lines_of_the_readme_run_as_printed(stack: Stack) -> None:
    team = await stack.team()
    lines = snippet("python", "jobs/create", team)

    said = (await output(stack, team, sys.executable, "-c", lines)).splitlines()

    assert re.fullmatch(r"completed 0\.0\d+ USD, 999 credits left", said[0]), said
    assert said[1:] == ["Paris", "You said: Say hello in French."]
    await verify(stack)


def snippet(language: str, part: str, team: Team) -> str:
    """The README's one block in this language with this part, its team changed."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [str(block) for block in blocks if part in block]
    return found.replace(TEAM, team.team_id)


async def output(stack: Stack, team: Team, *command: str) -> str:
    """What a command prints, in an environment that has only what the README sets before."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], "WAYBILL_URL": stack.api_url, "WAYBILL_KEY": team.key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return said.decode()


def objects(text: str) -> list[Any]:
    """The JSON objects that stand one after the other in a text."""
    found, decoder, at = [], json.JSONDecoder(), 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found
