"""Setup: the first owner is made once, and in production only by who has the admin key."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from api.app import create_app
from api.wire.admins import LoggedIn, SetupStatus
from tests.api.admin import made, refusal, wrong_place
from tests.api.people import PASSWORD
from tests.conftest import ADMIN_KEY
from tests.scene import Scene

DAY_S = 86_400
OWNER = {"email": "Owner@Acme.example", "display_name": "Ann", "password": PASSWORD}


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """Nobody administers yet."""
    return fresh_database_url


async def test_the_first_owner_is_made_once(scene: Scene):
    status = "/api/admin-users/setup/status"
    before = made(await scene.client.get(status))
    assert before == {"needs_setup": True, "has_users": False}
    SetupStatus.model_validate(before)

    owner = made(await scene.client.post("/api/admin-users/setup", json=OWNER))

    LoggedIn.model_validate(owner)
    assert (owner["token_type"], owner["expires_in"]) == ("bearer", DAY_S)
    user = owner["user"]
    assert (user["email"], user["role"], user["is_active"], user["created_by"]) == (
        "owner@acme.example", "owner", True, None,
    )  # fmt: skip
    assert user["last_login"] is not None
    assert made(await scene.client.get(status)) == {"needs_setup": False, "has_users": True}
    again = await scene.client.post("/api/admin-users/setup", json={**OWNER, "email": "other@acme.example"})
    assert refusal(again) == (400, "Setup already completed. Owner account exists.")
    bearer = {"Authorization": f"Bearer {owner['access_token']}"}
    assert made(await scene.client.get("/api/admin-users/me", headers=bearer)) == user


async def test_of_many_setups_at_once_one_makes_an_owner(scene: Scene):
    bodies = [{**OWNER, "email": f"owner-{n}@acme.example"} for n in range(6)]
    answers = await asyncio.gather(*(scene.client.post("/api/admin-users/setup", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400, 400]
    assert (await scene.row("select count(*) as n from admin_users")).n == 1


async def test_in_production_setup_needs_the_admin_key(scene: Scene):
    settings = scene.rt.settings.model_copy(update={"env": "production"})
    app = create_app(replace(scene.rt, settings=settings))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://waybill") as client:
        anybody = await client.post("/api/admin-users/setup", json=OWNER)
        assert anybody.status_code == 401
        assert anybody.headers["www-authenticate"] == "Bearer"
        made(await client.post("/api/admin-users/setup", json=OWNER, headers={"X-Admin-Key": ADMIN_KEY}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("password", "1234567"),
        ("password", "ä" * 513),
        ("email", "nobody"),
        ("email", "a b@c"),
        ("email", "x" * 250 + "@y.zz"),
        ("display_name", ""),
    ],
)
async def test_what_setup_refuses(scene: Scene, field: str, value: str):
    answer = await scene.client.post("/api/admin-users/setup", json={**OWNER, field: value})
    assert wrong_place(answer) == ["body", field]
    assert value == "" or value not in answer.text
    assert (await scene.row("select count(*) as n from admin_users")).n == 0
