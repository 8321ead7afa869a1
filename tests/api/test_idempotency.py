"""P9: a POST that is sent again with the same Idempotency-Key has one effect, and the same answer."""

import asyncio
from uuid import UUID, uuid4

import pytest

from api.app import API
from api.http import given_of
from api.once import Once
from tests.api.admin import refusal
from tests.scene import HELLO, Scene, Team, answer, refused
from tests.waiting import until

STILL_RUNNING = (409, "A request with this Idempotency-Key is still running")
MISMATCH = {
    "loc": ["header", "idempotency-key"],
    "msg": "Idempotency-Key was already used with a different request",
    "type": "value_error.idempotency_mismatch",
}


def new_job(team: Team, **fields: object) -> dict[str, object]:
    return {"team_id": team.id, "job_type": "test", **fields}


async def test_a_repeated_create_makes_one_job_and_answers_the_same(scene: Scene, team: Team):
    first = await team.post("/jobs/create", new_job(team), Idempotency_Key='"k-1"')
    again = await team.post("/jobs/create", new_job(team), Idempotency_Key="k-1")
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (await scene.row("select count(*) as n from jobs where team_id = :id", id=team.id)).n == 1


async def test_key_order_and_spaces_of_the_body_do_not_matter(scene: Scene, team: Team):
    first = await team.post("/jobs/create", {"team_id": team.id, "job_type": "t"}, Idempotency_Key="k")
    again = await team.post("/jobs/create", {"job_type": "t", "team_id": team.id}, Idempotency_Key="k")
    assert again.json() == first.json()


async def test_another_body_with_the_same_key_is_refused(team: Team):
    await team.post("/jobs/create", new_job(team), Idempotency_Key="k-2")
    other = await team.post("/jobs/create", new_job(team, priority=3), Idempotency_Key="k-2")
    assert refusal(other) == (422, [MISMATCH])


@pytest.mark.parametrize("key", ["", '""', "with space", "x" * 256, "tab\there"])
async def test_a_key_that_is_none_is_refused(team: Team, key: str):
    assert refusal(await team.post("/jobs/create", new_job(team), Idempotency_Key=key)) == (
        400,
        "Invalid Idempotency-Key",
    )


async def test_a_key_belongs_to_its_team_and_its_path(scene: Scene, team: Team):
    other = await scene.team()
    first = await team.post("/jobs/create", new_job(team), Idempotency_Key="k-3")
    assert (await other.post("/jobs/create", new_job(other), Idempotency_Key="k-3")).json()["team_id"] == other.id
    job_id = first.json()["job_id"]
    ended = await team.post(f"/jobs/{job_id}/complete", {"status": "failed"}, Idempotency_Key="k-3")
    assert ended.json()["status"] == "failed"


async def test_a_hundred_equal_calls_at_once_are_one_call(scene: Scene, team: Team):
    scene.live = True
    job_id = (await team.job())["job_id"]
    body = {"messages": HELLO}
    answers = await asyncio.gather(
        *(team.post(f"/jobs/{job_id}/llm-call", body, Idempotency_Key="once") for _ in range(20))
    )
    assert {found.status_code for found in answers} <= {200, 409}
    made = {found.json()["call_id"] for found in answers if found.status_code == 200}
    assert len(made) == 1
    for found in answers:
        if found.status_code == 409:
            assert refusal(found) == STILL_RUNNING
            assert found.headers["retry-after"] == "1"
    assert len(scene.provider.asked) == 1
    assert (await team.read(job_id))["counts"]["total"] == 1


async def test_a_call_that_runs_is_409_and_its_answer_is_rebuilt_later(scene: Scene, team: Team):
    scene.live = True
    scene.provider.held.clear()
    job_id = (await team.job())["job_id"]
    path, body = f"/jobs/{job_id}/llm-call", {"messages": HELLO}
    first = asyncio.create_task(team.post(path, body, Idempotency_Key="slow"))
    await scene.provider.until_asked(1)
    assert refusal(await team.post(path, body, Idempotency_Key="slow")) == STILL_RUNNING
    scene.provider.held.set()
    done = await first
    again = await team.post(path, body, Idempotency_Key="slow")
    assert again.status_code == 200
    assert again.json() == done.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-call-id"] == done.headers["x-call-id"]


async def test_the_answer_is_rebuilt_by_another_process_when_the_first_one_died(scene: Scene, team: Team):
    scene.live = True
    scene.provider.held.clear()
    job_id = (await team.job())["job_id"]
    path, body = f"/jobs/{job_id}/llm-call", {"messages": HELLO}
    first = asyncio.create_task(team.post(path, body, Idempotency_Key="died"))
    await scene.provider.until_asked(1)
    first.cancel()
    await asyncio.wait([first])
    scene.provider.held.set()
    await asyncio.gather(*scene.tasks)
    again = await team.post(path, body, Idempotency_Key="died")
    assert (again.status_code, again.json()["response"]["content"]) == (200, "Paris")
    assert len(scene.provider.asked) == 1


