"""`waybill reseal`: after it the old key can be dropped, whatever was sealed with it."""

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from shared import sealed_columns, tables
from shared.db import hot
from shared.runtime import Runtime
from shared.sealer import CannotOpen, Sealer
from tests import scene as scenes
from tests.api.admin import made
from tests.conftest import ENCRYPTION_KEY
from tests.scene import HELLO, Scene

NEW_KEY = base64.b64encode(b"n" * 32).decode()
RING = f"{NEW_KEY},{ENCRYPTION_KEY}"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"w" * 32).decode()
CALLBACK = {"callback_url": "http://127.0.0.1:9999/hook", "callback_secret": WEBHOOK_SECRET}


@pytest.fixture
def settings(settings, fresh_database_url):
    return settings.model_copy(update={"database_url": fresh_database_url})


@pytest.fixture
async def filled(runtime: Runtime) -> AsyncIterator[Scene]:
    """Something in every sealed column, put there by the product itself."""
    async with scenes.opened(runtime) as scene:
        team = await scene.team(alias={"api_key": "sk-alias"})
        organization = (await scene.row("select organization_id as id from teams")).id
        credential = {"organization_id": organization, "provider": "openai", "credential_name": "main"}
        made(await scene.api.post("/provider-credentials/create", {**credential, "api_key": "sk-credential"}))
        webhook = {"team_id": team.id, "webhook_url": "http://127.0.0.1:9999/hook", "auth_header": "Bearer x"}
        endpoint = made(await team.post("/webhooks/register", {**webhook, "headers": {"x-own": "y"}}))
        made(await team.post(f"/webhooks/{endpoint['webhook_id']}/rotate-secret"))
        job = await team.job(calls=[{"messages": HELLO, **CALLBACK}], **CALLBACK)
        assert job["callback"] is not None
        answered = await team.post("/jobs/create", {"team_id": team.id, "job_type": "t"}, Idempotency_Key="k-1")
        assert answered.status_code == 200
        yield scene


def reseal(url: str, keys: str = RING) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "WAYBILL_DATABASE_URL": url, "WAYBILL_ENCRYPTION_KEY": keys}
    command = [sys.executable, "-m", "cli", "reseal"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


async def secrets(scene: Scene, sealer: Sealer) -> dict[str, str]:
    """Every value of every sealed column that this sealer opens."""
    found: dict[str, str] = {}
    async with scene.rt.db.statement() as tx:
        for column in sealed_columns.COLUMNS:
            sql = f"select {column.key} as key, {column.column} as value from {column.table}"
            for row in await hot(tx, sql):
                if row.value is not None:
                    purpose = column.purpose(row.key)
                    found[purpose] = sealer.open(row.value, purpose=purpose)
    return found


def test_every_sealed_column_is_known():
    there = {
        f"{table.name}.{column.name}"
        for table in tables.metadata.sorted_tables
        for column in table.columns
        if column.name.endswith("_sealed")
    }
    assert {f"{column.table}.{column.column}" for column in sealed_columns.COLUMNS} | set(
        sealed_columns.LEFT_TO_EXPIRE
    ) == there


async def test_after_it_the_newest_key_alone_opens_everything(filled: Scene):
    url = filled.rt.settings.database_url
    before = await secrets(filled, filled.rt.sealer)
    assert {purpose.split(":")[0] for purpose in before} == {
        column.purpose("").rstrip(":") for column in sealed_columns.COLUMNS
    }

    ended = await asyncio.to_thread(reseal, url)
    assert ended.returncode == 0, ended.stderr
    assert await secrets(filled, Sealer(NEW_KEY)) == before
    for column in sealed_columns.COLUMNS:
        assert f"{column.table}.{column.column}: 0 sealed anew" not in ended.stdout
    assert "1 kept answers need an older key until they expire" in ended.stdout

    again = await asyncio.to_thread(reseal, url)
    assert again.returncode == 0
    assert again.stdout.count(": 0 sealed anew, 0 not opened") == len(sealed_columns.COLUMNS)


async def test_what_no_key_opens_is_named_and_left_alone(filled: Scene):
    [row] = await filled.rows("select alias from model_aliases")
    foreign = Sealer(base64.b64encode(b"f" * 32).decode()).seal("sk-x", purpose=f"model_aliases.api_key:{row.alias}")
    await filled.rows("update model_aliases set api_key_sealed = :value returning alias", value=foreign)

    ended = await asyncio.to_thread(reseal, filled.rt.settings.database_url)
    assert ended.returncode == 1
    assert f"model_aliases.api_key_sealed of {row.alias} opens with no key" in ended.stderr
    assert "sk-x" not in ended.stderr + ended.stdout
    assert (await filled.row("select api_key_sealed as value from model_aliases")).value == foreign
    team = await filled.row("select id, callback_secret_sealed as value from teams")
    assert Sealer(NEW_KEY).open(team.value, purpose=f"teams.callback_secret:{team.id}").startswith("whsec_")


async def test_steps_take_up_where_the_one_before_ended(filled: Scene):
    for n in range(5):
        await filled.api.alias(api_key=f"sk-{n}")
    sealer, taken, after = Sealer(RING), [], None
    while True:
        async with filled.rt.db.transaction() as tx:
            step = await sealed_columns.step(tx, sealer, sealed_columns.ALIAS_KEY, after=after, limit=2)
        if step is None:
            break
        taken.append(step.resealed)
        after = step.last
    assert taken == [2, 2, 2]
    async with filled.rt.db.transaction() as tx:
        assert await sealed_columns.step(tx, sealer, sealed_columns.ALIAS_KEY, after=None, limit=2) is None


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"WAYBILL_ENCRYPTION_KEY": "short"}, "WAYBILL_ENCRYPTION_KEY must be base64 of 32 bytes"),
        ({"WAYBILL_ENCRYPTION_KEY": ""}, "set WAYBILL_ENCRYPTION_KEY"),
        ({"WAYBILL_DATABASE_URL": "nonsense"}, "WAYBILL_DATABASE_URL must be like"),
    ],
)
def test_what_is_missing_is_told_in_a_line(environ: dict[str, str], told: str, tmp_path: Any):
    given = {"WAYBILL_DATABASE_URL": "postgresql://127.0.0.1:1/x", "WAYBILL_ENCRYPTION_KEY": RING, **environ}
    command = [sys.executable, "-m", "cli", "reseal"]
    ended = subprocess.run(
        command,
        env={**os.environ, "WAYBILL_HOME": str(tmp_path), **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"waybill: {told}")
    assert ended.stderr.count("\n") == 1


def test_a_value_opens_only_in_its_own_row():
    sealer = Sealer(RING)
    first, second = UUID(int=1), UUID(int=2)
    value = sealer.seal("sk", purpose=sealed_columns.CREDENTIAL_KEY.purpose(first))
    assert value.startswith(sealer.newest)
    with pytest.raises(CannotOpen):
        sealer.open(value, purpose=sealed_columns.CREDENTIAL_KEY.purpose(second))
