"""`waybill reseal`: seals every secret in the database anew with the newest encryption key, in small steps."""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.doctor import database_url
from cli.home import Home, read_json
from shared import sealed_columns
from shared.clock import iso
from shared.db import Database, is_down
from shared.read_settings import BadSetting
from shared.sealed_columns import COLUMNS, SealedColumn
from shared.sealer import Sealer

DONE, UNOPENED, NOT_DONE = 0, 1, 2
STEP = 100
"""Rows locked at once: a step is over in milliseconds, so that calls and deliveries hardly wait."""
MOST_NAMED = 20
NO_TIME_LIMIT = {"statement_timeout": "0"}
"""Finding the first old value may read a whole table."""


@dataclass
class Count:
    """What became of one column."""

    resealed: int = 0
    unopened: int = 0
    named: list[str] = field(default_factory=list)


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Returns 0 when nothing needs an older key any more, 1 when something opens with no key, 2 when it cannot run.

    May be stopped at any time and run again: what is sealed with the newest key is left alone.
    """
    _parser().parse_args(argv)
    try:
        return asyncio.run(_reseal(database_url(environ), Sealer(_encryption_keys(environ))))
    except ValueError as error:
        sys.stderr.write(f"waybill: {error}\n")
    except Exception as error:
        if not is_down(error):
            raise
        sys.stderr.write(f"waybill: the database cannot be used ({type(error).__name__})\n")
    return NOT_DONE


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="waybill reseal",
        description="Seal every secret anew with the first key of WAYBILL_ENCRYPTION_KEY; then the others can go.",
    )


def _encryption_keys(environ: Mapping[str, str]) -> str:
    """`WAYBILL_ENCRYPTION_KEY`, else what `waybill up` keeps in `WAYBILL_HOME`. Raises BadSetting."""
    keys = environ.get("WAYBILL_ENCRYPTION_KEY")
    if not keys:
        home = Home(Path(environ.get("WAYBILL_HOME") or ".waybill"))
        keys = read_json(home.keys).get("encryption_key")
        if not keys:
            raise BadSetting(f"set WAYBILL_ENCRYPTION_KEY: no Waybill has run from {home.path}")
    return str(keys)


async def _reseal(url: str, sealer: Sealer) -> int:
    db = Database(url, pool=2, name="waybill-reseal", session=NO_TIME_LIMIT)
    try:
        counts = {column: await _column(db, sealer, column) for column in COLUMNS}
        async with db.statement() as tx:
            left = await sealed_columns.expiring(tx, sealer)
    finally:
        await db.close()
    for column, count in counts.items():
        _tell(column, count)
    if left.answers:
        print(f"{left.answers} kept answers need an older key until they expire, the last at {iso(left.until)}")
    unopened = sum(count.unopened for count in counts.values())
    if unopened:
        print(f"{unopened} values open with no key of WAYBILL_ENCRYPTION_KEY: set those secrets again")
        return UNOPENED
    print(f"everything is sealed with the newest key{'' if left.answers else ': older ones can be dropped'}")
    return DONE


async def _column(db: Database, sealer: Sealer, column: SealedColumn) -> Count:
    count, after = Count(), None
    while True:
        async with db.engine.begin() as tx:
            step = await sealed_columns.step(tx, sealer, column, after=after, limit=STEP)
        if step is None:
            return count
        count.resealed += step.resealed
        count.unopened += len(step.unopened)
        count.named.extend(step.unopened[: MOST_NAMED - len(count.named)])
        after = step.last


def _tell(column: SealedColumn, count: Count) -> None:
    print(f"{column.table}.{column.column}: {count.resealed} sealed anew, {count.unopened} not opened")
    for key in count.named:
        sys.stderr.write(f"waybill: {column.table}.{column.column} of {key} opens with no key\n")
    if count.unopened > len(count.named):
        sys.stderr.write(f"waybill: and {count.unopened - len(count.named)} more\n")
