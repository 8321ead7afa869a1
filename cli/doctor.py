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
from pathlib import Path

from sqlalchemy import text

from cli.home import Home, read_json
from shared import books, schema
from shared.books import CHECKS, Finding
from shared.db import Database, Tx, is_down
from shared.read_settings import BadSetting, check_database_url

SOUND, BROKEN, NOT_CHECKED = 0, 1, 2
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
        for area, checks in CHECKS.items():
            found = [await books.broken(tx, area, check, teams=teams) for check in checks]
            findings.extend(finding for finding in found if finding is not None)
            if not as_json:
                _tell(area, len(checks), [finding for finding in found if finding is not None])
    seconds = round(time.monotonic() - started, 2)
    if as_json:
        shown = {"sound": not findings, "seconds": seconds, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(shown, default=str))
    else:
        checked = sum(map(len, CHECKS.values()))
        print(f"{checked} checks in {seconds} s: {f'{len(findings)} broken' if findings else 'the books are sound'}")
    return BROKEN if findings else SOUND


@asynccontextmanager
async def _snapshot(url: str) -> AsyncIterator[Tx]:
    """A read-only transaction that sees one moment, and may take as long as it needs."""
    db = Database(url, pool=2, name="waybill-doctor", session=NO_TIME_LIMITS)
    try:
        async with db.statement() as tx:
            if not await schema.is_current(tx):
                raise BadSetting("the database is not at this version's revision: run `python -m cli migrate` first")
        async with db.engine.connect() as tx:
            await tx.execute(text("set transaction isolation level repeatable read, read only"))
            yield tx
    finally:
        await db.close()


def _tell(area: str, checks: int, found: Sequence[Finding]) -> None:
    print(f"{area:<9} {checks - len(found)} of {checks} hold")
    for finding in found:
        print(f"  BROKEN: {finding.check}: {finding.broken} row{'s' if finding.broken > 1 else ''}")
        for row in finding.rows:
            print("    " + ", ".join(f"{name}={value}" for name, value in row.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
