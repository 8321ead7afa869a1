"""Every sealed column there is, what its values are sealed for, and how old ones are sealed anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import sql

from shared.db import Tx, hot
from shared.sealer import CannotOpen, Sealer

OLD = """
select {key} as key, {column} as sealed from {table}
 where {column} is not null and substring({column} from 1 for %(length)s) <> %(newest)s
   and (%(after)s::{type} is null or {key} > %(after)s)
 order by {key} limit %(limit)s for no key update
"""

WRITE = """
update {table} as s set {column} = r.sealed from unnest(%s::{type}[], %s::bytea[]) as r(key, sealed)
 where s.{key} = r.key
"""

EXPIRING = """
select count(*) as answers, max(expires_at) as until from idempotency_keys
 where answer_sealed is not null and substring(answer_sealed from 1 for %s) <> %s and expires_at > app_now()
"""


@dataclass(frozen=True, kw_only=True)
class SealedColumn:
    """A column `<name>_sealed`, in a table with a key of one column."""

    table: str
    name: str
    key: str = "id"
    type: str = "uuid"

    @property
    def column(self) -> str:
        """Its name in the table."""
        return f"{self.name}_sealed"

    def purpose(self, key: str | UUID | None) -> str:
        """What the value in the row of this key is sealed for."""
        return f"{self.table}.{self.name}:{key}"


ALIAS_KEY = SealedColumn(table="model_aliases", name="api_key", key="alias", type="text")
CREDENTIAL_KEY = SealedColumn(table="provider_credentials", name="api_key")

COLUMNS: Sequence[SealedColumn] = (
    ALIAS_KEY,
    CREDENTIAL_KEY,
    SealedColumn(table="teams", name="callback_secret", type="text"),
    SealedColumn(table="webhook_endpoints", name="secret"),
    SealedColumn(table="webhook_endpoints", name="auth_header"),
    SealedColumn(table="webhook_endpoints", name="headers"),
    SealedColumn(table="webhook_keys", name="key"),
    SealedColumn(table="jobs", name="callback_secret"),
    SealedColumn(table="calls", name="callback_secret"),
)

LEFT_TO_EXPIRE = ("idempotency_keys.answer_sealed",)
"""Kept for 25 hours; an older answer is then gone, and until then the older key opens it."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One small step through a column. unopened: keys of rows that no key of the ring opens; they are left alone."""

    resealed: int
    unopened: tuple[str, ...]
    last: Any


async def step(tx: Tx, sealer: Sealer, column: SealedColumn, *, after: Any, limit: int) -> Step | None:
    """Seal the next `limit` older values anew, in the order of their keys; None when none is left past `after`."""
    params = {"length": len(sealer.newest), "newest": sealer.newest, "after": after, "limit": limit}
    rows = await hot(tx, _text(OLD, column), params)
    if not rows:
        return None
    anew: list[tuple[Any, bytes]] = []
    unopened: list[str] = []
    for row in rows:
        purpose = column.purpose(row.key)
        try:
            anew.append((row.key, sealer.seal(sealer.open(row.sealed, purpose=purpose), purpose=purpose)))
        except CannotOpen:
            unopened.append(str(row.key))
    await hot(tx, _text(WRITE, column), ([key for key, _ in anew], [sealed for _, sealed in anew]))
    return Step(resealed=len(anew), unopened=tuple(unopened), last=rows[-1].key)


async def expiring(tx: Tx, sealer: Sealer) -> Any:
    """How many kept answers only an older key opens, and until when they are kept (None without any)."""
    return (await hot(tx, EXPIRING, (len(sealer.newest), sealer.newest)))[0]


def _text(statement: str, column: SealedColumn) -> str:
    names_ = {"table": column.table, "column": column.column, "key": column.key}
    quoted = {name: sql.Identifier(value).as_string() for name, value in names_.items()}
    return statement.format(**quoted, type=column.type)
