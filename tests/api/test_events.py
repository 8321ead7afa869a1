"""The event log as JSON: pages behind a cursor, filters, waiting, and what an endpoint has missed."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from shared import ids
from tests.api.admin import refusal
from tests.api.listening import following
from tests.scene import HELLO, Scene, Team

SUBSCRIPTION = {"webhook_url": "http://127.0.0.1:9999/hooks", "events": ["job.*"]}


async def events(team: Team, query: str = "", path: str = "/events", **headers: str) -> dict[str, Any]:
    answer = await team.get(f"{path}?{query}", **headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def types_of(page: dict[str, Any]) -> list[str]:
    return [event["type"] for event in page["events"]]


async def ended_job(team: Team) -> str:
    """A job of one call, which completed: four events."""
    body = {"team_id": team.id, "job_type": "test", "calls": [{"messages": HELLO}], "auto_complete": True}
    ended = await team.post("/jobs/create", body, Prefer="wait=10")
    assert ended.status_code == 200, ended.text
    found: str = ended.json()["job_id"]
    return found


JOB = ["job.created", "job.started", "call.completed", "job.completed"]


async def test_a_log_is_read_page_by_page_and_a_page_is_where_the_next_begins(scene: Scene, team: Team):
    assert await events(team) == {"events": [], "next_after": None, "has_more": False}
    job_id = await ended_job(team)
    first = await events(team, "limit=3")
    assert (types_of(first), first["has_more"], first["next_after"]) == (JOB[:3], True, first["events"][2]["id"])
    second = await events(team, f"limit=3&after={first['next_after']}")
    assert (types_of(second), second["has_more"]) == (JOB[3:], False)
    last = second["next_after"]
    assert await events(team, f"after={last}") == {"events": [], "next_after": last, "has_more": False}
    assert [event["sequence"] for event in (await events(team, path=f"/jobs/{job_id}/events"))["events"]] == [
        1,
        2,
        3,
        4,
    ]


async def test_every_door_shows_the_bytes_that_were_stored(scene: Scene, team: Team):
    await team.job()
    [event] = (await events(team))["events"]
    row = await scene.row("select body from events where id = :id", id=ids.parse_prefixed("evt", event["id"]))
    one = await team.get(f"/events/{event['id']}")
    assert one.content == row.body.encode()
    assert row.body.encode() in (await team.get("/events")).content


async def test_a_log_is_filtered_and_the_cursor_passes_what_was_left_out(scene: Scene, team: Team):
    job_id = await ended_job(team)
    other = (await team.job())["job_id"]
    end = (await events(team))["next_after"]
    assert types_of(await events(team, "types=call.*,job.started")) == ["job.started", "call.completed"]
    assert types_of(await events(team, f"job_id={other}")) == ["job.created"]
    none = await events(team, f"types=job.failed&job_id={job_id}")
    assert none == {"events": [], "next_after": end, "has_more": False}
    assert await events(team, f"job_id={uuid4()}") == {"events": [], "next_after": end, "has_more": False}
    assert types_of(await events(team, "types=job.completed", path=f"/jobs/{job_id}/events")) == ["job.completed"]


async def test_times_include_what_is_shown_as_equal_to_them(scene: Scene, team: Team):
    await ended_job(team)
    found = (await events(team))["events"]
    since, until = found[1]["timestamp"], found[2]["timestamp"]
    expected = [event["type"] for event in found if since <= event["timestamp"] <= until]
    assert types_of(await events(team, f"since={since}&until={until}")) == expected
    refused = 400, "Invalid since format: yesterday. Use ISO format (YYYY-MM-DD)"
    assert refusal(await team.get("/events?since=yesterday")) == refused


async def test_a_day_is_a_whole_day_and_a_plus_sign_may_come_as_a_space(scene: Scene, team: Team):
    await team.job()
    [event] = (await events(team))["events"]
    at = datetime.fromisoformat(event["timestamp"])
    assert types_of(await events(team, f"since={at:%Y-%m-%d}&until={at:%Y-%m-%d}")) == ["job.created"]
    assert types_of(await events(team, f"since={at.isoformat()}&until={at.isoformat()}")) == ["job.created"]


async def test_a_page_that_ends_before_the_log_begins_has_a_cursor_that_begins_with_the_oldest(team: Team):
    empty = {"events": [], "next_after": None, "has_more": False}
    assert await events(team, "until=2001-01-01") == empty
    job_id = await ended_job(team)
    for query in ("until=2001-01-01", "since=2001-01-02&until=2001-01-01&limit=1", "until=2001-01-01&types=job.*"):
        early = await events(team, query)
        assert early == {**empty, "next_after": ids.prefixed("evt", UUID(int=0))}
    assert types_of(await events(team, f"after={early['next_after']}")) == JOB
    assert types_of(await events(team, f"after={early['next_after']}", path=f"/jobs/{job_id}/events")) == JOB
    assert (await events(team, f"until=2001-01-01&after={early['next_after']}"))["next_after"] == early["next_after"]


async def test_types_may_be_called_as_in_the_list_of_deliveries(team: Team):
    await ended_job(team)
    for name in ("types", "event_type", "type"):
        assert types_of(await events(team, f"{name}=call.*")) == ["call.completed"]


@pytest.mark.parametrize("cursor", ["x", "evt_x", f"evt_{UUID(int=1).hex}"])
async def test_a_cursor_that_never_was_is_refused(team: Team, cursor: str):
    assert refusal(await team.get(f"/events?after={cursor}")) == (400, "Invalid cursor")


async def test_another_teams_cursor_is_none(scene: Scene, team: Team):
    await team.job()
    cursor = (await events(team))["next_after"]
    other = await scene.team()
    assert refusal(await other.get(f"/events?after={cursor}")) == (400, "Invalid cursor")


async def test_a_cursor_from_before_all_that_is_kept_has_expired(team: Team):
    old = int((datetime.now(UTC) - timedelta(days=31)).timestamp() * 1000)
    cursor = ids.prefixed("evt", UUID(int=(ids.new().int & ((1 << 80) - 1)) | (old << 80)))
    assert refusal(await team.get(f"/events?after={cursor}")) == (410, "Cursor expired")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("types=job.zzz", (400, "Unknown event type: job.zzz")),
        ("limit=1001", 422),
        ("job_id=x", 422),
        ("delivered=true", 422),
        ("webhook_id=whe_x", 422),
        ("delivered=false&webhook_id=whe_x", (404, "Webhook not found")),
        ("team_id=somebody", (403, "API key does not belong to team 'somebody'")),
    ],
)
async def test_what_cannot_be_asked_is_refused(team: Team, query: str, expected: Any):
    answer = await team.get(f"/events?{query}")
    assert expected in (answer.status_code, refusal(answer))


async def test_an_event_is_its_teams_and_the_admins(scene: Scene, team: Team):
    await team.job()
    [event] = (await events(team))["events"]
    other = await scene.team()
    path = f"/events/{event['id']}"
    assert refusal(await other.get(path)) == (403, "Event does not belong to your team")
    assert refusal(await team.get("/events/evt_x")) == (404, "Event not found")
    assert refusal(await team.get(f"/events/{ids.prefixed('evt', ids.new())}")) == (404, "Event not found")
    assert (await scene.api.get(path)).json() == event
    assert (await scene.api.get(f"/events?team_id={team.id}")).json()["events"] == [event]
    assert (await scene.api.get("/events")).status_code == 422
    assert refusal(await scene.api.get("/events?team_id=nobody")) == (404, "Team 'nobody' not found")


async def test_expunging_is_documented_and_not_there_yet(scene: Scene, team: Team):
    await team.job()
    [event] = (await events(team))["events"]
    path = f"/events/{event['id']}/expunge"
    assert (await team.post(path)).json()["detail"][0]["msg"] == "not supported yet"
    assert refusal(await (await scene.team()).post(path)) == (403, "Event does not belong to your team")
    assert (await events(team))["events"] == [event]


async def test_an_empty_page_is_held_until_something_comes(scene: Scene, team: Team):
    await team.job()
    after = (await events(team))["next_after"]
    waiting = [asyncio.create_task(events(team, f"after={after}&wait=20&types=job.started")) for _ in range(3)]
    preferring = asyncio.create_task(team.get(f"/events?after={after}", Prefer="wait=900"))
    await following(scene, 4)
    await team.job(calls=[{"messages": HELLO}])
    async with asyncio.timeout(5):
        found = await asyncio.gather(*waiting)
        preferred = await preferring
    assert [types_of(page) for page in found] == [["job.started"]] * 3
    assert types_of(preferred.json())[0] == "job.created"
    assert preferred.headers["Preference-Applied"] == "wait=600"
    assert scene.app.state.desk.log.following == 0


async def test_who_waited_in_vain_keeps_the_cursor(team: Team):
    await team.job()
    after = (await events(team))["next_after"]
    assert await events(team, f"after={after}&wait=0.05") == {"events": [], "next_after": after, "has_more": False}


async def test_a_process_that_closes_answers_who_waits(scene: Scene, team: Team):
    waiting = asyncio.create_task(events(team, "wait=60"))
    await following(scene, 1)
    await scene.app.state.desk.log.close()
    async with asyncio.timeout(5):
        assert (await waiting)["events"] == []


async def registered(team: Team) -> str:
    answer = await team.post("/webhooks/register", {"team_id": team.id, **SUBSCRIPTION})
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["webhook_id"]
    return found


async def acknowledge(scene: Scene, webhook_id: str, type_: str) -> None:
    await scene.rows(
        "update deliveries set state = 'delivered' where endpoint_id = :id and event_type = :type returning id",
        id=ids.parse_prefixed("whe", webhook_id),
        type=type_,
    )


async def test_what_an_endpoint_missed_is_what_it_wants_and_has_not_acknowledged(scene: Scene, team: Team):
    await team.job()
    webhook_id = await registered(team)
    await ended_job(team)
    await acknowledge(scene, webhook_id, "job.started")
    missed = await events(team, path=f"/webhooks/{webhook_id}/missed")
    assert types_of(missed) == ["job.created", "job.completed"]
    assert missed == await events(team, f"delivered=false&webhook_id={webhook_id}")
    assert missed == await events(team, "delivered=false")
    assert types_of(await events(team, "since=2020-01-01", path=f"/webhooks/{webhook_id}/missed")) == [
        "job.created",
        "job.created",
        "job.completed",
    ]
    first = await events(team, "limit=1", path=f"/webhooks/{webhook_id}/missed")
    rest = await events(team, f"after={first['next_after']}", path=f"/webhooks/{webhook_id}/missed")
    assert (types_of(rest), first["has_more"]) == (["job.completed"], True)
    await acknowledge(scene, webhook_id, "job.created")
    await acknowledge(scene, webhook_id, "job.completed")
    assert (await events(team, "delivered=false"))["events"] == []


async def test_push_and_pull_name_the_same_events(scene: Scene, team: Team):
    """What is queued for an endpoint is what its filter finds in the log, with the same ids and the same bytes."""
    webhook_id = await registered(team)
    for _ in range(3):
        await ended_job(team)
    rows = await scene.rows(
        "select e.body from deliveries d join events e on e.id = d.event_id where d.endpoint_id = :id order by e.seq",
        id=ids.parse_prefixed("whe", webhook_id),
    )
    assert [orjson.loads(row.body) for row in rows] == (await events(team, "types=job.*"))["events"]
