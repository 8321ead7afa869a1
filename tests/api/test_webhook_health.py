"""An admin sees how webhooks do over all teams."""

from typing import Any
from uuid import UUID

import pytest

from shared import ids
from tests.api.admin import made, refusal
from tests.scene import Scene
from tests.shared.webhook_rows import Rows

PATH = "/webhooks/health"


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    """Of this module: all teams are counted."""
    return module_database_url


@pytest.fixture
async def rows(scene: Scene) -> Rows:
    found = Rows(scene.rt)
    await found.create_team()
    return found


async def health(scene: Scene) -> dict[str, Any]:
    return made(await scene.api.get(PATH))


def grown(before: dict[str, Any], after: dict[str, Any], *path: str) -> int:
    for name in path:
        before, after = before[name], after[name]
    return after - before  # type: ignore[operator,return-value]


async def make(scene: Scene, rows: Rows, state: str, **columns: str) -> UUID:
    """A delivery of this state; columns as SQL."""
    id_ = ids.new()
    endpoint = await rows.endpoint()
    own = {"trigger": "'scheduled'", "created_at": "app_now()", **columns}
    await scene.rows(
        f"""insert into deliveries (id, event_id, event_type, team_id, queue_id, endpoint_id, state, {", ".join(own)})
            values (:id, uuid7(), 'job.completed', :team, :endpoint, :endpoint, :state, {", ".join(own.values())})
            returning id""",
        id=id_, team=rows.team_id, endpoint=endpoint, state=state,
    )  # fmt: skip
    return id_


async def test_deliveries_are_counted_by_outcome(scene: Scene, rows: Rows):
    before = await health(scene)
    for state in ("delivered", "delivered", "failing", "exhausted", "pending"):
        await make(scene, rows, state)
    await make(scene, rows, "delivered", trigger="'test'")
    after = await health(scene)
    assert {state: grown(before, after, "deliveries", state) for state in after["deliveries"]} == {
        "pending": 1, "delivered": 2, "failing": 1, "exhausted": 1, "aborted": 0, "discarded": 0,
    }  # fmt: skip
    assert grown(before, after, "waiting") == 2


async def test_the_oldest_that_waits_and_the_first_attempts_are_timed(scene: Scene, rows: Rows):
    await make(scene, rows, "pending", created_at="app_now() - interval '30 days'")
    tried = await make(scene, rows, "delivered")
    await scene.rows(
        """insert into delivery_attempts (delivery_id, number, started_at)
           select id, 1, created_at + interval '250 ms' from deliveries where id = :id returning number""",
        id=tried,
    )
    shown = await health(scene)
    assert shown["oldest_undelivered_age_s"] == pytest.approx(30 * 86_400, abs=60)
    assert 0 < shown["first_attempt_p50_ms"] <= shown["first_attempt_p95_ms"]


async def test_circuits_full_queues_and_endpoints_are_counted(scene: Scene, rows: Rows):
    before = await health(scene)
    for columns in ("60, app_now() + interval '1 min', true", "60, app_now(), false", "0, null, false"):
        await scene.rows(
            f"""with waiting as (select queue_id from deliveries where id = :id)
                insert into delivery_queues (id, team_id, open_s, open_until, is_full)
                select id, :team, {columns} from (select queue_id from waiting union select uuid7()) q(id)
                returning id""",
            team=rows.team_id, id=await make(scene, rows, "pending"),
        )  # fmt: skip
    for what in ("failing_since = now()", "status = 'disabled', disabled_reason = 'gone'",
                 "status = 'disabled', disabled_reason = 'failing', deleted_at = now()"):  # fmt: skip
        endpoint = await rows.endpoint()
        await scene.rows(f"update webhook_endpoints set {what} where id = :id returning id", id=endpoint)
    after = await health(scene)
    assert (grown(before, after, "circuits", "open"), grown(before, after, "circuits", "half_open")) == (1, 1)
    assert grown(before, after, "full_queues") == 1
    assert [grown(before, after, "endpoints", name) for name in ("active", "failing", "disabled")] == [4, 1, 1]
    assert [grown(before, after, "disabled_by_reason", name) for name in ("gone", "failing")] == [1, 0]


async def test_teams_do_not_see_it(scene: Scene):
    team = await scene.team()
    assert refusal(await team.get(PATH)) == (403, "Admin access required")
