"""Aliases locked for the routes that make them members of groups or fallbacks of others."""

from collections.abc import Sequence

from shared import model_aliases
from shared.db import CoreTx
from shared.errors import NotFound


async def lock_aliases(tx: CoreTx, aliases: Sequence[str]) -> None:
    """Let nobody change or delete them until `tx` ends; groups are locked before. Raises NotFound."""
    there = await model_aliases.lock(tx, aliases)
    for alias in aliases:
        if alias not in there:
            raise NotFound(f"Model alias '{alias}' not found")
