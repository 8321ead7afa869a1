"""Webhooks: signed, sent until they are taken, with one id, to where they were meant to go and nowhere else."""

from typing import Any

import httpx
import pytest

from tests.invariants import verify
from tests.stack import Stack
from tests.team import Team, accepted
from tests.waiting import until
from tests.workers.receiver import response

PRIVATE = ["http://10.0.0.1/hook", "http://169.254.169.254/latest", "http://[fd00::1]/hook", "http://0x0a000001/hook"]


async def test_a_registered_endpoint_hears_of_its_teams_jobs_and_of_no_others(stack: Stack) -> None:
    team, other = await stack.team(), await stack.team()
    hooks = await stack.receiver()
    await team.register(hooks, ["job.completed", "job.failed"])

    job = (await team.job("one", "two"))["job_id"]
    await other.ended((await other.job("not yours"))["job_id"])

    (event,) = await hooks.arrived(1)
    assert (event["type"], event["event"], event["object"]) == ("job.completed", "job.completed", "event")
    assert (event["job_id"], event["team_id"]) == (job, team.team_id)
    counts = {name: event["data"][name] for name in ("total_calls", "successful_calls", "failed_calls")}
    assert counts == {"total_calls": 2, "successful_calls": 2, "failed_calls": 0}
    await verify(stack, delivered=True)
    assert [event["job_id"] for event in hooks.deliveries()] == [job]


async def test_a_receiver_that_fails_twice_gets_the_same_webhook_three_times(stack: Stack) -> None:
    team = await stack.team()
    hooks = await stack.receiver(response(500), response(500), response(200))
    await team.register(hooks, ["job.completed"])

    job = (await team.job("Hello"))["job_id"]
    await verify_delivered(stack, job)

    received = hooks.receiver.received
    assert [one.headers["waybill-attempt"] for one in received] == ["1", "2", "3"]
    for name in ("webhook-id", "waybill-delivery-id"):
        assert len({one.headers[name] for one in received}) == 1
    assert len({one.body for one in received}) == 1
    assert len(hooks.deliveries()) == 3
    assert [row.status_code for row in await tries(stack, job)] == [500, 500, 200]


async def test_a_redirect_is_not_followed(stack: Stack) -> None:
    team = await stack.team()
    elsewhere = await stack.receiver()
    hooks = await stack.receiver(response(307, location=elsewhere.url), response(302, location="/other"), response(200))
    await team.register(hooks, ["job.completed"])

    job = (await team.job("Hello"))["job_id"]
    await verify_delivered(stack, job)

    assert elsewhere.receiver.received == []
    assert [one.line for one in hooks.receiver.received] == ["POST /hook HTTP/1.1"] * 3
    assert [row.status_code for row in await tries(stack, job)] == [307, 302, 200]


@pytest.mark.parametrize("url", PRIVATE)
async def test_a_private_address_is_refused_at_registration_and_at_submit(stack: Stack, url: str) -> None:
    team = await stack.team()
    job = {"team_id": team.team_id, "job_type": "test"}

    registered = await team.client.post("/api/webhooks", json={"team_id": team.team_id, "webhook_url": url})
    submitted = await team.client.post("/api/jobs/create", json={**job, "callback_url": url})

    assert registered.status_code == httpx.codes.BAD_REQUEST
    assert registered.json()["detail"].startswith("webhook_url is not allowed: ")
    assert submitted.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert [problem["loc"] for problem in submitted.json()["detail"]] == [["body", "callback_url"]]
    assert "10.0.0.1" not in registered.text + submitted.text
    assert await stack.sql("select 1 from webhook_endpoints where team_id = %s", team.team_id) == []


async def test_an_address_that_became_private_is_refused_at_each_try(stack: Stack) -> None:
    team = await stack.team()
    hooks = await stack.receiver()
    await team.register(hooks, ["job.completed"])
    await stack.sql("update webhook_endpoints set url = 'http://10.0.0.1/hook' where team_id = %s", team.team_id)

    job = (await team.job("Hello"))["job_id"]
    await team.ended(job)

    async def two_tries() -> list[Any]:
        found = await tries(stack, job)
        return found if len(found) >= 2 else []

    for row in await until(two_tries, "two tries of the delivery"):
        assert (row.status_code, row.error_class, row.error) == (None, "url_refused", "private address")
    assert hooks.receiver.received == []


async def test_a_receiver_that_is_gone_is_disabled_and_hears_no_more(stack: Stack) -> None:
    team = await stack.team()
    hooks = await stack.receiver(response(410))
    await team.register(hooks, ["job.completed"])
    await team.ended((await team.job("first"))["job_id"])

    async def disabled() -> bool:
        (row,) = await stack.sql("select status from webhook_endpoints where team_id = %s", team.team_id)
        return bool(row.status == "disabled")

    await until(disabled, "the endpoint is disabled")
    await team.ended((await team.job("second"))["job_id"])

    await verify(stack)
    states = await stack.sql("select state from deliveries where team_id = %s", team.team_id)
    assert [row.state for row in states] == ["discarded"]
    assert len(hooks.receiver.received) == 1


async def test_a_callback_without_its_own_secret_is_signed_with_the_teams(stack: Stack) -> None:
    first = await stack.team()
    shown = accepted(await stack.admin.get(f"/api/teams/{first.team_id}"))
    body = {name: shown[name] for name in ("organization_id", "access_groups")}
    made = accepted(
        await stack.admin.post(
            "/api/teams/create", json={**body, "team_id": f"{first.team_id}-2", "credits_allocated": 5}
        )
    )
    client = await stack.client(made["virtual_key"])
    hooks = await stack.receiver()
    hooks.secret = made["callback_secret"]
    events = ["call.completed", "job.completed"]
    job = {"team_id": made["team_id"], "job_type": "test", "callback_url": hooks.url, "callback_events": events}

    accepted(await client.post("/api/jobs/create", json={**job, "calls": [first.call("Hello")]}))

    assert {event["type"] for event in await hooks.arrived(2)} == set(events)


async def verify_delivered(stack: Stack, job: str) -> None:
    team: Team = stack.teams[0]
    await team.ended(job)
    await verify(stack, delivered=True)


async def tries(stack: Stack, job: str) -> list[Any]:
    return await stack.sql(
        """select a.status_code, a.error_class, a.error from delivery_attempts a
             join deliveries d on d.id = a.delivery_id where d.job_id = %s order by a.number""",
        job,
    )
