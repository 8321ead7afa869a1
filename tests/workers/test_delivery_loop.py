"""The delivery loop: bells in, deliveries out; nobody's queue delays another's."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from sqlalchemy import text, update

from shared import delivery_queues, ids, tables
from shared.db import Database, Tx
from shared.runtime import Runtime
from shared.settings import LOOPBACK
from tests.shared.webhook_rows import Rows
from tests.waiting import until
from tests.workers.receiver import Receiver, never, receiving, response
from workers.delivery_loop import MOST_UNKNOWN, DeliveryLoop
from workers.delivery_room import TEAM_LEAST, KnownQueue, Pace, Room
from workers.queue_turns import QueueTurns
from workers.webhook_http import WebhookSender
from workers.webhooks import Deliverer

MANY_DUE = """
insert into deliveries (id, event_id, event_type, team_id, endpoint_id, queue_id, body)
select uuid7(), uuid7(), 'job.completed', :team, :endpoint, :endpoint, '{}' from generate_series(1, 10000)
"""


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    rows = Rows(runtime)
    await rows.create_team()
    return rows


@dataclass
class Unit:
    """One worker unit's loop."""

    loop: DeliveryLoop
    sender: WebhookSender

    async def ring(self, *queues: UUID) -> None:
        await self.loop.take(queues)


Start = Callable[..., Unit]


@pytest.fixture
async def start(runtime: Runtime) -> AsyncIterator[Start]:
    """Units with `deliveries_in_flight` as given."""
    units: list[Unit] = []

    def started(in_flight: int = 1000) -> Unit:
        settings = runtime.settings.model_copy(update={"deliveries_in_flight": in_flight, "webhook_timeout_s": 30})
        rt = replace(runtime, settings=settings)
        sender = WebhookSender(LOOPBACK, http=True)
        units.append(Unit(DeliveryLoop(rt, Deliverer.of(rt, sender), f"unit-{len(units)}"), sender))
        return units[-1]

    yield started
    for unit in units:
        unit.loop.close_door()
        await unit.loop.drain(0, lambda _: None)
        await unit.sender.close()


async def unsent(rows: Rows, queues: Sequence[UUID]) -> int:
    async with rows.rt.db.statement() as tx:
        sql = text("select count(*) from deliveries where queue_id = any(:ids) and state in ('pending', 'failing')")
        return await tx.scalar(sql, {"ids": list(queues)}) or 0


async def arrive(receiver: Receiver, count: int) -> None:
    async with asyncio.timeout(10):
        for _ in range(count):
            await receiver.arrived.acquire()


async def test_one_bell_is_enough_for_all_that_is_due_in_a_queue(rows: Rows, start: Start):
    async with receiving() as receiver:
        queue = await rows.endpoint(receiver.url())
        await rows.record(*[rows.event() for _ in range(23)])
        await start().ring(queue)
        await arrive(receiver, 23)
        await until(lambda: nothing_left(rows, queue), "all is sent")

    assert len({request.headers["webhook-id"] for request in receiver.received}) == 23


async def test_many_new_queues_are_asked_for_in_pieces(rows: Rows, start: Start):
    async with receiving() as receiver:
        queues = [await rows.endpoint(receiver.url()) for _ in range(6)]
        await rows.record(rows.event())
        await start().ring(*queues, *(ids.new() for _ in range(2 * MOST_UNKNOWN)))
        await arrive(receiver, 6)
        await until(lambda: nothing_left(rows, *queues), "all is sent")


async def nothing_left(rows: Rows, *queues: UUID) -> bool:
    return await unsent(rows, queues) == 0


async def test_two_units_send_each_delivery_once_and_keep_to_the_endpoints_concurrency(rows: Rows, start: Start):
    under_way, most = 0, 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        writer.write(response(200))

    async with receiving(answer) as receiver:
        queue = await rows.endpoint(receiver.url())
        async with rows.rt.db.transaction() as tx:
            await tx.execute(
                update(tables.webhook_endpoints).where(tables.webhook_endpoints.c.id == queue).values(max_concurrency=3)
            )
        await rows.record(*[rows.event() for _ in range(30)])
        await asyncio.gather(start().ring(queue), start().ring(queue))
        await until(lambda: nothing_left(rows, queue), "all is sent")

    assert len(receiver.received) == 30
    assert 1 < most <= 3


