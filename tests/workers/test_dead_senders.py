"""The leases of a sender that was killed end with the next start: its queues do not wait for them."""

import os
import subprocess
from dataclasses import replace

import pytest

from shared.messages import Deliver, Message
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows
from tests.workers.delivering import claim
from tests.workers.queues import busy, end
from workers import dead_senders


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    rows = Rows(runtime)
    await rows.create_team()
    return rows


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


async def test_a_unit_that_starts_frees_what_dead_ones_of_its_place_held(rows: Rows):
    name = f"here:{os.getpid()}"
    dead, namesake, alive, elsewhere = [await busy(rows, 1, max_concurrency=1) for _ in range(4)]
    gone = dead_process()
    for queue, worker in (
        (dead, f"here:{gone}"), (namesake, name), (alive, f"here:{os.getppid()}"), (elsewhere, f"there:{gone}"),
    ):  # fmt: skip
        await claim(rows.rt, queue, worker=worker)
    ended = (await claim(rows.rt, await busy(rows, 1), worker=f"here:{gone}")).deliveries
    await end(rows.rt, ended)
    rung: list[Message] = []
    await dead_senders.free(replace(rows.rt, ring=rung.append), name)

    (message,) = rung
    assert isinstance(message, Deliver)
    assert set(message.ids) & {dead, namesake, alive, elsewhere, ended[0].queue_id} == {dead, namesake}
    again = (await claim(rows.rt, dead, namesake, alive, elsewhere, worker=name)).deliveries
    assert {(d.queue_id, d.attempt) for d in again if d.attempt > 1} == {(dead, 2), (namesake, 2)}
    assert {d.queue_id for d in again} == {dead, namesake}


def test_containers_with_one_host_name_are_two_places(monkeypatch: pytest.MonkeyPatch):
    inner = dead_senders.NAMESPACE.stat().st_ino
    monkeypatch.setattr(dead_senders, "HOST_NAMESPACE", inner)
    assert dead_senders.place("h") == "h"
    monkeypatch.setattr(dead_senders, "HOST_NAMESPACE", inner - 1)
    assert dead_senders.place("h") == f"h/{inner}"
