"""Which models can be asked now: what the database says of them, read once a second at most, whoever asks."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from shared import visible_models
from shared.runtime import Runtime
from shared.visible_models import Active

KEEP_S = 1.0
CHECK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """An active alias and why it cannot be asked; `error` None: it can."""

    model: str
    provider: str
    groups: tuple[str, ...]
    error: str | None


class ModelHealth:
    """Of one process. Many who ask at once share one look; no provider is ever asked."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._lock = asyncio.Lock()
        self._seen: Sequence[Standing] = ()
        self._seen_at = -KEEP_S

    async def now(self) -> Sequence[Standing]:
        """Every active alias, by name. Raises what a database that is down raises, within a second or two."""
        async with asyncio.timeout(CHECK_S), self._lock:
            if time.monotonic() - self._seen_at >= KEEP_S:
                began = time.monotonic()
                async with self._rt.db.hot_statement() as tx:
                    self._seen = [self._standing(alias) for alias in await visible_models.active(tx)]
                self._seen_at = began
            return self._seen

    def _standing(self, alias: Active) -> Standing:
        return Standing(model=alias.alias, provider=alias.provider, groups=tuple(alias.groups), error=self._lack(alias))

    def _lack(self, alias: Active) -> str | None:
        rt = self._rt
        in_environment = rt.settings.provider_env_fallback and alias.provider in rt.settings.providers_in_environment
        if not alias.has_key and not in_environment:
            return f"no provider credentials configured for {alias.provider}"
        price = rt.prices.price_of(alias)
        return None if price is not None or alias.allow_unpriced else "model has no price"