class SlowToTell(Database):
    """Its second transaction, here a claim, tells how it ended only when `told` is set."""

    transactions = 0

    @asynccontextmanager
    async def hot_transaction(self) -> AsyncIterator[Tx]:
        self.transactions += 1
        is_second = self.transactions == 2
        async with super().hot_transaction() as tx:
            yield tx
        if is_second:
            self.reached.set()
            await self.told.wait()

    def __init__(self, url: str) -> None:
        super().__init__(url, pool=4)
        self.reached, self.told = asyncio.Event(), asyncio.Event()


async def test_a_place_that_becomes_free_while_its_queue_is_claimed_from_is_used(rows: Rows):
    released = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.write(response(200))

    db, sender = SlowToTell(rows.rt.settings.database_url), WebhookSender(LOOPBACK, http=True)
    loop = DeliveryLoop(replace(rows.rt, db=db), Deliverer.of(rows.rt, sender), "unit")
    async with receiving(answer) as receiver:
        queue = await rows.endpoint(receiver.url())
        async with rows.rt.db.statement() as tx:
            await tx.execute(text("update webhook_endpoints set max_concurrency = 1 where id = :id"), {"id": queue})
        await rows.record(rows.event())
        await loop.take([queue])
        await arrive(receiver, 1)
        await rows.record(rows.event())
        await loop.take([queue])
        await db.reached.wait()
        released.set()
        await until(lambda: sent(loop), "the first has ended")
        db.told.set()
        await arrive(receiver, 1)
        await until(lambda: nothing_left(rows, queue), "all is sent")
        await loop.drain(10, lambda _: None)
    await sender.close()
    await db.close()


async def sent(loop: DeliveryLoop) -> bool:
    return not loop.tasks


async def test_a_dead_receiver_with_ten_thousand_due_delays_nobody(rows: Rows, start: Start):
    async with receiving(never) as dead, receiving() as healthy:
        clogged = await rows.endpoint(dead.url())
        async with rows.rt.db.transaction() as tx:
            await tx.execute(text(MANY_DUE), {"team": rows.team_id, "endpoint": clogged})
        fine = await rows.endpoint(healthy.url(), events=("job.failed",))
        await rows.record(*[rows.event("job.failed") for _ in range(20)])
        unit = start()
        await unit.ring(clogged, fine)
        async with asyncio.timeout(3):
            await arrive(healthy, 20)

        assert len(unit.loop.tasks) <= 5 + 20
        async with rows.rt.db.statement() as tx:
            found = set(await delivery_queues.due(tx))
        assert clogged in found, "the rest of it waits for its turn"


async def test_slow_receivers_get_half_of_the_room_at_most(rows: Rows, start: Start):
    async with receiving(never) as slow, receiving() as quick:
        queues = [await rows.endpoint(slow.url(), events=("job.failed",)) for _ in range(4)]
        fine = await rows.endpoint(quick.url(), events=("job.completed",))
        unit = start(in_flight=8)
        await rows.record(rows.event("job.failed"))
        await unit.ring(*queues)
        await arrive(slow, 4)
        await until(lambda: is_slow(unit, queues), "the queues are seen to be slow")
        await rows.record(*[rows.event("job.failed") for _ in range(5)])
        await rows.record(*[rows.event("job.completed") for _ in range(20)])
        await unit.ring(*queues, fine)
        async with asyncio.timeout(3):
            await arrive(quick, 20)
        await until(lambda: nothing_left(rows, fine), "all quick ones are sent")
        await until(lambda: at_rest(unit), "nothing more is claimed")

        assert len(unit.loop.tasks) == 4


def test_a_team_has_a_quarter_of_the_room_and_what_is_not_known_to_be_quick_leaves_a_quarter_free():
    room = Room(400)
    hangs = KnownQueue(id=ids.new(), team_id="a")
    assert (room.free(Pace.NEW), room.free_of("a")) == (300, 100)
    room.take(hangs, 100)
    assert (room.free(Pace.NEW), room.free_of("a"), room.free_of("b")) == (200, 0, 100)
    room.take(KnownQueue(id=ids.new(), team_id="b"), 200)
    assert (room.free(Pace.NEW), room.free(Pace.SLOW), room.free(Pace.QUICK)) == (0, 0, 100)
    hangs.in_flight = 100
    room.mark(hangs, Pace.SLOW)
    assert (room.by_pace[Pace.NEW], room.by_pace[Pace.SLOW]) == (200, 100)
    assert Room(8).free_of("a") == TEAM_LEAST


