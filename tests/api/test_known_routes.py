"""Routes just decided are not decided again, and not for long."""

import time

from api.known_routes import KEEP_S, MOST, KnownRoutes
from shared.models import Route
from shared.routing import Question
from tests.api.admin import made, unique
from tests.scene import Scene
from tests.waiting import until

QUESTION = Question("t", "m", None)
ROUTE = Route(asked="m", candidates=())


def test_a_route_is_known_for_less_than_a_second():
    known, now = KnownRoutes(), time.monotonic()
    known.keep(QUESTION, ROUTE, read_at=now)
    assert known.get(QUESTION) is ROUTE
    known.keep(QUESTION, ROUTE, read_at=now - KEEP_S)
    assert known.get(QUESTION) is None
    assert KEEP_S < 1


def test_another_team_name_or_key_is_another_question():
    known = KnownRoutes()
    known.keep(QUESTION, ROUTE, read_at=float("inf"))
    for other in (Question("u", "m", None), Question("t", None, None), Question("t", "m", ("m",))):
        assert known.get(other) is None


def test_it_never_grows_beyond_bounds():
    known = KnownRoutes()
    for n in range(MOST + 1):
        known.keep(Question("t", str(n), None), ROUTE, read_at=float("inf"))
    assert known.get(Question("t", "0", None)) is None
    assert known.get(Question("t", str(MOST), None)) is ROUTE


async def test_what_an_admin_opens_works_at_once_and_a_new_fallback_soon(scene: Scene):
    team = await scene.team()
    group, alias = unique("group"), unique("alias")
    job = await team.job()
    assert (await team.submit(job["job_id"], model=alias)).status_code == 403
    await scene.api.group(group_name=group)
    await scene.api.alias(alias=alias, api_key="sk-x", access_groups=[group], pricing_input=1, pricing_output=1)
    held = made(await scene.api.get(f"/teams/{team.id}"))["access_groups"]
    made(await scene.api.put(f"/teams/{team.id}/access-groups", [*held, group]))
    assert (await team.submit(job["job_id"], model=alias)).status_code == 202

    made(await scene.api.put(f"/models/{alias}", {"fallbacks": [team.models[0]]}))

    async def falls_back() -> bool:
        call_id = await team.call((await team.job())["job_id"], model=alias)
        row = await scene.row("select candidates from calls where id = :id", id=call_id)
        return row.candidates == [alias, team.models[0]]

    await until(falls_back, "the fallback is a candidate")
