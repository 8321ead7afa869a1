"""Batches that are cancelled, and the lines of a batch that are run again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.batch_requests import CHAT, batch_of, create, ended, items, read, run, send, shown, tended, uuid_of
from tests.api.gateway import problem, said
from tests.scene import Scene, Team, agrees, answer, refused
from workers.batches import Batches


@pytest.fixture
async def unit(scene: Scene) -> AsyncIterator[Batches]:
    async with tended(scene) as unit:
        yield unit


@pytest.fixture
async def team(scene: Scene, unit: Batches) -> Team:
    return await scene.team()


async def cancel(team: Team, batch: dict[str, Any], **headers: str) -> dict[str, Any]:
    return shown(await send(team, "POST", f"/{batch['id']}/cancel", **headers))


async def retry(team: Team, batch: dict[str, Any], **body: Any) -> Any:
    headers = {name: body.pop(name) for name in list(body) if name[0].isupper()}
    return await send(team, "POST", f"/{batch['id']}/retry", body, **headers)


async def half_failed(scene: Scene, team: Team, **fields: Any) -> dict[str, Any]:
    """A final batch: two of its four lines succeeded, two failed."""
    scene.provider.steps = [answer(), answer(), *[refused("provider_auth", again="never")] * 2]
    batch = await batch_of(team, "a", "b", "c", "d", **fields)
    over = await ended(team, batch)
    assert over["request_counts"]["failed"] == 2
    return over


async def names_of(scene: Scene, batch: dict[str, Any], state: str) -> list[str]:
    sql = "select custom_id from calls where job_id = :id and state = :state order by 1"
    return [row.custom_id for row in await scene.rows(sql, id=uuid_of(batch), state=state)]


async def test_cancel_stops_what_runs_and_charges_what_succeeded(scene: Scene, team: Team):
    # As much metadata as there may be is more than a job takes of its own client.
    batch = await batch_of(team, "a", "b", "c", metadata={str(n): "\N{SNOWMAN}" * 512 for n in range(16)})
    await run(team, batch, "a")
    scene.provider.held.clear()
    running = asyncio.create_task(run(team, batch, "b"))
    await scene.provider.until_asked(2)
    stopped = await cancel(team, batch)
    assert stopped["status"] in {"cancelling", "cancelled"}
    assert stopped["cancelling_at"]
    await running
    assert scene.provider.closed == [scene.provider.asked[1].id]
    over = await read(team, batch["id"], "?wait=5")
    assert (over["status"], over["estimated_completion_at"]) == ("cancelled", None)
    assert over["cancelled_at"]
    assert (over["request_counts"]["completed"], over["request_counts"]["cancelled"]) == (1, 2)
    assert over["credits_charged"] == 1
    assert over["output_file_id"]
    assert (await cancel(team, batch)) == over
    await agrees(scene, team)


async def test_cancel_while_it_is_checked_ends_it_without_a_line(scene: Scene, team: Team, unit: Batches):
    scene.tend = None
    batch = await batch_of(team, "a", Prefer="wait=0")
    assert (await cancel(team, batch))["status"] == "cancelling"
    assert (await cancel(team, batch))["status"] == "cancelling"
    await unit.take([uuid_of(batch)])
    over = shown(await send(team, "GET", f"/{batch['id']}?wait=5"))
    assert (over["status"], over["request_counts"]["total"]) == ("cancelled", 0)
    assert (await scene.events(batch["job_id"])).count("batch.cancelled") == 1


async def test_cancel_leaves_a_batch_that_is_past_its_last_line(scene: Scene, team: Team):
    batch = await batch_of(team, "a")
    over = await ended(team, batch)
    assert await cancel(team, batch) == over
    await scene.rows("update batches set status = 'finalizing' where id = :id returning id", id=uuid_of(batch))
    assert (await cancel(team, batch))["status"] == "finalizing"


async def test_what_a_dead_process_left_of_a_cancel_is_done_by_whoever_is_rung(scene: Scene, team: Team, unit: Batches):
    batch = await batch_of(team, "a")
    await scene.rows(
        "update batches set status = 'cancelling', cancelling_at = app_now() where id = :id returning id",
        id=uuid_of(batch),
    )
    await unit.take([uuid_of(batch)])
    assert shown(await send(team, "GET", f"/{batch['id']}?wait=5"))["status"] == "cancelled"


async def test_a_repeated_cancel_is_told_the_same(team: Team):
    batch = await batch_of(team, "a")
    first = await cancel(team, batch, Idempotency_Key="k")
    await send(team, "GET", f"/{batch['id']}?wait=5")
    assert await cancel(team, batch, Idempotency_Key="k") == first


async def test_a_retry_runs_only_what_failed_and_nothing_twice(scene: Scene, team: Team):
    parent = await half_failed(scene, team, metadata={"for": "reports"}, completion_window="2d")
    failed = await names_of(scene, parent, "failed")
    child = shown(await retry(team, parent))
    assert (child["retry_of"], child["status"]) == (parent["id"], "in_progress")
    assert (child["metadata"], child["completion_window"], child["endpoint"]) == ({"for": "reports"}, "2d", CHAT)
    assert child["input_file_id"] == parent["input_file_id"]
    assert child["request_counts"]["total"] == 2
    running = await retry(team, parent)
    assert problem(running)[:2] == (409, "conflict")
    assert child["id"] in said(running)
    scene.provider.steps = [answer(), refused("provider_auth", again="never")]
    over = await ended(team, child)
    done = await names_of(scene, over, "completed")
    left = await names_of(scene, over, "failed")
    assert sorted(done + left) == failed
    again = await ended(team, shown(await retry(team, parent)))
    assert await names_of(scene, again, "completed") == left
    assert problem(await retry(team, parent))[:2] == (400, "invalid_request_error")
    assert problem(await retry(team, over))[:2] == (400, "invalid_request_error"), "a retry of the parent did it"
    assert await read(team, parent["id"]) == parent
    assert sum(-n for n in await team.deductions()) == 4
    await agrees(scene, team)


async def test_a_retry_takes_the_statuses_and_codes_it_is_told(scene: Scene, team: Team):
    parent = await half_failed(scene, team)
    for body in ({"statuses": ["cancelled"]}, {"statuses": ["expired"]}, {"error_codes": ["batch_expired"]}):
        assert problem(await retry(team, parent, **body))[0] == 400, body
    for body, param in (({"statuses": ["completed"]}, "statuses[0]"), ({"statuses": []}, "statuses")):
        assert problem(await retry(team, parent, **body)) == (400, "invalid_request_error", param, 400)
    child = shown(await retry(team, parent, statuses=["failed"], error_codes=["provider_auth", "other"]))
    assert child["request_counts"]["total"] == 2


async def test_a_cancelled_batch_goes_on_by_a_retry_of_its_cancelled_lines(scene: Scene, team: Team):
    batch = await batch_of(team, "a", "b")
    assert problem(await retry(team, batch))[:2] == (409, "conflict")
    await cancel(team, batch)
    await send(team, "GET", f"/{batch['id']}?wait=5")
    child = shown(await retry(team, batch, statuses=["cancelled"], error_codes=["batch_cancelled"]))
    assert (await ended(team, child))["request_counts"]["completed"] == 2


async def test_of_retries_at_once_one_is_made(scene: Scene, team: Team):
    parent = await half_failed(scene, team)
    found = await asyncio.gather(*(retry(team, parent) for _ in range(4)))
    assert sorted(one.status_code for one in found) == [200, 409, 409, 409]
    rows = await scene.rows("select id from batches where retry_of = :id", id=uuid_of(parent))
    assert len(rows) == 1


async def test_a_repeated_retry_is_the_same_batch(scene: Scene, team: Team):
    parent = await half_failed(scene, team)
    first = await retry(team, parent, Idempotency_Key="k")
    again = await retry(team, parent, Idempotency_Key="k")
    assert shown(again)["id"] == shown(first)["id"]
    assert again.headers["idempotent-replayed"] == "true"


async def test_what_cannot_be_retried_is_told_why(scene: Scene, team: Team):
    refused_ = shown(await create(team, requests=items(team, "a", "a")))
    never_ran = await retry(team, refused_)
    assert problem(never_ran)[:2] == (400, "invalid_request_error")
    assert said(never_ran) == "No line of this batch was ever accepted: send it anew"
    parent = await half_failed(scene, team)
    await scene.rows("update files set expires_at = app_now() where team_id = :id returning id", id=team.id)
    gone = await retry(team, parent)
    assert problem(gone) == (400, "invalid_request_error", "input_file_id", 400)
    assert said(gone) == "The input file of this batch is gone: send the lines as a new batch"


async def test_a_retry_tells_where_the_first_batch_told(scene: Scene, team: Team):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    to = {"callback_url": "http://127.0.0.1:9999/hook", "callback_secret": secret, "callback_events": ["batch.failed"]}
    child = uuid_of(shown(await retry(team, await half_failed(scene, team, **to))))
    job = await scene.row("select * from jobs where id = :id", id=child)
    assert (job.callback_url, job.callback_events) == (to["callback_url"], ["batch.failed"])
    assert scene.rt.sealer.open(job.callback_secret_sealed, purpose=f"jobs.callback_secret:{child}") == secret
