"""`waybill doctor`: proves the books. It reads everything in one snapshot, changes nothing, and says what is off."""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection as PsycopgConnection
from sqlalchemy import text

from cli.home import Home, read_json
from shared import books, schema
from shared.books import CHECKS, Finding
from shared.db import CoreTx, Database, Tx, is_down
from shared.read_settings import BadSetting, check_database_url

SOUND, BROKEN, NOT_CHECKED = 0, 1, 2
NOT_MIGRATED = (
    "the database is not at this version's revision: start `make up` anew, "
    "or run `./waybill migrate` with WAYBILL_DATABASE_URL set"
)
NO_TIME_LIMITS = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Check everything. Returns 0 when the books are sound, 1 when something is off, 2 when they cannot be read."""
    asked = _parser().parse_args(argv)
    try:
        url = database_url(environ)
        return asyncio.run(_examine(url, asked.team or None, as_json=asked.json))
    except BadSetting as error:
        sys.stderr.write(f"waybill: {error}\n")
    except Exception as error:
        if not is_down(error):
            raise
        sys.stderr.write(f"waybill: the database cannot be read ({type(error).__name__})\n")
    return NOT_CHECKED


def database_url(environ: Mapping[str, str]) -> str:
    """`WAYBILL_DATABASE_URL`, else the database of the `waybill up` that runs in `WAYBILL_HOME`. Raises BadSetting."""
    url = environ.get("WAYBILL_DATABASE_URL")
    if not url:
        home = Home(Path(environ.get("WAYBILL_HOME") or ".waybill"))
        url = read_json(home.run).get("database_url")
        if not url:
            raise BadSetting(f"set WAYBILL_DATABASE_URL: no Waybill runs from {home.path}")
    check_database_url(url)
    return str(url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="waybill doctor", description="Prove the books; exit 1 when something is off."
    )
    parser.add_argument("--team", action="append", metavar="ID", help="only this team; may be given several times")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    return parser


async def _examine(url: str, teams: Sequence[str] | None, *, as_json: bool) -> int:
    started = time.monotonic()
    findings: list[Finding] = []
    async with _snapshot(url) as tx:
        await _refuse_unknown(tx, teams or ())
        source, sizes = await _source(tx), await books.sizes(tx, teams)
        if not as_json:
            _tell_source(source, sizes)
        for area, checks in CHECKS.items():
            asked = [await books.broken(tx, area, check, teams=teams) for check in checks]
            found = [finding for finding in asked if finding is not None]
            findings.extend(found)
            if not as_json:
                _tell(area, len(checks), found)
    seconds = round(time.monotonic() - started, 2)
    if as_json:
        _tell_json({"database": source, "read": sizes, "seconds": seconds}, findings)
    else:
        checked = sum(map(len, CHECKS.values()))
        print(f"{checked} checks in {seconds} s: {f'{len(findings)} broken' if findings else 'the books are sound'}")
    return BROKEN if findings else SOUND


async def _refuse_unknown(tx: Tx, teams: Sequence[str]) -> None:
    if unknown := await books.unknown_teams(tx, teams):
        raise BadSetting(f"the database has no team {', '.join(map(ascii, unknown))}")


async def _source(tx: CoreTx) -> dict[str, Any]:
    """Where the snapshot comes from, as the connection that reads it has it; who reads is nobody's business."""
    connection: PsycopgConnection[Any] = (await tx.get_raw_connection()).driver_connection  # type: ignore[assignment]
    info = connection.info
    revision = await tx.scalar(text("select version_num from alembic_version"))
    return {"host": info.host, "port": info.port, "name": info.dbname, "revision": revision}


@asynccontextmanager
async def _snapshot(url: str) -> AsyncIterator[CoreTx]:
    """A read-only transaction that sees one moment, and may take as long as it needs."""
    db = Database(url, pool=2, name="waybill-doctor", session=NO_TIME_LIMITS)
    try:
        async with db.statement() as tx:
            if not await schema.is_current(tx):
                raise BadSetting(NOT_MIGRATED)
        async with db.engine.connect() as tx:
            await tx.execute(text("set transaction isolation level repeatable read, read only"))
            yield tx
    finally:
        await db.close()


def _tell_source(source: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    counted = ", ".join(f"{count} {name}" for name, count in sizes.items())
    print(
        f"database {source['name']} at {source['host']} port {source['port']}, revision {source['revision']}: {counted}"
    )


def _tell_json(told: Mapping[str, Any], findings: Sequence[Finding]) -> None:
    shown = {"sound": not findings, **told, "findings": [asdict(finding) for finding in findings]}
    print(json.dumps(shown, default=_plain))


def _plain(value: object) -> object:
    """Postgres sums integers to a numeric; a reader compares it with an integer."""
    return int(value) if isinstance(value, Decimal) and value == int(value) else str(value)


def _tell(area: str, checks: int, found: Sequence[Finding]) -> None:
    print(f"{area:<9} {checks - len(found)} of {checks} hold")
    for finding in found:
        print(f"  BROKEN: {finding.check}: {finding.broken} row{'s' if finding.broken > 1 else ''}")
        for row in finding.rows:
            print("    " + ", ".join(f"{name}={value}" for name, value in row.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