async def test_one_teams_hanging_receivers_leave_room_for_another_teams(rows: Rows, start: Start, runtime: Runtime):
    other = Rows(runtime)
    await other.create_team()
    async with receiving(never) as hanging, receiving() as fine:
        queues = [await rows.endpoint(hanging.url()) for _ in range(TEAM_LEAST // 5 + 3)]
        await rows.record(*[rows.event() for _ in range(5)])
        unit = start(in_flight=TEAM_LEAST + 20)
        await unit.ring(*queues)
        await until(lambda: at_rest(unit), "all that may be is under way")
        assert len(unit.loop.tasks) == TEAM_LEAST
        queue = await other.endpoint(fine.url())
        await other.record(other.event())
        await unit.ring(queue)
        await arrive(fine, 1)


async def at_rest(unit: Unit) -> bool:
    return unit.loop._runner is None or unit.loop._runner.done()


async def is_slow(unit: Unit, queues: Sequence[UUID]) -> bool:
    unit.loop._find_slow()
    return all(unit.loop._queues[queue].pace == Pace.SLOW for queue in queues)


async def test_what_is_rung_while_the_unit_is_full_is_sent_when_there_is_room(rows: Rows, start: Start):
    go = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(response(200))

    async with receiving(answer) as receiver:
        queues = [await rows.endpoint(receiver.url()) for _ in range(2)]
        await rows.record(rows.event(), rows.event())
        unit = start(in_flight=2)
        await unit.ring(*queues)
        await arrive(receiver, 2)
        assert not unit.loop.has_room()
        go.set()
        await until(lambda: nothing_left(rows, *queues), "all is sent")
        assert unit.loop.has_room()


async def set_rate(rows: Rows, queue: UUID, per_s: float) -> None:
    async with rows.rt.db.transaction() as tx:
        table = tables.webhook_endpoints
        await tx.execute(update(table).where(table.c.id == queue).values(max_rate_per_s=per_s))


async def test_a_queue_that_its_rate_holds_back_goes_on_by_itself(rows: Rows, start: Start):
    async with receiving() as receiver:
        queue = await rows.endpoint(receiver.url())
        await set_rate(rows, queue, 20)
        await rows.record(*[rows.event() for _ in range(23)])
        await start().ring(queue)
        await arrive(receiver, 23)

    assert len(receiver.received) == 23


async def test_a_queue_that_its_rate_holds_back_has_one_alarm_however_often_it_is_rung(rows: Rows, start: Start):
    async with receiving() as receiver:
        queue = await rows.endpoint(receiver.url())
        await set_rate(rows, queue, 0.1)
        await rows.record(rows.event(), rows.event())
        unit = start()

        async def set_anew(before: object = None) -> asyncio.TimerHandle | None:
            alarm = unit.loop._queues[queue].alarm if queue in unit.loop._queues else None
            return alarm if alarm is not before else None

        await unit.ring(queue)
        first = await until(set_anew, "the queue is to be looked at again")
        await unit.ring(queue)
        await until(lambda: set_anew(first), "its bell has been heard")

    assert first is not None
    assert first.cancelled()
    assert len(receiver.received) == 1


async def test_a_closed_door_takes_no_bells_and_claims_nothing(rows: Rows, start: Start):
    async with receiving() as receiver:
        queue = await rows.endpoint(receiver.url())
        await rows.record(rows.event())
        unit = start()
        unit.loop.close_door()
        await unit.ring(queue)

        assert not unit.loop.reserve(1)
        assert not unit.loop.has_room()
        assert await unit.loop.drain(1, lambda _: None) == 0
        assert await unsent(rows, [queue]) == 1


async def test_draining_waits_for_what_is_under_way(rows: Rows, start: Start):
    go = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(response(200))

    async with receiving(answer) as receiver:
        queue = await rows.endpoint(receiver.url())
        await rows.record(rows.event())
        unit = start()
        await unit.ring(queue)
        await arrive(receiver, 1)
        unit.loop.close_door()
        draining = asyncio.create_task(unit.loop.drain(5, lambda _: None))
        await asyncio.sleep(0)
        go.set()

        assert await draining == 0
        assert await unsent(rows, [queue]) == 0


def test_teams_take_turns_and_within_a_team_its_queues():
    many, one = [ids.new() for _ in range(3)], ids.new()
    turns = QueueTurns()
    for queue in many:
        turns.add("crowded", queue)
    turns.add("small", one)
    turns.add("crowded", many[0])

    assert [turns.next() for _ in range(5)] == [many[0], one, many[1], many[2], None]
    assert not turns