async def test_a_failed_call_frees_its_key(scene: Scene, team: Team):
    scene.live = True
    scene.provider.steps = [refused("provider_bad_request", again="never"), answer("second")]
    job_id = (await team.job())["job_id"]
    path, body = f"/jobs/{job_id}/llm-call", {"messages": HELLO}
    assert (await team.post(path, body, Idempotency_Key="retry")).status_code == 400
    again = await team.post(path, body, Idempotency_Key="retry")
    assert again.json()["response"]["content"] == "second"
    assert "idempotent-replayed" not in again.headers


async def test_a_cancelled_call_frees_its_key(scene: Scene, team: Team):
    scene.live = False
    job_id = (await team.job())["job_id"]
    path, body = f"/jobs/{job_id}/llm-call", {"messages": HELLO}
    asked = {"Idempotency_Key": "gone", "Prefer": "wait=0.2"}
    first = asyncio.create_task(team.post(path, body, Idempotency_Key="gone"))

    async def accepted() -> list[dict[str, str]]:
        found: list[dict[str, str]] = (await team.get(f"/jobs/{job_id}/calls")).json()["calls"]
        return found

    calls = await until(accepted, "the call to be accepted")
    await team.post(f"/jobs/{job_id}/calls/{calls[0]['call_id']}/cancel")
    first.cancel()
    await asyncio.wait([first])
    again = await team.post(path, body, **asked)
    assert again.status_code == 202
    assert again.json()["call_id"] != calls[0]["call_id"]


@pytest.mark.parametrize("preference", ["respond-async", "wait=0.05"])
async def test_the_202_of_a_waiting_call_is_replayed_as_given(scene: Scene, team: Team, preference: str):
    scene.live = False
    job_id = (await team.job())["job_id"]
    path, body = f"/jobs/{job_id}/llm-call", {"messages": HELLO}
    first = await team.post(path, body, Idempotency_Key="async", Prefer=preference)
    await scene.work_on(first.json()["call_id"])
    again = await team.post(path, body, Idempotency_Key="async", Prefer=preference)
    assert first.status_code == again.status_code == 202
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]


async def test_a_refused_call_leaves_its_key_free(scene: Scene):
    team = await scene.team(credits=0)
    job_id = (await team.job())["job_id"]
    path, body = f"/jobs/{job_id}/llm-call", {"messages": HELLO}
    asked = {"Idempotency_Key": "poor", "Prefer": "respond-async"}
    assert refusal(await team.post(path, body, **asked)) == (403, "Insufficient credits")
    await scene.api.send("POST", "/credits/add", {"team_id": team.id, "amount": 1})
    assert (await team.post(path, body, **asked)).status_code == 202


async def test_a_replay_costs_no_rate_limit(scene: Scene):
    team = await scene.team(rpm_limit=2)
    for _ in range(4):
        made = await team.post("/jobs/create", new_job(team), Idempotency_Key="free")
        assert made.status_code == 200
    assert (await team.post("/jobs/create", new_job(team))).status_code == 200
    assert (await team.post("/jobs/create", new_job(team))).status_code == 429


async def test_equal_completes_at_once_end_the_job_once(scene: Scene, team: Team):
    job = await team.job(calls=[{"messages": HELLO}], auto_complete=False)
    await scene.work_on(job["calls"][0]["call_id"])
    ended = await asyncio.gather(
        *(
            team.post(f"/jobs/{job['job_id']}/complete", {"status": "completed"}, Idempotency_Key="end")
            for _ in range(20)
        )
    )
    assert {found.content for found in ended} == {ended[0].content}
    assert await team.deductions() == [-1]


async def test_a_job_with_calls_is_accepted_once(scene: Scene, team: Team):
    body = new_job(team, calls=[{"messages": HELLO}, {"messages": HELLO}])
    first, second = await asyncio.gather(
        team.post("/jobs/create", body, Idempotency_Key="two"), team.post("/jobs/create", body, Idempotency_Key="two")
    )
    assert first.json()["job_id"] == second.json()["job_id"]
    assert [call["call_id"] for call in first.json()["calls"]] == [call["call_id"] for call in second.json()["calls"]]


async def test_a_job_that_was_accepted_without_an_answer_is_answered_from_its_row(scene: Scene, team: Team):
    body = new_job(team, calls=[{"messages": HELLO}])
    first = await team.post("/jobs/create", body, Idempotency_Key="crash")
    await scene.rows(
        "update idempotency_keys set status = null, answer_sealed = null where job_id = :id returning scope",
        id=UUID(first.json()["job_id"]),
    )
    again = await team.post("/jobs/create", body, Idempotency_Key="crash")
    assert again.status_code == 202
    assert again.json()["calls"] == first.json()["calls"]


async def test_what_is_kept_is_sealed(scene: Scene, team: Team):
    marker = uuid4().hex
    await team.post("/jobs/create", new_job(team, external_task_id=marker), Idempotency_Key="secret")
    rows = await scene.rows("select answer_sealed from idempotency_keys where answer_sealed is not null")
    assert rows
    assert all(marker.encode() not in bytes(row.answer_sealed) for row in rows)


