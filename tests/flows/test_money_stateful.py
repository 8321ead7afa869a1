"""Any order of what clients, workers, sweeps and admins do leaves the books in order after every single step."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared import waiting_calls
from shared.calls import Claimed
from shared.db import Database
from shared.prices import PriceMap
from shared.runtime import Runtime, redis_client
from shared.sealer import Sealer
from shared.settings import Settings
from tests import scene as scenes
from tests.money import budget, claim, close, in_order, paying, pays, used
from tests.scene import Scene, Team, refused
from workers import reports

T = TypeVar("T")

EXAMPLES, STEPS = 12, 40
MODES = ("job_based", "consumption_usd", "consumption_tokens")
TEAMS = (
    {"budget_mode": "job_based", "credits": 4},
    {"budget_mode": "consumption_usd", "credits": 12},
    {"budget_mode": "consumption_tokens", "credits": 3, "tokens_per_credit": 1000, "limit_mode": "soft"},
)


class Stage:
    """The scene of all examples, in an event loop of its own."""

    def __init__(self, settings: Settings, prices: PriceMap) -> None:
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self.scene: Scene = self.run(self._opened(settings, prices))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def _opened(self, settings: Settings, prices: PriceMap) -> Scene:
        db = Database(settings.database_url, pool=settings.database_pool, name="waybill-test")
        client = redis_client(settings.redis_url)
        sealer = Sealer(settings.encryption_key.get_secret_value())
        rt = Runtime(settings=settings, db=db, redis=client, ring=lambda _: None, sealer=sealer, prices=prices)
        self._open.push_async_callback(db.close)
        self._open.push_async_callback(client.aclose)
        return await self._open.enter_async_context(scenes.opened(rt))

    def close(self) -> None:
        self.run(self._open.aclose())
        self._runner.close()


@pytest.fixture
def stage(settings: Settings, prices: PriceMap) -> Iterator[Stage]:
    opened = Stage(settings, prices)
    yield opened
    opened.close()


class Money(RuleBasedStateMachine):
    """The steps. A subclass says on which stage."""

    stage: ClassVar[Stage]

    def __init__(self) -> None:
        super().__init__()
        self.scene = self.stage.scene
        self.teams: list[Team] = []
        self.jobs: list[tuple[Team, str]] = []
        self.waiting: list[str] = []
        self.running: list[Claimed] = []
        self.late: list[Claimed] = []
        self.overran: set[UUID] = set()

    @initialize()
    def begin(self) -> None:
        self.teams = [self.stage.run(paying(self.scene, **terms)) for terms in TEAMS]
        self.stage.run(budget(self.scene, self.teams[1], max_nanousd=10**9))
        self.stage.run(budget(self.scene, self.teams[2], max_nanousd=10**9, of_key=True, duration="30d"))

    @rule(n=st.integers(0, 2), calls=st.integers(0, 3), auto=st.booleans())
    def create_job(self, n: int, calls: int, auto: bool) -> None:
        team = self.teams[n]
        body: dict[str, Any] = {"team_id": team.id, "job_type": "test"}
        if calls:
            body |= {"auto_complete": auto, "calls": [{"messages": scenes.HELLO, "max_tokens": 600}] * calls}
        made = self.stage.run(team.post("/jobs/create", body))
        assert made.status_code in (200, 202, 403), made.text
        if made.status_code != 403:
            self.jobs.append((team, made.json()["job_id"]))
            self.waiting += [call["call_id"] for call in made.json().get("calls", ())]

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), tokens=st.sampled_from((1, 200, 3000)))
    def add_call(self, data: st.DataObject, tokens: int) -> None:
        team, job_id = data.draw(st.sampled_from(self.jobs))
        answer = self.stage.run(team.submit(job_id, max_tokens=tokens))
        assert answer.status_code in (202, 403, 409), answer.text
        if answer.status_code == 202:
            self.waiting.append(answer.json()["call_id"])

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def claim_call(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(call_id)
        row = self.stage.run(self.scene.row("select state from calls where id = :id", id=UUID(call_id)))
        if row.state == "pending":
            self.running.append(self.stage.run(claim(self.scene, call_id)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.sampled_from((0, 1, 100, 5000)))
    def answer_call(self, data: st.DataObject, tokens: int) -> None:
        call = self._drawn(data, self.running)
        report = used(self.scene, call, tokens)
        if tokens > call.estimated_output_tokens:
            self.overran.add(call.job_id)
        self.stage.run(close(self.scene, report))
        self.late.append(call)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), again=st.sampled_from(("never", "same")))
    def fail_call(self, data: st.DataObject, again: str) -> None:
        call = self._drawn(data, self.running)
        rt = self.scene.rt
        error = refused("provider_error", again=again)
        self.stage.run(close(self.scene, reports.failed(call, error, rt.prices, rt.settings, left_s=60)))
        self.waiting.append(str(call.id))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def lose_worker(self, data: st.DataObject) -> None:
        call = self._drawn(data, self.running)
        self.stage.run(self._swept(call))
        self.waiting.append(str(call.id))
        self.late.append(call)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def report_late(self, data: st.DataObject) -> None:
        call = self._drawn(data, self.late)
        self.stage.run(close(self.scene, used(self.scene, call, 77), used(self.scene, call, 77)))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel_call(self, data: st.DataObject) -> None:
        team, job_id = data.draw(st.sampled_from(self.jobs))
        of_job = self.stage.run(self.scene.rows("select id from calls where job_id = :id order by id", id=UUID(job_id)))
        if of_job:
            call = data.draw(st.sampled_from([str(row.id) for row in of_job]))
            assert self.stage.run(team.post(f"/jobs/{job_id}/calls/{call}/cancel")).status_code == 200

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), how=st.sampled_from(("completed", "failed", "cancel")))
    def end_job(self, data: st.DataObject, how: str) -> None:
        team, job_id = data.draw(st.sampled_from(self.jobs))
        ending = team.post(f"/jobs/{job_id}/cancel") if how == "cancel" else team.complete(job_id, how)
        assert self.stage.run(ending).status_code in (200, 409)

    @rule(n=st.integers(0, 2), amount=st.integers(1, 5))
    def add_credits(self, n: int, amount: int) -> None:
        body = {"team_id": self.teams[n].id, "amount": amount}
        assert self.stage.run(self.scene.api.post("/credits/add", body)).status_code == 200

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        team, job_id = data.draw(st.sampled_from(self.jobs))
        answer = self.stage.run(self.scene.api.post(f"/credits/teams/{team.id}/refund", {"job_id": job_id}))
        assert answer.status_code in (200, 400, 409), answer.text

    @rule(n=st.integers(0, 2), mode=st.sampled_from(MODES), limit=st.sampled_from((None, 6, 20)))
    def change_terms(self, n: int, mode: str, limit: int | None) -> None:
        self.stage.run(pays(self.scene, self.teams[n], budget_mode=mode, credit_limit=limit))

    @invariant()
    def books_are_in_order(self) -> None:
        if self.teams:
            self.stage.run(in_order(self.scene, *self.teams))
            self.stage.run(self._holds_are_what_is_wanted())

    async def _swept(self, call: Claimed) -> None:
        rt = self.scene.rt
        await self.scene.rows(
            "update calls set lease_expires_at = app_now() - interval '1 second' "
            "where id = :id and state = 'in_progress' and attempt = :number returning 1",
            id=call.id,
            number=call.number,
        )
        async with rt.db.statement() as tx:
            expired = [row for row in await waiting_calls.expired(tx, limit=100) if row.id == call.id]
        await close(self.scene, *(reports.swept(row, rt.prices, rt.settings) for row in expired))

    async def _holds_are_what_is_wanted(self) -> None:
        rows = await self.scene.rows(WANTED, teams=[team.id for team in self.teams])
        wrong = [row for row in rows if row.held > row.wanted or (row.held < row.wanted and not self._may_lack(row))]
        assert wrong == []

    def _may_lack(self, row: Any) -> bool:
        return row.budget_mode != "job_based" and row.id in self.overran

    def _drawn(self, data: st.DataObject, of: list[Claimed]) -> Claimed:
        n = data.draw(st.integers(0, len(of) - 1))
        return of.pop(n)


WANTED = """
select id, budget_mode, credits_held as held, case budget_mode
       when 'job_based' then 1
       when 'consumption_usd' then ceil((client_cost_nanousd + estimate_nanousd) * credits_per_dollar / 1000000000)
       else ceil((total_tokens + estimate_tokens)::numeric / tokens_per_credit) end as wanted
  from jobs where team_id = any(:teams) and status in ('pending', 'in_progress') and budget_mode is not null
"""


def test_no_order_of_steps_brings_the_books_out_of_order(stage: Stage) -> None:
    bounds = given_settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(type("MoneyHere", (Money,), {"stage": stage}), settings=bounds)
