"""A batch is accepted whole, with its money held, or refused whole with all that is wrong."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from shared import batches, files
from shared.batches import MOST_INPUT_BYTES
from shared.charging import MOST_NANOUSD
from shared.db import Database, Tx
from shared.ending import End, end_job
from shared.files import CHUNK_BYTES
from shared.line_checks import MOST_LINES
from shared.messages import Ended
from shared.states import Endpoint, JobStatus
from tests.money import budget, in_order, paying, pays
from tests.scene import Scene, Team
from tests.waiting import until
from tests.workers.checked_batches import (
    WORKER,
    asked,
    checked,
    input_file,
    job_of,
    leased,
    line,
    lines_of,
    named,
    read,
)
from workers import batch_checks
from workers.batch_checks import MANY_LINES
from workers.batch_reading import GROUP_BYTES

WAITS_FOR_A_ROW = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def refused(scene: Scene, id_: UUID) -> list[tuple[str, str | None, int | None]]:
    """Code, param and line of what a refused batch is told; nothing else of it is left."""
    found, job = await checked(scene, id_), await job_of(scene, id_)
    assert (found.status, job.status) == ("failed", "failed")
    assert found.failed_at is not None
    assert (job.calls_total, job.credits_held, job.failure_reason) == (0, 0, None)
    assert await lines_of(scene, id_) == []
    assert await scene.events(str(id_)) == ["job.failed", "batch.failed"]
    assert Ended(ids=(id_,)) in scene.rung
    assert found.errors is not None
    return [(error["code"], error["param"], error["line"]) for error in found.errors]


async def test_a_batch_in_order_runs_and_holds_a_credit_for_each_line(scene: Scene, team: Team):
    lines = [
        line(team, "a", body={"temperature": 1, "tags": ["night"], "num_retries": 2, "timeout": 1}),
        b"",
        line(team, 'b\\"\n', body={"fallbacks": [team.models[0]], "max_tokens": 7}),
    ]
    id_ = await asked(scene, team, lines)

    found = await checked(scene, id_)

    job, (first, second) = await job_of(scene, id_), await lines_of(scene, id_)
    assert (found.status, found.lines, found.models, found.credits_needed) == ("in_progress", 2, [team.models[0]], 2)
    assert (found.estimated_tokens, found.estimated_nanousd) == (job.estimate_tokens, job.estimate_nanousd)
    assert job.estimate_tokens == 2 * 11 + 107
    assert (job.status, job.calls_total, job.credits_held, job.budget_mode) == ("in_progress", 2, 2, "job_based")
    assert (found.in_progress_at is not None, job.started_at is not None) == (True, True)
    assert (first.custom_id, first.position, second.custom_id, second.position) == ("a", 0, 'b\\"\n', 2)
    assert first.request == {"messages": [{"role": "user", "content": "Hello"}], "temperature": 1, "max_tokens": 100}
    assert (first.metadata, first.retries, second.metadata, second.retries) == ({"tags": ["night"]}, 2, None, None)
    assert {(c.state, c.batched, c.priority, c.rung_at, c.deadline_at, c.erase_at) for c in (first, second)} == {
        ("pending", True, 3, None, job.deadline_at, None)
    }
    assert await team.credits() == (1000, 2, 998)
    assert await scene.events(str(id_)) == ["job.started"]
    assert Ended(ids=(id_,)) in scene.rung
    await in_order(scene, team)


async def test_every_line_that_is_wrong_is_told_and_nothing_of_the_others_is_kept(scene: Scene, team: Team):
    lines = [
        line(team, "a"),
        b"{",
        *named(team, "b", "a"),
        line(team, "c", body={"model": "gpt-9"}),
        line(team, "d", body={"fallbacks": ["gpt-9"]}),
        line(team, "e"),
    ]
    id_ = await asked(scene, team, lines)

    assert await refused(scene, id_) == [
        ("invalid_json_line", None, 2),
        ("duplicate_custom_id", "custom_id", 4),
        ("model_not_found", "body.model", 5),
        ("model_not_found", "body.fallbacks", 6),
    ]
    assert (await job_of(scene, id_)).error_message == (
        "The batch was refused: line 2: The line is not valid JSON (character 1): "
        "each line must be one whole JSON object (3 more)"
    )
    assert await team.credits() == (1000, 0, 1000)
    await in_order(scene, team)


async def test_a_late_fault_takes_back_what_is_written_already_and_the_rest_is_read(scene: Scene, team: Team):
    large = {"messages": [{"role": "user", "content": "x" * (GROUP_BYTES // 2)}]}
    in_groups = named(team, "a", "b", "c", "d", body=large)
    good = await asked(scene, team, in_groups)
    bad = await asked(scene, team, [*in_groups[:3], b"{", in_groups[3], line(team, "e", method="GET")])

    assert await refused(scene, bad) == [("invalid_json_line", None, 4), ("invalid_method", "method", 6)]
    assert (await checked(scene, good)).lines == len(await lines_of(scene, good)) == 4
    await in_order(scene, team)


async def test_the_planner_is_told_of_many_lines_at_once(scene: Scene):
    team = await scene.team(credits=2 * MANY_LINES)
    analysed = "select max(xmin::text) as by from pg_statistic where starelid = 'calls'::regclass"
    before = await scene.row(analysed)
    few = await asked(scene, team, named(team, "a"))
    assert (await checked(scene, few)).status == "in_progress"
    assert await scene.row(analysed) == before
    many = await asked(scene, team, named(team, *map(str, range(MANY_LINES))))
    assert (await checked(scene, many)).status == "in_progress"
    assert await scene.row(analysed) != before
    await end_job(scene.rt, many, End(status=JobStatus.CANCELLED), bool)


async def test_no_more_than_a_thousand_faults_are_told(scene: Scene, team: Team):
    id_ = await asked(scene, team, [b"{"] * 1001)
    assert [place for _, _, place in await refused(scene, id_)] == list(range(1, 1001))


@pytest.mark.parametrize("lines", [[], [b"", b"  \r"]])
async def test_an_empty_file_is_refused(scene: Scene, team: Team, lines: list[bytes]):
    id_ = await asked(scene, team, lines)
    assert await refused(scene, id_) == [("empty_file", "input_file_id", None)]


async def test_what_changed_of_its_key_while_it_was_checked_counts(scene: Scene):
    team = await paying(scene)
    id_, blocked = [await asked(scene, team, named(team, "a", "b")) for _ in range(2)]
    async with scene.rt.db.hot_transaction() as tx:
        await tx.execute("select from jobs where id = %s for update", (id_,))
        checking = asyncio.create_task(checked(scene, id_))
        await until(lambda: scene.rows(WAITS_FOR_A_ROW), "a check that has read its key")
        await budget(scene, team, max_nanousd=10**12)
    accepted = await checking
    made = await scene.row("select id, held_nanousd from budgets where team_id = :id", id=team.id)
    assert [line.budget_ids for line in await lines_of(scene, id_)] == [[made.id]] * 2
    assert made.held_nanousd == accepted.estimated_nanousd > 0

    async with scene.rt.db.hot_transaction() as tx:
        await tx.execute("select from jobs where id = %s for update", (blocked,))
        checking = asyncio.create_task(checked(scene, blocked))
        await until(lambda: scene.rows(WAITS_FOR_A_ROW), "a check that has read its key")
        await scene.rows("update virtual_keys set blocked = true where team_id = :id returning 1", id=team.id)
    assert [error["code"] for error in (await checking).errors or []] == ["key_blocked"]
    assert await lines_of(scene, blocked) == []
    await in_order(scene, team)


async def test_a_file_that_expired_since_its_batch_was_made_is_read(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    file_id = (await read(scene, id_)).input_file_id
    await scene.rows("update files set expires_at = app_now() where id = :id returning 1", id=file_id)
    assert (await checked(scene, id_)).status == "in_progress"


async def test_a_file_that_is_gone_is_refused(scene: Scene, team: Team):
    gone = await asked(scene, team, named(team, "a"))
    file_id = (await read(scene, gone)).input_file_id
    hidden = "update files set status = 'uploading', expires_at = app_now() where id = :id returning 1"
    await scene.rows(hidden, id=file_id)
    assert await refused(scene, gone) == [("invalid_request", "input_file_id", None)]

    large = await asked(scene, team, named(team, "a"))
    await scene.rows(
        "update files f set bytes = :n from batches b where b.id = :id and f.id = b.input_file_id returning 1",
        id=large,
        n=MOST_INPUT_BYTES + 1,
    )
    assert await refused(scene, large) == [("invalid_request", "input_file_id", None)]
    assert [e["message"] for e in (await read(scene, large)).errors or []] == ["The input file is over 200 MB"]


async def test_a_model_without_a_price_or_a_credential_is_a_fault_of_the_line(scene: Scene):
    unheard = {"litellm_model": "openai/of-no-price", "pricing_input": None, "pricing_output": None}
    team = await scene.team(alias=unheard)
    assert await refused(scene, await asked(scene, team, named(team, "a"))) == [("model_unpriced", "body.model", 1)]
    team = await scene.team(alias={"api_key": None})
    assert await refused(scene, await asked(scene, team, named(team, "a"))) == [("model_unavailable", "body.model", 1)]


KEYS = [
    ("update virtual_keys set blocked = true where team_id = :team returning 1", "key_blocked"),
    ("update virtual_keys set expires_at = app_now() where team_id = :team returning 1", "expired_key"),
    ("update virtual_keys set revoked_at = app_now() where team_id = :team returning 1", "unauthorized"),
    ("update teams set status = 'suspended' where id = :team returning 1", "forbidden"),
]


@pytest.mark.parametrize(("change", "code"), KEYS)
async def test_a_key_that_may_no_longer_be_used_has_its_batch_refused(scene: Scene, team: Team, change: str, code: str):
    id_ = await asked(scene, team, named(team, "a"))
    await scene.rows(change, team=team.id)
    assert await refused(scene, id_) == [(code, None, None)]


async def test_a_pause_does_not_stop_what_was_asked_before(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    await scene.rows("update teams set status = 'paused' where id = :team returning 1", team=team.id)
    assert (await checked(scene, id_)).status == "in_progress"


async def test_without_credits_for_all_lines_there_are_none(scene: Scene):
    team = await scene.team(credits=2)
    id_ = await asked(scene, team, named(team, "a", "b", "c"))

    assert await refused(scene, id_) == [("insufficient_credits", None, None)]
    found = await read(scene, id_)
    assert (found.lines, found.credits_needed) == (3, 3)
    assert (await checked(scene, await asked(scene, team, named(team, "a", "b")))).status == "in_progress"
    assert await team.credits() == (2, 2, 0)
    await in_order(scene, team)


async def test_two_batches_that_are_checked_at_once_never_hold_more_than_there_is(scene: Scene):
    team = await scene.team(credits=5)
    made = [await asked(scene, team, named(team, "a", "b", "c")) for _ in range(2)]

    found = await asyncio.gather(*(checked(scene, id_) for id_ in made))

    assert sorted(batch.status for batch in found) == ["failed", "in_progress"]
    assert await team.credits() == (5, 3, 2)
    await in_order(scene, team)


@pytest.mark.parametrize("of_key", [True, False])
async def test_a_budget_holds_the_sum_of_its_lines_or_refuses_it(scene: Scene, of_key: bool):
    team = await paying(scene)
    await budget(scene, team, max_nanousd=3 * 13_600_000, of_key=of_key)
    first = await asked(scene, team, named(team, "a", "b"))
    assert (await checked(scene, first)).estimated_nanousd == 2 * 13_600_000
    held = await scene.row(
        "select b.* from budgets b join calls c on b.id = any(c.budget_ids) where c.job_id = :id limit 1", id=first
    )
    assert (held.held_nanousd, held.spent_nanousd) == (2 * 13_600_000, 0)

    assert await refused(scene, await asked(scene, team, named(team, "c", "d"))) == [("budget_in_flight", None, None)]
    assert (await checked(scene, await asked(scene, team, named(team, "c")))).status == "in_progress"
    await in_order(scene, team)


async def test_consumption_teams_hold_what_the_lines_may_cost_rounded_once(scene: Scene):
    team = await pays(scene, await paying(scene), budget_mode="consumption_usd")
    found = await checked(scene, await asked(scene, team, named(team, *"abcde", body={"max_tokens": 1000})))
    assert (found.credits_needed, await team.credits()) == (7, (1000, 7, 993))
    await in_order(scene, team)


async def test_the_estimates_of_a_whole_batch_can_be_summed(scene: Scene):
    team = await scene.team(alias={"pricing_output": 1000})
    found = await checked(scene, await asked(scene, team, named(team, "a", "b", body={"max_tokens": 2**40})))
    assert (found.estimated_nanousd, found.status) == (2 * MOST_NANOUSD, "in_progress")
    assert MOST_LINES * MOST_NANOUSD < 2**63
    await in_order(scene, team)


async def test_a_batch_that_is_cancelled_while_it_is_checked_leaves_no_line(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    batch = await leased(scene, id_)
    async with scene.rt.db.hot_transaction() as tx:
        assert await batches.ask_to_cancel(tx, id_)
    await batch_checks.check(scene.rt, batch, WORKER)
    await batch_checks.give_up(scene.rt, batch, WORKER)
    assert ((await read(scene, id_)).status, await lines_of(scene, id_)) == ("cancelling", [])

    await end_job(scene.rt, id_, End(status=JobStatus.CANCELLED), lambda job: job is not None and not job.is_final)
    await batch_checks.check(scene.rt, batch, WORKER)
    await batch_checks.give_up(scene.rt, batch, WORKER)
    assert ((await read(scene, id_)).status, (await read(scene, id_)).errors) == ("cancelling", None)
    assert await scene.events(str(id_)) == ["job.cancelled"]
    assert await team.credits() == (1000, 0, 1000)
    await in_order(scene, team)


class Counted(Database):
    """How many statements of their own it was asked for: each reads a piece of a file, or little else."""

    statements = 0

    def hot_statement(self) -> AbstractAsyncContextManager[Tx]:
        self.statements += 1
        return super().hot_statement()


@pytest.mark.parametrize("first", [b"", b"{"])
async def test_a_cancelled_batch_is_not_read_to_its_end(scene: Scene, team: Team, first: bytes):
    large = {"messages": [{"role": "user", "content": "x" * (GROUP_BYTES // 2)}]}
    id_ = await asked(scene, team, [first, *named(team, *"abcdefgh", body=large)])
    batch = await leased(scene, id_)
    async with scene.rt.db.hot_transaction() as tx:
        assert await batches.ask_to_cancel(tx, id_)
    counted = Counted(scene.rt.settings.database_url, pool=3)
    await batch_checks.check(replace(scene.rt, db=counted), batch, WORKER)
    await counted.close()
    assert counted.statements < 4 * GROUP_BYTES // CHUNK_BYTES, "two of four groups at most"


async def test_who_lost_the_lease_writes_nothing(scene: Scene, team: Team):
    good, bad = await asked(scene, team, named(team, "a")), await asked(scene, team, [b"{"])
    lost = [await leased(scene, id_) for id_ in (good, bad)]
    async with scene.later(31) as later:
        for id_ in (good, bad):
            async with later.db.hot_statement() as tx:
                assert await batches.lease(tx, id_, worker="other", lease_s=30) is not None

    for batch in lost:
        await batch_checks.check(scene.rt, batch, WORKER)

    assert [(await read(scene, id_)).status for id_ in (good, bad)] == ["validating", "validating"]
    assert [await lines_of(scene, id_) for id_ in (good, bad)] == [[], []]
    assert [(await job_of(scene, id_)).status for id_ in (good, bad)] == ["pending", "pending"]
    assert await scene.events(str(good)) == await scene.events(str(bad)) == []


async def test_a_batch_cannot_be_refused_for_its_file_once_it_runs(scene: Scene, team: Team):
    """Who comes late finds it decided, and a repeat changes nothing."""
    id_ = await asked(scene, team, named(team, "a"))
    batch = await leased(scene, id_)
    await batch_checks.check(scene.rt, batch, WORKER)
    await batch_checks.check(scene.rt, batch, WORKER)
    await batch_checks.give_up(scene.rt, batch, WORKER)

    assert (await read(scene, id_)).status == "in_progress"
    assert len(await lines_of(scene, id_)) == 1
    assert await team.credits() == (1000, 1, 999)


async def test_a_retry_runs_the_lines_that_failed_at_their_old_places(scene: Scene, team: Team):
    file_id = await input_file(scene, team, named(team, *"abcd"))
    parent = await asked(scene, team, file_id=file_id)
    await checked(scene, parent)
    await scene.rows(
        "update calls set state = case when custom_id in ('b', 'd') then 'failed' else 'completed' end, "
        "completed_at = app_now(), error_code = case custom_id when 'b' then 'provider_error' "
        "when 'd' then 'deadline_exceeded' end where job_id = :id returning 1",
        id=parent,
    )
    both = await asked(scene, team, file_id=file_id, retry_of=parent, retry_statuses=["failed", "expired"])
    late = await asked(scene, team, file_id=file_id, retry_of=parent, retry_statuses=["expired"])
    none = await asked(scene, team, file_id=file_id, retry_of=parent, retry_statuses=["cancelled"])

    assert (await checked(scene, both)).lines == 2
    assert [(c.custom_id, c.position) for c in await lines_of(scene, both)] == [("b", 1), ("d", 3)]
    assert (await checked(scene, late)).lines == 1
    assert await refused(scene, none) == [("empty_file", "input_file_id", None)]


async def test_an_embedding_line_keeps_how_its_answer_is_to_be_written(scene: Scene, team: Team):
    given = {"url": "/v1/embeddings", "body": {"model": team.models[0], "input": "Hello", "encoding_format": "base64"}}
    id_ = await asked(scene, team, [{**line(team, "a"), **given}], endpoint=Endpoint.EMBEDDING)
    await checked(scene, id_)
    [found] = await lines_of(scene, id_)
    assert (found.endpoint, found.request) == ("embedding", {"input": "Hello", "encoding_format": "base64"})


async def test_texts_of_a_team_that_stores_none_are_marked_for_erasure(scene: Scene, team: Team):
    await scene.rows("update teams set store_payloads = false where id = :id returning 1", id=team.id)
    id_ = await asked(scene, team, named(team, "a"))
    await checked(scene, id_)
    marked = await scene.rows(
        "select erase_at is not null as ok from call_payloads p join calls c on c.id = p.call_id where job_id = :id",
        id=id_,
    )
    assert [row.ok for row in marked] == [True]


async def dry(scene: Scene, team: Team, lines: list[Any]) -> tuple[list[str] | None, int, int]:
    """Codes of errors, lines and credits of a dry run, of which nothing else is written."""
    id_ = await asked(scene, team, lines, dry_run=True)
    found = await checked(scene, id_)
    assert (found.status, found.failed_at is not None) == ("failed", True)
    assert await scene.rows("select from jobs where id = :id", id=id_) == []
    assert await lines_of(scene, id_) == []
    assert await scene.events(str(id_)) == []
    assert Ended(ids=(id_,)) in scene.rung
    return None if found.errors is None else [e["code"] for e in found.errors], found.lines, found.credits_needed


async def test_a_dry_run_tells_and_writes_nothing(scene: Scene):
    team = await scene.team(credits=2)
    assert await dry(scene, team, named(team, "a", "b")) == (None, 2, 2)
    assert await dry(scene, team, named(team, *"abc")) == (["insufficient_credits"], 3, 3)
    assert await dry(scene, team, [*named(team, "a", "b"), b"{"]) == (["invalid_json_line"], 2, 2)
    assert await dry(scene, team, []) == (["empty_file"], 0, 0)
    assert await team.credits() == (2, 0, 2)
    await in_order(scene, team)


async def test_an_input_that_vanishes_while_it_is_read_is_refused(scene: Scene, team: Team):
    id_ = await asked(scene, team, named(team, "a"))
    batch = await leased(scene, id_)
    await scene.rows("delete from file_chunks where file_id = :id returning 1", id=batch.input_file_id)
    async with scene.rt.db.hot_statement() as tx:
        assert await files.read(tx, batch.input_file_id, team.id) is not None
    await batch_checks.check(scene.rt, batch, WORKER)
    assert [e["code"] for e in (await read(scene, id_)).errors or []] == ["invalid_request"]
