"""Pages of the event log: a cursor that misses nothing, filters that still move on, a bounded look."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from shared import event_log, outbox
from shared.event_log import START, Entry, Filter, Lost, Place, Slice
from shared.events import Event
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows

ALL = Filter()


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    made = Rows(runtime)
    await made.create_team()
    return made


async def page(
    rows: Rows, after: Place = START, wanted: Filter = ALL, limit: int = 100, looked_at: int | None = None
) -> Slice:
    async with rows.rt.db.hot_statement() as tx:
        return await event_log.page(tx, rows.team_id, after, wanted, limit, delivery_days=30, looked_at=looked_at)


async def everything(rows: Rows, wanted: Filter, limit: int, looked_at: int | None = None) -> list[Entry]:
    """All pages, one after the other."""
    found, after = [], START
    while True:
        got = await page(rows, after, wanted, limit, looked_at)
        found += got.entries
        if not got.has_more:
            return found
        assert got.end.seq > after.seq
        after = got.end


async def numbered(rows: Rows, job_id: UUID, *types: str) -> list[UUID]:
    """These events of a job, numbered from 1."""
    made = [replace(rows.event(type_, job_id=job_id), sequence=n) for n, type_ in enumerate(types, 1)]
    await rows.record(*made)
    return [event.id for event in made]


def ids_of(entries: "list[Entry] | Slice") -> list[UUID]:
    return [entry.id for entry in (entries.entries if isinstance(entries, Slice) else entries)]


async def test_pages_follow_each_other_without_a_gap_or_a_repeat(rows: Rows):
    made = [rows.event() for _ in range(7)]
    await rows.record(*made)
    assert ids_of(await everything(rows, ALL, 3)) == [event.id for event in made]
    first = await page(rows, limit=7)
    assert (first.has_more, first.end.id) == (False, made[-1].id)


async def test_an_empty_log_has_no_place(rows: Rows):
    assert await page(rows) == Slice(entries=[], end=START, has_more=False)


async def test_another_teams_events_are_no_part_of_it(rows: Rows, runtime: Runtime):
    other = Rows(runtime)
    await other.create_team()
    await other.record(other.event())
    assert (await page(rows)).entries == []


async def test_a_filter_moves_past_what_it_leaves_out(rows: Rows):
    wanted, other = rows.event("job.failed"), rows.event("job.created")
    await rows.record(wanted, other)
    found = await page(rows, wanted=Filter(types=["job.failed"]))
    assert (ids_of(found), found.end.id) == ([wanted.id], other.id)
    none = await page(rows, wanted=Filter(types=["job.cancelled"]))
    assert (ids_of(none), none.end.id, none.has_more) == ([], other.id, False)


async def test_a_page_looks_at_no_more_than_its_share(rows: Rows):
    made = [rows.event("job.failed" if n == 5 else "job.created") for n in range(6)]
    await rows.record(*made)
    wanted = Filter(types=["job.failed"])
    first = await page(rows, wanted=wanted, looked_at=2)
    assert (ids_of(first), first.end.id, first.has_more) == ([], made[1].id, True)
    assert ids_of(await everything(rows, wanted, 10, looked_at=2)) == [made[5].id]


async def test_a_jobs_events_page_by_page_end_at_the_end_of_the_log(rows: Rows):
    job_id = await rows.job()
    own = await numbered(rows, job_id, *["call.completed"] * 5)
    last = rows.event("credits.low")
    await rows.record(last)
    wanted = Filter(job_id=job_id)
    assert ids_of(await everything(rows, wanted, 2)) == own
    assert (await page(rows, wanted=wanted)).end.id == last.id
    failed = await page(rows, wanted=Filter(job_id=job_id, types=["job.failed"]))
    assert (ids_of(failed), failed.end.id) == ([], last.id)


async def test_a_cursor_of_the_teams_log_serves_a_job_too(rows: Rows):
    job_id = await rows.job()
    first = (await numbered(rows, job_id, "job.created"))[0]
    between = rows.event("credits.low")
    await rows.record(between)
    second = replace(rows.event("job.completed", job_id=job_id), sequence=2)
    await rows.record(second)
    async with rows.rt.db.hot_statement() as tx:
        places = [await event_log.find(tx, rows.team_id, id_, days=30) for id_ in (first, between.id, second.id)]
    wanted, found = Filter(job_id=job_id), []
    for place in places:
        assert isinstance(place, Place)
        found.append(ids_of(await page(rows, place, wanted)))
    assert found == [[second.id], [second.id], []]


async def test_times_bound_a_page_and_whoever_asks_from_a_time_begins_there(rows: Rows):
    now = rows.event().at
    made = [replace(rows.event(), at=now + timedelta(hours=n)) for n in range(40)]
    await rows.record(*made)
    wanted = Filter(since=made[20].at, until=made[29].at)
    assert ids_of(await everything(rows, wanted, 4)) == [event.id for event in made[20:30]]
    assert ids_of(await page(rows, wanted=Filter(until=now - timedelta(days=1)))) == []
    assert (await page(rows, wanted=Filter(since=now + timedelta(days=9)))).end.id == made[-1].id


async def test_a_look_that_begins_at_a_time_does_not_read_what_was_before(rows: Rows):
    now = rows.event().at
    made = [replace(rows.event(), at=now + timedelta(hours=n)) for n in range(40)]
    await rows.record(*made)
    found = await page(rows, wanted=Filter(since=made[35].at), looked_at=3)
    assert ids_of(found) == [event.id for event in made[35:38]]


async def deliver(rows: Rows, delivery_id: UUID) -> None:
    await rows.change(delivery_id, state="delivered")


def missed(endpoint_id: UUID | None = None, **fields: object) -> Filter:
    return Filter(undelivered=True, endpoint_id=endpoint_id, **fields)  # type: ignore[arg-type]


async def test_what_an_endpoint_has_not_acknowledged(rows: Rows):
    endpoint = await rows.endpoint(events=("job.*", "webhook.endpoint.failing"))
    made = [rows.event(type_) for type_ in ("job.completed", "job.failed", "credits.low", "webhook.endpoint.failing")]
    deliveries = await rows.record(*made)
    assert len(deliveries) == 3
    assert ids_of(await page(rows, wanted=missed(endpoint))) == [made[n].id for n in (0, 1, 3)]
    for id_ in deliveries:
        delivery = await rows.delivery(id_)
        if delivery.event_type != "job.failed":
            await deliver(rows, id_)
    assert ids_of(await page(rows, wanted=missed(endpoint))) == [made[1].id]


async def test_opt_in_types_are_not_missed_by_who_said_all(rows: Rows):
    endpoint = await rows.endpoint(events=("*",))
    await rows.record(rows.event("job.progress"))
    assert (await page(rows, wanted=missed(endpoint))).entries == []


async def test_what_happened_before_an_endpoint_was_made_is_missed_only_when_asked_for(rows: Rows):
    early = replace(rows.event(), at=rows.event().at - timedelta(days=2))
    await rows.record(early)
    endpoint = await rows.endpoint()
    assert (await page(rows, wanted=missed(endpoint))).entries == []
    assert (await page(rows, wanted=missed())).entries == []
    since = early.at - timedelta(seconds=1)
    assert ids_of(await page(rows, wanted=missed(endpoint, since=since))) == [early.id]


async def test_without_an_endpoint_it_is_what_any_of_them_lacks(rows: Rows):
    quick, slow = await rows.endpoint(), await rows.endpoint(events=("job.failed",))
    made = [rows.event("job.completed"), rows.event("job.failed")]
    for id_ in await rows.record(*made):
        if (await rows.delivery(id_)).endpoint_id == quick:
            await deliver(rows, id_)
    assert ids_of(await page(rows, wanted=missed())) == [made[1].id]
    assert ids_of(await page(rows, wanted=missed(quick))) == []
    assert ids_of(await page(rows, wanted=missed(slow))) == [made[1].id]


async def test_an_endpoint_that_its_owner_switched_off_lacks_nothing(rows: Rows):
    await rows.endpoint(active=False)
    await rows.record(rows.event())
    assert (await page(rows, wanted=missed())).entries == []


async def test_what_was_missed_is_known_as_long_as_deliveries_are_kept(rows: Rows):
    endpoint = await rows.endpoint()
    old = replace(rows.event(), at=rows.event().at - timedelta(days=31))
    await rows.record(old)
    assert (await page(rows, wanted=missed(endpoint, since=old.at))).entries == []


async def test_a_cursor_is_found_lost_or_expired(rows: Rows, runtime: Runtime):
    event = rows.event()
    await rows.record(event)
    other = Rows(runtime)
    await other.create_team()
    old = UUID(int=(event.id.int & ((1 << 80) - 1)) | (1_600_000_000_000 << 80))
    async with rows.rt.db.hot_statement() as tx:
        found = await event_log.find(tx, rows.team_id, event.id, days=30)
        assert isinstance(found, Place)
        assert found.id == event.id
        assert await event_log.find(tx, other.team_id, event.id, days=30) == Lost(expired=False)
        assert await event_log.find(tx, rows.team_id, old, days=30) == Lost(expired=True)
        assert await event_log.find(tx, rows.team_id, UUID(int=1), days=30) == Lost(expired=False)


async def test_news_are_what_each_teams_log_has_behind_a_number(rows: Rows, runtime: Runtime):
    other = Rows(runtime)
    await other.create_team()
    first, second, theirs = rows.event(), rows.event(), other.event()
    await rows.record(first, second)
    await other.record(theirs)
    start = await page(rows, limit=1)
    async with rows.rt.db.hot_statement() as tx:
        found = await event_log.news(tx, {rows.team_id: start.end.seq, other.team_id: 0})
    assert sorted(ids_of(found)) == sorted([second.id, theirs.id])


async def test_a_reader_misses_nothing_while_transactions_overlap(rows: Rows):
    async with rows.rt.db.hot_transaction() as slow:
        late: Event = rows.event("job.created")
        await outbox.record(slow, [late])
        assert (await page(rows)).entries == []
    after = (await page(rows)).end
    assert after.id == late.id


async def test_a_place_is_found_for_every_moment(rows: Rows):
    now = rows.event().at
    made = [replace(rows.event(), at=now + timedelta(hours=n)) for n in range(9)]
    await rows.record(*made)
    async with rows.rt.db.hot_statement() as tx:
        log = await page(rows)
        numbers = [log.entries[0].seq - 1, *(entry.seq for entry in log.entries)]
        moments = [now + timedelta(hours=n) - timedelta(minutes=1) for n in range(10)]
        assert [await event_log.place(tx, rows.team_id, at) for at in moments] == numbers
