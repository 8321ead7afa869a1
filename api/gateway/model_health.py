"""Which models can be asked now: what the database says of them, read once a second at most, whoever asks."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from shared import provider_circuits, visible_models
from shared.runtime import Runtime
from shared.visible_models import Active

KEEP_S = 1.0
CHECK_S = 1.0
FAILING = "its provider fails, the circuit is open"
"""For some credential at least. Calls go to the fallbacks; those that have none still go there."""


@dataclass(frozen=True, kw_only=True)
class AliasHealth:
    """An active alias and what is wrong with it. is_usable: it can be asked all the same."""

    model: str
    provider: str
    groups: tuple[str, ...]
    error: str | None
    is_usable: bool


class ModelHealth:
    """Of one process. Many who ask at once share one look; no provider is ever asked."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._lock = asyncio.Lock()
        self._seen: Sequence[AliasHealth] = ()
        self._seen_at = -KEEP_S

    async def now(self) -> Sequence[AliasHealth]:
        """Every active alias, by name. Raises what a database that is down raises, within a second or two."""
        async with asyncio.timeout(CHECK_S), self._lock:
            if time.monotonic() - self._seen_at >= KEEP_S:
                began = time.monotonic()
                async with self._rt.db.hot_statement() as tx:
                    active, failing = await visible_models.active(tx), await provider_circuits.open_aliases(tx)
                self._seen = [self._standing(alias, is_failing=alias.alias in failing) for alias in active]
                self._seen_at = began
            return self._seen

    def _standing(self, alias: Active, *, is_failing: bool) -> AliasHealth:
        lack = self._lack(alias)
        return AliasHealth(
            model=alias.alias,
            provider=alias.provider,
            groups=tuple(alias.groups),
            error=lack or (FAILING if is_failing else None),
            is_usable=lack is None,
        )

    def _lack(self, alias: Active) -> str | None:
        rt = self._rt
        in_environment = rt.settings.provider_env_fallback and alias.provider in rt.settings.providers_in_environment
        if not alias.has_key and not in_environment:
            return f"no provider credentials configured for {alias.provider}"
        price = rt.prices.price_of(alias)
        return None if price is not None or alias.allow_unpriced else "model has no price"
