"""The callback fields of a job or call: defaults, what is out of place, and where the answer points."""

import base64
from collections.abc import Sequence
from typing import Any

import pytest

from shared import callbacks
from shared.callbacks import Callback
from shared.errors import Invalid
from shared.settings import Settings

SETTINGS = Settings(env="development")
SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


async def check(kind: str = "job", **fields: Any) -> Callback | None:
    given = {"url": "https://8.8.8.8/cb", "events": None, "secret": None, "settings": SETTINGS, **fields}
    return await callbacks.checked(kind, **given)


@pytest.mark.parametrize(
    ("kind", "events"),
    [("job", ("job.completed", "job.failed")), ("call", ("call.completed", "call.failed", "call.cancelled"))],
)
async def test_defaults(kind: str, events: tuple[str, ...]):
    assert await check(kind) == Callback(url="https://8.8.8.8/cb", events=events, secret=None)


async def test_no_url_no_callback():
    assert await check(url=None) is None


async def test_given_fields_are_kept():
    assert await check(events=["job.*", "call.failed", "job.progress"], secret=SECRET) == Callback(
        url="https://8.8.8.8/cb", events=("job.*", "call.failed", "job.progress"), secret=SECRET
    )


@pytest.mark.parametrize(
    ("kind", "fields", "loc"),
    [
        ("job", {"url": "https://10.0.0.1/"}, ["callback_url"]),
        ("job", {"url": "nonsense"}, ["callback_url"]),
        ("job", {"url": None, "secret": SECRET}, ["callback_url"]),
        ("job", {"events": []}, ["callback_events"]),
        ("job", {"events": ["job.completed", "batch.completed"]}, ["callback_events", 1]),
        ("job", {"events": ["zzz"]}, ["callback_events", 0]),
        ("job", {"events": ["*"]}, ["callback_events", 0]),
        ("call", {"events": ["job.completed"]}, ["callback_events", 0]),
        ("call", {"events": ["job.progress"]}, ["callback_events", 0]),
        ("job", {"events": ["webhook.endpoint.failing"]}, ["callback_events", 0]),
        ("job", {"events": ["webhook.test"]}, ["callback_events", 0]),
        ("call", {"events": ["*"]}, ["callback_events", 0]),
        ("call", {"secret": "whsec_short"}, ["callback_secret"]),
    ],
)
async def test_refusal_points_at_the_field(kind: str, fields: dict[str, Any], loc: Sequence[str | int]):
    with pytest.raises(Invalid) as refused:
        await check(kind, loc=("body", "calls", 2), **fields)

    (finding,) = refused.value.detail
    assert finding["loc"] == ["body", "calls", 2, *loc]
    assert "10.0.0.1" not in str(finding)
