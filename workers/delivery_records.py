"""What came of attempts, recorded in groups: attempts, deliveries, circuits, health and what is told of it, at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shared import clock, deliveries, delivery_queues, endpoint_health, ids, log, outbox
from shared.db import Tx, is_down
from shared.deliveries import Delivery, Result
from shared.delivery_queues import Said
from shared.ids import Fence
from shared.messages import Deliver
from shared.runtime import Runtime
from shared.states import DeliveryState
from shared.team_commit import TeamCommit
from shared.webhook_facts import Attempted

logger = log.get(__name__)

AGAIN_S = 1.0
TRIES = 10
"""To record what was sent, a second apart or more. The lease may end before: then the delivery is sent again, and
receivers know it by its id."""


@dataclass(frozen=True, kw_only=True)
class EndedAttempt:
    """An attempt that ended. gone: the receiver said 410."""

    delivery: Delivery
    result: Result
    gone: bool = False


class Records:
    """Records attempts; one per process."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._group: TeamCommit[EndedAttempt, bool] = TeamCommit(self._commit, patient=rt.db.patient)

    async def add(self, ended: EndedAttempt) -> bool:
        """Whether the delivery was still this attempt's to record. Waits for a database that is away, for a while.

        What cannot be recorded with all the receiver said is recorded without it: else it would be sent for ever.
        """
        for _ in range(TRIES - 1):
            try:
                return await self._group.add(ended, ended.delivery.team_id)
            except Exception as error:  # noqa: BLE001 - the last try raises
                logger.warning(
                    "record_failed", delivery_id=ids.prefixed("dlv", ended.delivery.id), error=type(error).__name__
                )
                if is_down(error):
                    await asyncio.sleep(AGAIN_S)
                else:
                    ended = replace(ended, result=_short(ended.result))
        return await self._group.add(ended, ended.delivery.team_id)

    async def _commit(self, group: Sequence[EndedAttempt], lock_s: float | None) -> list[bool | Exception]:
        now = clock.now()
        async with self._rt.db.hot_transaction(lock_s=lock_s) as tx:
            late = await _late(tx, group)
            tries = await deliveries.record(tx, [_result(e, is_late=e.delivery.fence in late) for e in group])
            counted = [ended for ended in group if ended.delivery.fence not in late]
            await delivery_queues.tell(tx, said(counted))
            outcomes = [_attempted(e, tries[e.delivery.fence]) for e in counted if e.delivery.fence in tries]
            events = await endpoint_health.count(
                tx, outcomes, now=now, disable_after_s=self._rt.settings.webhook_disable_after_s
            )
            queues = await outbox.record(tx, events)
        endpoint_health.log_events(events)
        self._rt.ring(Deliver(ids=tuple(queues)))
        return [ended.delivery.fence in tries for ended in group]


async def _late(tx: Tx, group: Sequence[EndedAttempt]) -> set[Fence]:
    """Attempts that say nothing of an endpoint as it is: its URL was changed meanwhile, or it was enabled anew.

    Nobody is asked about endpoints that took all they were sent.
    """
    ids = [e.delivery.endpoint_id for e in group if e.result.error_class is not None]
    failed = {id_ for id_ in ids if id_ is not None}
    runs = await endpoint_health.runs(tx, failed) if failed else {}
    late = set()
    for delivery in (ended.delivery for ended in group):
        run = None if delivery.endpoint_id is None else runs.get(delivery.endpoint_id)
        if run is not None and (delivery.url != run[0] or delivery.claimed_at < run[1]):
            late.add(delivery.fence)
    return late


def _result(ended: EndedAttempt, *, is_late: bool) -> Result:
    """That a URL of before is gone ends no delivery: it goes to the one of now."""
    return (
        replace(ended.result, state=DeliveryState.FAILING, retry_in_s=0.0) if ended.gone and is_late else ended.result
    )


def said(group: Sequence[EndedAttempt]) -> list[Said]:
    """What these attempts, in the order they ended, say about their queues. Tests and our own mistakes say nothing."""
    told: dict[object, Said] = {}
    for ended in group:
        if ended.delivery.trigger == "test" or ended.result.error_class == "secret":
            continue
        id_ = ended.delivery.queue_id
        before = told.get(id_, Said(id=id_, succeeded=False, failures=0))
        if ended.result.error_class is None or ended.result.state == DeliveryState.ABORTED:
            told[id_] = Said(id=id_, succeeded=True, failures=0)
        else:
            told[id_] = Said(id=id_, succeeded=before.succeeded, failures=before.failures + 1)
    return [told[id_] for id_ in sorted(told, key=str)]


def _short(result: Result) -> Result:
    return replace(
        result,
        error=None if result.error is None else "what the receiver said cannot be shown",
        request_headers=None,
        response_headers=None,
        response_head=None,
        redirect_target=None,
    )


def _attempted(ended: EndedAttempt, attempt_count: int) -> Attempted:
    delivery, result = ended.delivery, ended.result
    return Attempted(
        delivery_id=delivery.id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        team_id=delivery.team_id,
        endpoint_id=delivery.endpoint_id,
        url=delivery.url,
        state=result.state,
        was_failing=delivery.was_failing,
        trigger=delivery.trigger,
        attempt_count=attempt_count,
        status=result.status,
        error_class=result.error_class,
        error=result.error,
        gone=ended.gone,
    )
