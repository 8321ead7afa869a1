"""Running calls: claim, ask the provider with no transaction open, close under the fence, ring."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from uuid import UUID

from shared import clock, closing, ending, limits, log, provider_slowdowns
from shared.attempt_reports import Report
from shared.calls import Claimed
from shared.db import is_down
from shared.ids import Fence
from shared.messages import RunCalls
from shared.runtime import Runtime
from shared.states import CallState, Outcome
from shared.team_commit import TeamCommit
from workers import reports
from workers.call_claims import CallClaims
from workers.circuits import Circuits
from workers.provider import Answer, Provider, ProviderError
from workers.relay import Relay
from workers.retry import RATE_LIMITED
from workers.streaming import Chunkwriter

logger = log.get(__name__)

MOST_LINES_CLOSED = 64
"""In one transaction: a unit that is niced must not hold its batch's job, and its team's rows, for long."""
REFUSALS_TOLD_S = 1.0
"""How often a unit tells that a provider refuses for its rate limit."""
CLOSE_RETRIES_S = (0.1, 0.2, 0.5, 1, 1, 2, 2, 5, 5, 10, 10, 20, 30, 30)
"""A result in hand is worth waiting for the database: about two minutes."""


@dataclass(eq=False)
class _Asked:
    """Calls that are being claimed, and those of them that were cancelled meanwhile."""

    ids: frozenset[UUID]
    cancelled: set[UUID] = field(default_factory=set)


class Calls:
    """The calls this process holds: who they are, what they ask, and why one was stopped."""

    def __init__(self, rt: Runtime, provider: Provider, worker: str) -> None:
        self._rt = rt
        self._provider = provider
        self._worker = worker
        self._closes: TeamCommit[Report, bool] = TeamCommit(self._close_group, patient=rt.db.patient)
        self._line_closes: TeamCommit[Report, bool] = TeamCommit(
            self._close_group, patient=rt.db.patient, most=MOST_LINES_CLOSED
        )
        self._circuits = Circuits(rt)
        self._claims = CallClaims(rt, self._circuits, worker)
        self._streams = Chunkwriter(rt, self.stop)
        self._asking: dict[Fence, asyncio.Task[Answer]] = {}
        self._stopped: dict[Fence, str] = {}
        self._being_claimed: set[_Asked] = set()
        self._leased_at: dict[Fence, float] = {}
        self._told: dict[tuple[str | None, str | None], float] = {}
        self.held: set[Fence] = set()
        """Every lease this process has; read by the renewer's thread."""

    async def claim(
        self, call_ids: Sequence[UUID], start: Callable[[Claimed], object] = lambda _: None
    ) -> list[Claimed]:
        """Take calls under a lease; one bell rung twice takes nothing the second time.

        start: told of each call the moment it is won; others of the bell may have to wait for their team.
        Returns all that were won.
        """
        asked, won = _Asked(frozenset(call_ids)), list[Claimed]()

        def win(calls: Sequence[Claimed], asked_at: float) -> None:
            won.extend(calls)
            for call in calls:
                self.held.add(call.fence)
                self._leased_at[call.fence] = asked_at
                if call.id in asked.cancelled:
                    self.stop(call.fence, "cancelled")
                start(call)

        self._being_claimed.add(asked)
        try:
            await self._claims.claim(call_ids, win)
        finally:
            self._being_claimed.discard(asked)
        return won

    async def run(self, call: Claimed) -> None:
        """Ask the provider and close the attempt, whatever happens."""
        relay, began = Relay(call, self._streams) if call.stream else None, time.monotonic()
        try:
            report = await self._attempt(call, relay, began)
            if relay is not None:
                # A mistake of ours is in the report already.
                with suppress(Exception):
                    await relay.recorded()
            if report is not None:
                if relay is not None and report.state == CallState.COMPLETED:
                    report = replace(report, chunks=relay.last)
                _log_failure(call, report)
                mine = await self._close(report, call)
                if relay is not None and mine and report.state != CallState.PENDING:
                    await self._streams.end(relay, report, provider=call.provider)
                if report.outcome == Outcome.SUCCEEDED:
                    await self._circuits.answered(call, began)
                # Who has the call now holds the reservation; what was cancelled nobody has.
                if mine or self._stopped.get(call.fence) == "cancelled":
                    await self._settle_tokens(call, report)
            if call.probed_at is not None:
                await self._circuits.release(call)
        finally:
            self.held.discard(call.fence)
            self._stopped.pop(call.fence, None)
            self._leased_at.pop(call.fence, None)
        if call.max_parallel_calls is not None:
            await self._claims.ended(call.team_id)

    def stop(self, fence: Fence, reason: str) -> None:
        """Close a running call's provider connection.

        reason: cancelled, lost (somebody else has it), oversized (it says too much) or drained.
        """
        if fence not in self.held or fence in self._stopped:
            return
        self._stopped[fence] = reason
        asking = self._asking.get(fence)
        if asking is not None:
            asking.cancel()

    def cancel(self, call_ids: Collection[UUID]) -> None:
        """Stop those of these calls that run here, or are about to."""
        for asked in self._being_claimed:
            asked.cancelled.update(asked.ids.intersection(call_ids))
        for fence in [fence for fence in self.held if fence[0] in call_ids]:
            self.stop(fence, "cancelled")

    async def _attempt(self, call: Claimed, relay: Relay | None, started: float) -> Report | None:
        settings = self._rt.settings
        if started - self._leased_at.get(call.fence, started) > settings.lease_s:
            # This process stood still: the lease has run out before anything was asked.
            return None
        if relay is not None and call.number > 1 and await self._streams.was_heard(call):
            heard = ProviderError("stream_interrupted", outcome=Outcome.FAILED, again="never")
            return self._failed(call, heard, None, left_s=0)
        limit_s = call.deadline_in_s if call.stream else min(settings.provider_timeout_s, call.deadline_in_s)
        asking = asyncio.ensure_future(self._provider.complete(call, timeout_s=limit_s, sink=relay))
        self._asking[call.fence] = asking
        if call.fence in self._stopped:
            asking.cancel()
        try:
            answer = await self._within(asking, call, limit_s)
        except asyncio.CancelledError:
            return self._stopped_report(call, asking, relay)
        except ProviderError as error:
            await self._tell_refused(call, error, time.monotonic() - started)
            await self._circuits.failed(call, error, started)
            left_s = call.deadline_in_s - (time.monotonic() - started)
            return self._failed(call, error, relay, left_s=left_s)
        except Exception as error:
            logger.exception("provider_bug", call_id=str(call.id), error=type(error).__name__)
            bug = ProviderError("internal_error", outcome=Outcome.UNKNOWN, again="never")
            return self._failed(call, bug, relay, left_s=0)
        finally:
            self._asking.pop(call.fence, None)
        latency_ms = round((time.monotonic() - started) * 1000)
        return reports.succeeded(call, answer, self._rt.prices, latency_ms=latency_ms)

    async def _within(self, asking: asyncio.Task[Answer], call: Claimed, limit_s: float) -> Answer:
        done, _ = await asyncio.wait({asking}, timeout=limit_s)
        if done:
            return asking.result()
        asking.cancel()
        await asyncio.wait({asking}, timeout=1)
        if asking.done() and not asking.cancelled() and asking.exception() is None:
            return asking.result()
        raise timed_out(call, self._rt.settings.provider_timeout_s)

    def _stopped_report(self, call: Claimed, asking: asyncio.Task[Answer], relay: Relay | None) -> Report | None:
        asking.cancel()
        reason = self._stopped.get(call.fence)
        if reason is None:
            return None
        if reason == "drained" and (relay is None or not relay.has_begun):
            return reports.handed_back(call, self._rt.prices)
        code = "cancelled" if reason in ("cancelled", "lost") else "stream_interrupted"
        stopped = ProviderError(code, outcome=Outcome.ABANDONED, again="never")
        return self._failed(call, stopped, relay, left_s=0, is_paid=reason in ("cancelled", "drained"))

    def _failed(
        self, call: Claimed, error: ProviderError, relay: Relay | None, *, left_s: float, is_paid: bool = True
    ) -> Report:
        if relay is not None and relay.has_begun:
            return reports.interrupted(call, error, self._rt.prices, said_tokens=relay.said_tokens, is_paid=is_paid)
        return reports.failed(call, error, self._rt.prices, self._rt.settings, left_s=left_s)

    async def _tell_refused(self, call: Claimed, error: ProviderError, began_s: float) -> None:
        """Slow the lines of everybody who uses a provider that refuses for its rate limit; the calls go on anyway."""
        server, now = (call.provider, call.api_base), time.monotonic()
        if error.code != RATE_LIMITED or now - self._told.get(server, -REFUSALS_TOLD_S) < REFUSALS_TOLD_S:
            return
        self._told[server] = now
        try:
            async with self._rt.db.hot_statement() as tx:
                await provider_slowdowns.record(
                    tx, alias=call.alias, began_s=began_s, retry_after_s=error.retry_after_s
                )
        except Exception as failure:
            if not is_down(failure):
                logger.exception("slowdown_not_recorded", provider=call.provider)
            else:
                logger.warning("slowdown_not_recorded", provider=call.provider, error=type(failure).__name__)

    async def _close(self, report: Report, call: Claimed) -> bool:
        """Whether the attempt still held its call."""
        closes = self._line_closes if call.batched else self._closes
        for wait_s in CLOSE_RETRIES_S:
            try:
                mine = await closes.add(report, call.team_id)
            except Exception as error:
                if not is_down(error):
                    logger.exception("close_failed", call_id=str(report.call_id), attempt=report.number)
                    if report.error_code == "internal_error":
                        return False
                    report = reports.unstorable(report)
                    continue
                logger.warning("close_waits", call_id=str(report.call_id), error=type(error).__name__)
                await asyncio.sleep(wait_s)
            else:
                self._ring_retry(report, mine=mine, batched=call.batched)
                return mine
        logger.error("close_given_up", call_id=str(report.call_id), attempt=report.number)
        return False

    async def _settle_tokens(self, call: Claimed, report: Report) -> None:
        """The token limit reserved an estimate; what the call really used takes its place."""
        if report.state == CallState.PENDING:
            return
        subjects = limits.subjects(call.team_id, call.key_id, tpm=call.tpm_limit, key_tpm=call.key_tpm_limit)
        used = report.usage.prompt_tokens + report.usage.completion_tokens
        await limits.settle_tokens(self._rt.redis, subjects, str(call.id), used)

    def _ring_retry(self, report: Report, *, mine: bool, batched: bool) -> None:
        """Ring a call that is to be tried again, when it is due; a line waits for the dispatcher."""
        if not mine:
            logger.info("close_stale", call_id=str(report.call_id), attempt=report.number)
        elif report.state == CallState.PENDING and not batched:
            bell = RunCalls(ids=(report.call_id,))
            asyncio.get_running_loop().call_later(report.retry_in_s or 0, self._rt.ring, bell)

    async def _close_group(self, group: Sequence[Report], lock_s: float | None) -> list[bool | Exception]:
        async with self._rt.db.hot_transaction(lock_s=lock_s) as tx:
            aftermath = await closing.close_attempts(tx, group, now=clock.now())
        ending.ring(self._rt, aftermath)
        return [report.fence in aftermath.mine for report in group]


def timed_out(call: Claimed, provider_timeout_s: float) -> ProviderError:
    """The attempt's own limit passed, or the call's deadline, whichever was nearer."""
    if call.stream or call.deadline_in_s <= provider_timeout_s:
        return ProviderError("deadline_exceeded", outcome=Outcome.ABANDONED, again="never")
    return ProviderError("provider_timeout", outcome=Outcome.UNKNOWN, again="same")


def _log_failure(call: Claimed, report: Report) -> None:
    """What an operator needs to find out why a provider fails; the message is scrubbed of secrets."""
    if report.outcome != Outcome.SUCCEEDED:
        logger.warning(
            "attempt_failed",
            call_id=str(call.id),
            attempt=call.number,
            alias=call.alias,
            provider=call.provider,
            outcome=report.outcome,
            code=report.error_code,
            http_status=report.http_status,
            provider_says=report.error_message,
            next_state=report.state,
        )
