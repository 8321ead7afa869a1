"""Whatever an admin writes is in the audit log: once, with who did it and from where, and without a secret."""

import re
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from api import app
from api.http import given_of
from tests.api.admin import ROUTES
from tests.api.people import Person, at_new_address, person
from tests.api.writing_requests import BODIES, SECRET, request_of, sent
from tests.scene import Scene
from tests.sending import sending

WRITERS = ("admin:w", "any:w", "owner", "session")
WRITING = [
    (method, path)
    for method, path, handler in (*ROUTES, *app.GATEWAY)
    if given_of(handler).access in WRITERS and method != "GET"
]
TEST = "/webhooks/{webhook_id}/test"
"""Waits for what a sender says."""
ACTION = re.compile(r"[a-z]+_[a-z_]+|logout")


_lasting: list[Person] = []


async def an_owner(scene: Scene, route: str) -> Person:
    """One for all routes, since making one takes long; but one of its own for what changes its session or password."""
    if re.search("/me|password|log(in|out)", route):
        return await person(scene, "owner")
    if not _lasting:
        _lasting.append(await person(scene, "owner"))
    return replace(_lasting[0], client=at_new_address(scene))


def test_every_writing_route_has_its_request():
    assert sorted(BODIES) == sorted(WRITING)


@pytest.mark.parametrize(("method", "route"), BODIES)
async def test_what_an_admin_writes_is_one_line_of_the_log(scene: Scene, method: str, route: str):
    scene.live = False
    path, body = await request_of(scene, method, route)
    owner = await an_owner(scene, route)
    before = {row.id for row in await scene.rows("select id from audit_log")}

    async with AsyncExitStack() as sender:
        if route == TEST:
            scene.live = True
            await sender.enter_async_context(sending(scene))
        answer = await sent(owner.client, method, path, body, Authorization=f"Bearer {owner.token}")

    assert answer.status_code in {200, 202}, answer.text
    after = await scene.rows("select * from audit_log")
    [line] = [row for row in after if row.id not in before]
    assert line.user_id == owner.id
    assert ACTION.fullmatch(line.action)
    assert re.fullmatch("[a-z_]+", line.resource_type)
    assert line.resource_id
    assert line.ip_address.startswith("10.")
    assert SECRET not in str(line)
