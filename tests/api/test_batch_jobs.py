"""A batch seen through the job API: a job like others, whose calls are named, and which nobody adds to."""

from typing import Any
from uuid import UUID

import pytest

from shared import ids
from tests.api.admin import made, refusal, wrong_place
from tests.ended_lines import begun, more
from tests.scene import HELLO, Scene, Team

OUTCOMES = ("good", "bad", "good", "expired")
NAMES = [f"line-{n}" for n in range(1, 5)]


@pytest.fixture
async def batch(scene: Scene, team: Team) -> UUID:
    """Of a team that has other jobs too; two of its four lines succeeded."""
    await team.job()
    id_ = await begun(scene, team, *OUTCOMES)
    await scene.rows("update batches set models = array['fast', 'good'] where id = :id returning id", id=id_)
    return id_


async def test_its_job_is_read_and_listed_like_others(scene: Scene, team: Team, batch: UUID):
    job = await team.read(str(batch))
    assert (job["job_type"], job["status"], job["model_groups_used"]) == ("batch", "in_progress", ["fast", "good"])
    assert job["counts"] == {
        "total": 4, "pending": 0, "in_progress": 0, "completed": 2, "failed": 2, "cancelled": 0
    }  # fmt: skip
    assert job["batch_id"] == ids.batch(batch)
    assert {each["batch_id"] for each in made(await team.get("/jobs"))["jobs"]} == {None, ids.batch(batch)}
    [listed] = made(await team.get("/jobs?job_type=batch"))["jobs"]
    assert listed == job
    [summary] = made(await scene.api.get(f"/jobs/teams/{team.id}?job_type=batch"))["jobs"]
    assert (summary["total_calls"], summary["retry_count"]) == (4, 0)


async def test_its_calls_are_its_lines_by_the_clients_names(scene: Scene, team: Team, batch: UUID):
    listed = made(await team.get(f"/jobs/{batch}/calls"))["calls"]
    assert [call["custom_id"] for call in listed] == NAMES
    assert (await team.read(str(batch), listed[0]["call_id"]))["custom_id"] == "line-1"
    looked_into = made(await scene.api.get(f"/jobs/teams/{team.id}/{batch}?limit=2&offset=2"))["calls"]
    assert [call["custom_id"] for call in looked_into] == NAMES[2:]
    ordinary = await team.job(calls=[{"messages": HELLO}])
    [call] = made(await team.get(f"/jobs/{ordinary['job_id']}/calls"))["calls"]
    assert call["custom_id"] is None


async def test_its_costs_are_those_of_its_lines_page_by_page(scene: Scene, team: Team, batch: UUID):
    await more(scene, batch, *["good"] * 3)
    pages = [made(await team.get(f"/jobs/{batch}/costs?limit=4&offset={start}"))["costs"] for start in (0, 4)]
    lines = [line for page in pages for line in page["breakdown"]]
    assert [len(page["breakdown"]) for page in pages] == [4, 3]
    assert {page["total_cost_usd"] for page in pages} == {round(sum(line["cost_usd"] for line in lines), 9)}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs/{}/llm-call", {"messages": HELLO}),
        ("/jobs/{}/llm-call-stream", {"messages": HELLO}),
    ],
)
async def test_no_call_is_added_to_it(scene: Scene, team: Team, batch: UUID, path: str, body: Any):
    assert refusal(await team.post(path.format(batch), body)) == (409, "Job is a batch: it takes no calls")
    assert (await team.read(str(batch)))["counts"]["total"] == len(OUTCOMES)
    assert await team.credits() == (1000, 0, 1000)


async def test_a_client_does_not_complete_it(team: Team, batch: UUID):
    assert refusal(await team.complete(str(batch))) == (409, "Job is a batch: it ends with its lines")
    assert (await team.read(str(batch)))["status"] == "in_progress"


async def test_its_metadata_stays_what_batches_take(scene: Scene, team: Team, batch: UUID):
    path = f"/jobs/{batch}/metadata"
    made(await team.send("PATCH", path, {"metadata": {"for": "reports"}}))
    for wrong in ({"deep": [1]}, {"long": "x" * 513}, {f"n{n}": "" for n in range(16)}):
        assert wrong_place(await team.send("PATCH", path, {"metadata": wrong})) == ["body", "metadata"], wrong
        failed = await team.complete(str(batch), status="failed", metadata=wrong)
        assert wrong_place(failed) == ["body", "metadata"], wrong
    own = {"Authorization": f"Bearer {team.key}"}
    shown = made(await scene.client.get(f"/v1/batches/{ids.batch(batch)}", headers=own))
    assert (shown["metadata"], shown["status"]) == ({"for": "reports"}, "in_progress")


async def test_cancelled_as_a_job_it_is_cancelled_as_a_batch(scene: Scene, team: Team, batch: UUID):
    ended = made(await team.post(f"/jobs/{batch}/cancel"))
    assert (ended["status"], ended["total_calls"]) == ("cancelled", len(OUTCOMES))
    assert (await scene.row("select status from batches where id = :id", id=batch)).status == "cancelling"
