"""Who may call what: the contract's table, row by row, and how soon a change of mind works."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from api.http import given_of
from tests.api.admin import refusal
from tests.api.people import person
from tests.scene import Scene, Team

NO_HEADER = "Missing Authorization header. Expected: 'Authorization: Bearer sk-xxx...'"
BAD_HEADER = "Invalid Authorization header format. Expected: 'Authorization: Bearer sk-xxx...'"
NO_ADMIN = "Authentication required. Provide either 'Authorization: Bearer <token>' or 'X-Admin-Key: <master_key>'"
TEAM_ROUTE, ADMIN_ROUTE = "/api/jobs/create", "/api/teams/create"


async def change(scene: Scene, sql: str, **values: Any) -> None:
    async with scene.rt.db.transaction() as tx:
        await tx.execute(text(sql), values)


async def until(team: Team, status: int) -> Any:
    """The refusal, once what is remembered of a key (at most a second) is read anew."""
    async with asyncio.timeout(5):
        while (answer := await team.get("/credits/balance")).status_code != status:  # noqa: ASYNC110 - it is read anew until then
            await asyncio.sleep(0.05)
    return answer


@pytest.mark.parametrize(
    ("route", "headers", "status", "detail"),
    [
        (TEAM_ROUTE, {}, 401, NO_HEADER),
        (TEAM_ROUTE, {"Authorization": "Basic abc"}, 401, BAD_HEADER),
        (TEAM_ROUTE, {"Authorization": "Bearer"}, 401, BAD_HEADER),
        (TEAM_ROUTE, {"Authorization": "Bearer "}, 401, BAD_HEADER),
        (TEAM_ROUTE, {"Authorization": "sk-only"}, 401, BAD_HEADER),
        (TEAM_ROUTE, {"Authorization": "Bearer sk-unknown"}, 401, "Invalid API key"),
        (TEAM_ROUTE, {"Authorization": "Bearer {admin}"}, 403, "This endpoint needs a team virtual key"),
        (TEAM_ROUTE, {"X-Admin-Key": "{admin}"}, 403, "This endpoint needs a team virtual key"),
        (TEAM_ROUTE, {"X-Admin-Key": "wrong"}, 401, "Invalid admin API key"),
        (ADMIN_ROUTE, {}, 401, NO_ADMIN),
        (ADMIN_ROUTE, {"X-Admin-Key": "wrong"}, 401, "Invalid admin API key"),
        (ADMIN_ROUTE, {"X-Admin-Key": ""}, 401, "Invalid admin API key"),
        (ADMIN_ROUTE, {"Authorization": "Bearer unknown"}, 401, "Invalid or expired token"),
        (ADMIN_ROUTE, {"Authorization": "Basic {admin}"}, 401, NO_ADMIN),
        (ADMIN_ROUTE, {"Authorization": "Bearer {key}"}, 403, "Admin access required"),
        (ADMIN_ROUTE, {"X-Admin-Key": "wrong", "Authorization": "Bearer {admin}"}, 401, "Invalid admin API key"),
        (TEAM_ROUTE, {"X-Admin-Key": "wrong", "Authorization": "Bearer sk-unknown"}, 401, "Invalid API key"),
    ],
)
async def test_who_may_not(scene: Scene, team: Team, route: str, headers: dict[str, str], status: int, detail: str):
    admin = scene.rt.settings.admin_key.get_secret_value()
    sent = {name: value.format(admin=admin, key=team.key) for name, value in headers.items()}
    answer = await scene.client.post(route, json={}, headers=sent)

    assert refusal(answer) == (status, detail)
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_has_no_case(scene: Scene, team: Team, scheme: str):
    answer = await scene.client.get("/api/credits/balance", headers={"Authorization": f"{scheme} {team.key}"})
    assert answer.status_code == 200


async def test_with_both_headers_team_routes_take_the_key_and_others_the_admin(scene: Scene, team: Team):
    both = {"Authorization": f"Bearer {team.key}", **scene.api.admin}
    made = await scene.client.post(TEAM_ROUTE, json={"team_id": team.id, "job_type": "t"}, headers=both)
    assert made.status_code == 200
    read = await scene.client.get(f"/api/jobs/{made.json()['job_id']}", headers=both)
    assert "provider_cost_usd" in read.json()["costs"], "an admin sees the provider's cost"


async def test_the_admin_key_as_bearer(scene: Scene):
    bearer = {"Authorization": f"Bearer {scene.rt.settings.admin_key.get_secret_value()}"}
    assert (await scene.client.post(ADMIN_ROUTE, json={}, headers=bearer)).status_code == 422


async def test_a_key_works_for_its_own_team_only(team: Team):
    answer = await team.post("/jobs/create", {"team_id": "another", "job_type": "t"})
    assert refusal(answer) == (403, "API key does not belong to team 'another'")


async def test_a_blocked_key_stops_working_within_a_second(scene: Scene, team: Team):
    assert (await team.get("/credits/balance")).status_code == 200
    await change(scene, "update virtual_keys set blocked = true where team_id = :id", id=team.id)
    assert (await until(team, 401)).json()["detail"] == "API key is blocked"


async def test_a_revoked_key_stops_working_within_a_second(scene: Scene, team: Team):
    assert (await team.get("/credits/balance")).status_code == 200
    await change(scene, "delete from virtual_keys where team_id = :id", id=team.id)
    assert (await until(team, 401)).json()["detail"] == "Invalid API key"


async def test_an_expired_key(scene: Scene, team: Team):
    past = datetime.now(UTC) - timedelta(seconds=1)
    await change(scene, "update virtual_keys set expires_at = :at where team_id = :id", id=team.id, at=past)
    assert (await until(team, 401)).json()["detail"] == "API key has expired"


@pytest.mark.parametrize("prefix", ["/api", "/api/v1"])
async def test_a_key_is_for_its_routes_only(scene: Scene, team: Team, prefix: str):
    await change(scene, "update virtual_keys set allowed_routes = '{/api/jobs}' where team_id = :id", id=team.id)
    own = {"Authorization": f"Bearer {team.key}"}
    read = await scene.client.get(f"{prefix}/credits/balance", headers=own)
    assert refusal(read) == (403, "API key is not allowed to use this route")
    body = {"team_id": team.id, "job_type": "t"}
    assert (await scene.client.post(f"{prefix}/jobs/create", json=body, headers=own)).status_code == 200


async def test_a_new_key_works_although_it_was_unknown_a_moment_ago(scene: Scene, team: Team):
    stranger = Team(scene=scene, id=team.id, key=f"sk-{team.id}-of-my-own", models=())
    assert (await stranger.get("/credits/balance")).status_code == 401
    organization = await scene.row("select organization_id from teams where id = :id", id=team.id)
    made = await scene.api.team(organization_id=organization.organization_id, virtual_key=stranger.key)
    assert made["virtual_key"] == stranger.key
    await until(stranger, 200)


@pytest.mark.parametrize("whose", ["teams", "organizations"])
async def test_a_suspended_team_is_told_why_and_may_read_itself(scene: Scene, team: Team, whose: str):
    where = "id = :id" if whose == "teams" else "id = (select organization_id from teams where id = :id)"
    await change(scene, f"update {whose} set status = 'suspended' where {where}", id=team.id)
    answer = await until(team, 403)
    assert answer.json()["detail"] == "Team access is suspended. Please contact support."
    assert (await team.get(f"/teams/{team.id}")).status_code == 200


@pytest.mark.parametrize(("minutes", "most"), [(5, 300), (600, 3600), (None, 60)])
@pytest.mark.parametrize("whose", ["teams", "organizations"])
async def test_a_paused_team_is_told_when_to_come_again(
    scene: Scene, team: Team, whose: str, minutes: int | None, most: int
):
    where = "id = :id" if whose == "teams" else "id = (select organization_id from teams where id = :id)"
    at = None if minutes is None else datetime.now(UTC) + timedelta(minutes=minutes)
    await change(scene, f"update {whose} set status = 'paused', paused_until = :at where {where}", id=team.id, at=at)
    answer = await until(team, 429)
    assert answer.json()["detail"] == "Team access temporarily paused"
    assert most - 30 <= int(answer.headers["retry-after"]) <= most + 1


async def test_a_pause_ends_by_itself(scene: Scene, team: Team):
    past = datetime.now(UTC) - timedelta(seconds=1)
    sql = "update teams set status = 'paused', paused_until = :at where id = :id"
    await change(scene, sql, id=team.id, at=past)
    await asyncio.sleep(0)
    assert (await team.get("/credits/balance")).status_code == 200


async def test_no_route_but_the_open_ones_answers_a_stranger(scene: Scene):
    for route in scene.app.routes:
        access = given_of(route.endpoint).access
        path = route.path.replace(":path", "").format(**dict.fromkeys(route.param_convertors, "x"))
        for method in route.methods - {"HEAD"}:
            answer = await scene.client.request(method, path, json={})
            if access == "none":
                assert answer.status_code != 401, path
            else:
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("kind", ["key", "session"])
async def test_a_database_that_is_away_is_503_and_never_401(scene: Scene, team: Team, kind: str):
    from dataclasses import replace

    import httpx

    from api.app import create_app
    from shared.db import Database

    secret = team.key if kind == "key" else (await person(scene)).token
    gone = Database("postgresql://waybill@127.0.0.1:1/nothing", pool=2)
    app = create_app(replace(scene.rt, db=gone))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://waybill") as client,
    ):
        answer = await client.get("/api/credits/balance", headers={"Authorization": f"Bearer {secret}"})
    await gone.close()
    assert refusal(answer) == (503, "Service temporarily unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_what_an_admin_changes_is_seen_by_the_next_request_here(scene: Scene, team: Team):
    assert (await team.get("/credits/balance")).status_code == 200
    await scene.api.post(f"/teams/{team.id}/suspend")
    assert (await team.get("/credits/balance")).status_code == 403
    await scene.api.post(f"/teams/{team.id}/resume")
    assert (await team.get("/credits/balance")).status_code == 200
    await scene.api.post(f"/teams/{team.id}/rotate-key")
    assert (await team.get("/credits/balance")).status_code == 401
