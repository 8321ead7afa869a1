"""Who may call: nobody with a wrong admin key, and only admins where something is set up.

Without a credential, and as a team: tests/contract/test_openapi.py.
"""

import re

from api.http import given_of
from tests.api.admin import ROUTES, Api, refusal

PATHS = [
    (method, re.sub(r"{[^}]+}", "x", path)) for method, path, handler in ROUTES if given_of(handler).access != "none"
]


async def test_a_wrong_admin_key_is_refused_everywhere(api: Api):
    answered = {
        (method, path): refusal(
            await api.client.request(method, f"/api{path}", json={}, headers={"X-Admin-Key": "wrong"})
        )
        for method, path in PATHS
    }
    assert set(answered.values()) == {(401, "Invalid admin API key")}, answered


def test_every_writing_route_is_for_admins():
    ours = ("/organizations", "/teams", "/credits", "/model", "/models")
    asking = ("POST", "/credits/teams/{team_id}/check")
    found = {(method, path): given_of(handler).access for method, path, handler in ROUTES if path.startswith(ours)}
    assert found.pop(asking) == "any"
    assert {access for (method, _), access in found.items() if method != "GET"} == {"admin:w"}
