"""Who may call: nobody without a credential, no team where only an admin may."""

import re

import pytest

from api.http import given_of
from tests.api.admin import ROUTES, Api, refusal

PATHS = [
    pytest.param(method, re.sub(r"{[^}]+}", "x", path), given_of(handler).access)
    for method, path, handler in ROUTES
    if given_of(handler).access != "none"
]
FOR_ADMINS = [found for found in PATHS if found.values[2] in {"admin:r", "admin:w", "owner", "session"}]


@pytest.mark.parametrize(("method", "path", "access"), PATHS)
async def test_nobody_is_answered_without_a_credential(api: Api, method: str, path: str, access: str):
    answer = await api.client.request(method, f"/api{path}", json={})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path", "access"), PATHS)
async def test_a_wrong_admin_key_is_refused(api: Api, method: str, path: str, access: str):
    answer = await api.client.request(method, f"/api{path}", json={}, headers={"X-Admin-Key": "wrong"})
    assert refusal(answer) == (401, "Invalid admin API key")


@pytest.mark.parametrize(("method", "path", "access"), FOR_ADMINS)
async def test_a_team_is_told_that_this_is_not_for_it(api: Api, method: str, path: str, access: str):
    team = await api.team()
    assert refusal(await api.send(method, path, {}, key=team["virtual_key"])) == (403, "Admin access required")


def test_every_writing_route_is_for_admins():
    ours = ("/organizations", "/teams", "/credits", "/model", "/models")
    asking = ("POST", "/credits/teams/{team_id}/check")
    found = {(method, path): given_of(handler).access for method, path, handler in ROUTES if path.startswith(ours)}
    assert found.pop(asking) == "any"
    assert {access for (method, _), access in found.items() if method != "GET"} == {"admin:w"}
