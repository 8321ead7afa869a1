"""Roles: owners and admins write, users read, a team does neither; and how soon a change of mind works."""

import re

import pytest

from api.http import given_of
from tests.api.admin import ROUTES, made, refusal
from tests.api.people import Person, person
from tests.scene import Scene

NO_WRITING = (403, "Insufficient permissions. Required roles: owner, admin")
OWNERS_ONLY = (403, "Insufficient permissions. Required roles: owner")
NEEDS_KEY = (403, "This endpoint needs a team virtual key")
NEEDS_SESSION = (403, "This endpoint needs an admin user's session")
PATHS = [(method, re.sub(r"{[^}]+}", "x", path), given_of(handler).access) for method, path, handler in ROUTES]


def of(*accesses: str) -> list[tuple[str, str]]:
    found = [(method, path) for method, path, access in PATHS if access in accesses]
    assert found, accesses
    return found


async def test_a_user_only_reads(scene: Scene):
    user = await person(scene)
    for method, path in of("admin:w", "any:w"):
        assert refusal(await user.send(method, path, {})) == NO_WRITING, (method, path)
    for method, path in of("owner"):
        assert refusal(await user.send(method, path, {})) == OWNERS_ONLY, (method, path)
    for method, path in of("admin:r", "any"):
        assert (await user.send(method, path)).status_code not in {401, 403}, (method, path)


@pytest.mark.parametrize("role", ["owner", "admin"])
async def test_owners_and_admins_write(scene: Scene, role: str):
    writer = await person(scene, role)
    for method, path in of("admin:w", "any:w", "admin:r", "any"):
        answer = await writer.send(method, path, {})
        assert answer.status_code not in {401, 403}, (method, path, answer.text)


async def test_owners_alone_may_what_only_owners_may(scene: Scene):
    owner, admin = await person(scene, "owner"), await person(scene, "admin")
    for method, path in of("owner"):
        assert refusal(await admin.send(method, path, {})) == OWNERS_ONLY, (method, path)
        assert (await owner.send(method, path, {"new_password": "a new password"})).status_code == 404


async def test_team_routes_are_for_keys(scene: Scene):
    owner = await person(scene, "owner")
    for method, path in of("team"):
        assert refusal(await owner.send(method, path, {})) == NEEDS_KEY, (method, path)


async def test_what_sessions_are_for_is_not_for_keys(scene: Scene):
    team = await scene.team()
    for method, path in of("session"):
        assert refusal(await scene.api.send(method, path, {})) == NEEDS_SESSION, (method, path)
        assert refusal(await team.send(method, path, {})) == (403, "Admin access required"), (method, path)


async def test_rights_that_were_taken_away_are_gone_at_the_next_request(scene: Scene):
    admin = await person(scene, "admin")
    assert (await admin.get("/admin-users")).status_code == 200
    made(await scene.api.put(f"/admin-users/{admin.id}", {"role": "user"}))
    assert refusal(await admin.get("/admin-users")) == NO_WRITING
    made(await scene.api.put(f"/admin-users/{admin.id}", {"role": "admin"}))
    assert (await admin.get("/admin-users")).status_code == 200


@pytest.mark.parametrize("way", ["deactivate", "delete"])
async def test_who_was_kept_out_is_out_at_once_and_in_again_only_by_a_login(scene: Scene, way: str):
    admin = await person(scene, "admin")
    path = f"/admin-users/{admin.id}"
    made(await (scene.api.put(f"{path}/deactivate") if way == "deactivate" else scene.api.send("DELETE", path)))
    assert refusal(await admin.get("/admin-users/me")) == (401, "User not found or inactive")
    made(await scene.api.put(f"{path}/activate"))
    assert refusal(await admin.get("/admin-users/me")) == (401, "Session expired or revoked")
    made(await (await admin.again()).get("/admin-users/me"))


async def test_the_header_of_the_admin_key_goes_before_a_session(scene: Scene):
    user = await person(scene)
    both = {"X-Admin-Key": scene.api.admin["X-Admin-Key"]}
    assert (await user.send("GET", "/admin-users", **both)).status_code == 200
    assert refusal(await user.send("GET", "/admin-users", **{"X-Admin-Key": "wrong"})) == (401, "Invalid admin API key")


async def test_a_session_reads_where_a_team_reads(scene: Scene):
    team, user = await scene.team(), await person(scene)
    job_id = (await team.job())["job_id"]
    assert made(await user.get(f"/jobs/{job_id}"))["team_id"] == team.id
    assert "provider_cost_usd" in made(await user.get(f"/jobs/{job_id}"))["costs"]


@pytest.mark.parametrize("token", ["a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30.x"])
async def test_what_looks_like_a_session_and_is_none(scene: Scene, token: str):
    user = await person(scene)
    stranger = Person(client=user.client, id=user.id, email=user.email, token=token)
    assert refusal(await stranger.get("/credits/balance")) == (401, "Invalid or expired token")
    assert refusal(await stranger.get("/admin-users")) == (401, "Invalid or expired token")
    assert refusal(await stranger.post("/jobs/create", {})) == (401, "Invalid API key")
