"""Rounds of steps in one order: a step that fails, or takes all the time there is, keeps none of the others waiting."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from shared import log
from shared.db import is_down

logger = log.get(__name__)


class Rounds:
    """Runs all its steps, again and again. After a round that was cut the next begins behind the step it was cut in.

    name: in the log. steps: each returns how many rows it touched.
    """

    def __init__(self, name: str, steps: Mapping[str, Callable[[], Awaitable[int]]]) -> None:
        self._name = name
        self._steps = deque(steps.items())

    async def run(self) -> dict[str, int]:
        """One round. Returns what each step touched, without those that failed; these are logged."""
        found = {}
        for _ in range(len(self._steps)):
            name, step = self._steps[0]
            self._steps.rotate(-1)
            try:
                found[name] = await step()
            except Exception as error:  # noqa: BLE001 - it is told, and the next round may do better
                self._tell(name, error)
        if any(found.values()):
            logger.info(self._name, **{name: count for name, count in found.items() if count})
        return found

    def _tell(self, step: str, error: Exception) -> None:
        exc_info = None if is_down(error) else error
        logger.warning("step_failed", of=self._name, step=step, error=type(error).__name__, exc_info=exc_info)