async def test_redis_may_be_emptied(scene: Scene, team: Team):
    first = await team.post("/jobs/create", new_job(team), Idempotency_Key="wiped")
    await scene.rt.redis.flushall()
    assert (await team.post("/jobs/create", new_job(team), Idempotency_Key="wiped")).content == first.content


async def test_a_cancel_that_is_repeated_tells_no_text_that_is_erased_by_now(scene: Scene, team: Team):
    scene.live = True
    job_id = (await team.job())["job_id"]
    made = await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO})
    path, id_ = f"/jobs/{job_id}/calls/{made.json()['call_id']}/cancel", UUID(made.json()["call_id"])
    first = await team.post(path, Idempotency_Key="k")
    again = await team.post(path, Idempotency_Key="k")
    assert (first.json()["response"]["content"], again.json()) == ("Paris", first.json())
    assert again.headers["idempotent-replayed"] == "true"
    await scene.rows("delete from call_payloads where call_id = :id returning call_id", id=id_)
    erased = await team.post(path, Idempotency_Key="k")
    assert (erased.status_code, erased.json()["response"]) == (200, None)


async def test_an_expired_key_is_a_new_one(scene: Scene, team: Team):
    first = await team.post("/jobs/create", new_job(team), Idempotency_Key="old")
    await scene.rows("update idempotency_keys set expires_at = app_now() returning scope")
    again = await team.post("/jobs/create", new_job(team), Idempotency_Key="old")
    assert again.json()["job_id"] != first.json()["job_id"]


async def calls_of(scene: Scene, job_id: str, count: int) -> list[UUID]:
    """The calls of a job, once it has so many."""

    async def there() -> list[UUID] | None:
        rows = await scene.rows("select id from calls where job_id = :id order by id", id=UUID(job_id))
        return [row.id for row in rows] if len(rows) == count else None

    found = await until(there, f"{count} calls")
    assert found is not None
    return found


async def test_a_call_that_failed_after_its_202_frees_its_key(scene: Scene, team: Team):
    scene.live = False
    job_id = (await team.job())["job_id"]
    path, asked = f"/jobs/{job_id}/llm-call", {"Idempotency_Key": "later", "Prefer": "respond-async"}
    first = await team.post(path, {"messages": HELLO}, **asked)
    await team.post(f"/jobs/{job_id}/calls/{first.json()['call_id']}/cancel")
    again = await team.post(path, {"messages": HELLO}, **asked)
    assert again.status_code == 202
    assert again.json()["call_id"] != first.json()["call_id"]


async def test_a_failed_calls_key_takes_another_body(scene: Scene, team: Team):
    scene.live = True
    scene.provider.steps = [refused("provider_bad_request", again="never")]
    job_id = (await team.job())["job_id"]
    path = f"/jobs/{job_id}/llm-call"
    wrong = await team.post(path, {"messages": HELLO, "temperature": 2}, Idempotency_Key="fixed")
    right = await team.post(path, {"messages": HELLO}, Idempotency_Key="fixed")
    assert (wrong.status_code, right.status_code) == (400, 200)


async def test_a_late_202_does_not_take_the_key_of_the_next_call(scene: Scene, team: Team):
    scene.live = False
    job_id = (await team.job(auto_complete=False))["job_id"]
    path, body = f"/jobs/{job_id}/llm-call", {"messages": HELLO}
    one = asyncio.create_task(team.post(path, body, Idempotency_Key="k"))
    [old] = await calls_of(scene, job_id, 1)
    key = await scene.row("select scope, request from idempotency_keys where call_id = :id", id=old)
    await team.post(f"/jobs/{job_id}/calls/{old}/cancel")
    two = asyncio.create_task(team.post(path, body, Idempotency_Key="k"))
    await calls_of(scene, job_id, 2)
    late = Once(rt=scene.rt, scope=bytes(key.scope), request=bytes(key.request))
    await late.store({"call_id": str(old)}, call_id=old)
    assert refusal(await team.post(path, body, Idempotency_Key="k")) == STILL_RUNNING
    for task in (one, two):
        task.cancel()
    await asyncio.wait([one, two])


async def test_a_replay_says_nothing_of_limits_as_they_were(scene: Scene):
    scene.live = False
    team = await scene.team(rpm_limit=10)
    body = new_job(team, calls=[{"messages": HELLO}])
    first = await team.post("/jobs/create", body, Idempotency_Key="k")
    again = await team.post("/jobs/create", body, Idempotency_Key="k")
    assert first.headers["x-ratelimit-remaining"] == "9"
    assert not [name for name in again.headers if "ratelimit" in name]


async def test_no_body_is_an_empty_one(scene: Scene, team: Team):
    path = f"/teams/{team.id}/suspend"
    sent = [{**scene.api.admin, "Idempotency-Key": "k"}] * 2
    first = await scene.client.post(f"/api{path}", headers=sent[0])
    again = await scene.client.post(f"/api{path}", headers=sent[1], json={})
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"


def test_every_post_that_somebody_is_known_for_keeps_its_answer():
    forgetful = [
        f"{method} {path}"
        for method, path, handler in API
        if method == "POST" and given_of(handler).access != "none" and "once" not in given_of(handler).wanted
    ]
    assert forgetful == []
