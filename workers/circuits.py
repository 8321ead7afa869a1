"""What a unit tells of the providers it asks, and knows of their circuits; one that is well costs no statement."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shared import log, provider_circuits
from shared.calls import Claimed
from shared.db import Tx, is_down
from shared.group_commit import GroupCommit
from shared.provider_circuits import Answered, Circuit, Failed, Target
from shared.runtime import Runtime
from workers.provider import ProviderError
from workers.retry import RATE_LIMITED

logger = log.get(__name__)

LOOKS_S = 1.0
"""For so long at most a unit does not know what others found out."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """How an attempt at a target ended. began: monotonic time."""

    target: Target
    began: float
    is_failure: bool


def counts(error: ProviderError) -> bool:
    """Whether it says that the provider is in trouble: 408, 429, 5xx, a timeout, no connection.

    What broke off or cannot be read after a 200 says neither this nor that it is well.
    """
    if error.code in ("provider_timeout", RATE_LIMITED):
        return True
    status = error.http_status
    is_outage = status is None or status == 408 or status >= 500
    return error.code == "provider_error" and error.again == "same" and is_outage


def target_of(call: Claimed) -> Target | None:
    """What this call asks; None when its alias is gone."""
    if call.provider is None or call.litellm_model is None:
        return None
    own = None if call.api_key_sealed is None else f"alias {call.alias}"
    scope = call.provider if call.api_base is None else f"{call.provider} {call.api_base}"
    return Target(scope, call.litellm_model, own or str(call.credential_id or ""))


class Circuits:
    """Of one unit. Trouble with the database is logged: a call goes on without."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._observations: GroupCommit[Observation, None] = GroupCommit(self._record_group)
        self._known: dict[Target, float | None] = {}
        """Targets with failures: the monotonic time until which they are open, None: closed."""
        self._failing: Counter[Target] = Counter()
        """Failures that are being written. Not answers: each would have the next one recorded, for ever."""
        self._looked_at = -LOOKS_S

    async def any_open(self, tx: Tx) -> bool:
        """Whether some circuit is not closed, as of a second ago at most."""
        now = time.monotonic()
        if now - self._looked_at >= LOOKS_S:
            self._looked_at = now
            found = await provider_circuits.known(tx)
            self._known = {}
            self._remember(found)
        return any(until is not None for until in self._known.values())

    async def failed(self, call: Claimed, error: ProviderError, began: float) -> None:
        """Count a failure that counts; while the circuit is open it says nothing new."""
        target = target_of(call)
        if target is None or not counts(error):
            return
        until = self._known.get(target)
        if until is None or until <= time.monotonic():
            self._failing[target] += 1
            try:
                await self._record(Observation(target=target, began=began, is_failure=True))
            finally:
                self._failing -= Counter([target])

    async def answered(self, call: Claimed, began: float) -> None:
        """Close the circuit, and forget its failures, where there are any."""
        target = target_of(call)
        if target is not None and (target in self._known or target in self._failing):
            await self._record(Observation(target=target, began=began, is_failure=False))

    async def release(self, call: Claimed) -> None:
        """A probe has ended: where that said nothing, the next call is one."""
        target = target_of(call)
        if target is None or call.probed_at is None:
            return
        try:
            async with self._rt.db.hot_statement() as tx:
                await provider_circuits.release(tx, target, call.probed_at)
        except Exception as error:  # noqa: BLE001 - see the class
            self._missed(target, error)

    async def _record(self, seen: Observation) -> None:
        try:
            await self._observations.add(seen)
        except Exception as error:  # noqa: BLE001 - see the class
            self._missed(seen.target, error)

    async def _record_group(self, group: Sequence[Observation]) -> list[None]:
        """One statement for all that failed and one for all that answered, however many they were."""
        failed, answered = folded(group, now=time.monotonic())
        async with self._rt.db.hot_statement() as tx:
            closed = await provider_circuits.close(tx, answered) if answered else []
            for one in closed:
                self._known.pop(one.target, None)
            circuits = await provider_circuits.record(tx, failed) if failed else []
        self._remember(circuits)
        for one in closed:
            if one.was_open:
                logger.info("circuit_closed", **_named(one.target))
        for circuit in circuits:
            if circuit.opens:
                open_s = round(circuit.open_in_s or 0)
                logger.warning("circuit_opened", failures=circuit.failures, open_s=open_s, **_named(circuit.target))
        return [None] * len(group)

    def _remember(self, circuits: Sequence[Circuit]) -> None:
        now = time.monotonic()
        for one in circuits:
            self._known[one.target] = None if one.open_in_s is None else now + one.open_in_s

    def _missed(self, target: Target, error: Exception) -> None:
        if is_down(error):
            logger.warning("circuit_not_recorded", error=type(error).__name__, **_named(target))
        else:
            logger.error("circuit_not_recorded", exc_info=error, **_named(target))


def folded(group: Sequence[Observation], *, now: float) -> tuple[list[Failed], list[Answered]]:
    """What these come to, in order of their ends: failures in a row since a target was last answered, and answers."""
    in_row: dict[Target, int] = {}
    failed: dict[Target, float] = {}
    answered: dict[Target, float] = {}
    for seen in group:
        began = failed if seen.is_failure else answered
        began[seen.target] = max(seen.began, began.get(seen.target, seen.began))
        in_row[seen.target] = in_row.get(seen.target, 0) + 1 if seen.is_failure else 0
    return (
        [Failed(target, in_row[target], now - began) for target, began in failed.items()],
        [Answered(target, now - began) for target, began in answered.items()],
    )


def _named(target: Target) -> dict[str, str]:
    """In a log; the address may hold a secret."""
    return {"provider": target.scope.partition(" ")[0], "model": target.litellm_model, "credential": target.credential}
