"""`waybill listen`: webhooks on your own machine, from the event log instead of through a tunnel."""

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from cli.listener import CannotListen, Listener
from shared import signing
from shared.signing import new_webhook_secret

STOPPED, REFUSED = 0, 1
PORT = re.compile(r"\d+(/|$)")
"""Where `--forward` may begin when this machine is meant."""

EPILOG = """\
Events are posted in the order of the log, each signed as Waybill signs webhooks (Standard Webhooks 1.0.0).
One that is not answered with 2xx is posted again until it is, so that none is lost; --keep-going goes on instead.
"""


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Forward until Ctrl-C. Returns 0 then, 1 when the api refuses."""
    parser = _parser(environ)
    asked = parser.parse_args(argv)
    if not asked.key or not asked.key.isascii():
        parser.error("give the team's virtual key with --key or in WAYBILL_KEY")
    try:
        asyncio.run(_listen(asked))
    except CannotListen as error:
        sys.stderr.write(f"waybill: {error}\n")
        return REFUSED
    return STOPPED


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="waybill listen",
        description="Post a team's events, signed, to a URL on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    local = f"http://127.0.0.1:{environ.get('WAYBILL_PORT') or 8003}"
    add = parser.add_argument
    add(
        "--forward",
        required=True,
        type=local_url,
        metavar="URL",
        help="where to post: a URL, host:port/path, or port/path on this machine",
    )
    add(
        "--url",
        type=local_url,
        default=environ.get("WAYBILL_URL") or local,
        help="the api (WAYBILL_URL; default: %(default)s)",
    )
    add("--key", default=environ.get("WAYBILL_KEY"), help="a virtual key of the team (WAYBILL_KEY)")
    add("--events", type=_names, default=(), metavar="TYPES", help="only these types, as in job.*,call.failed")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--since", metavar="TIME", help="begin with the events from this ISO time on, not with new ones")
    start.add_argument("--after", metavar="EVENT", help="begin behind this event (evt_...)")
    add("--resume", type=Path, metavar="FILE", help="keep the last event done with in FILE, and begin behind it")
    add("--secret", type=_secret, help="sign with this whsec_... instead of a new one")
    add("--keep-going", action="store_true", help="go on to the next event when one is not answered with 2xx")
    return parser


async def _listen(asked: argparse.Namespace) -> None:
    secret = asked.secret or new_webhook_secret()
    begun = asked.after or _kept(asked.resume)
    async with (
        httpx.AsyncClient(base_url=asked.url, headers={"Authorization": f"Bearer {asked.key}"}, trust_env=False) as api,
        httpx.AsyncClient(trust_env=False) as local,
    ):
        listener = Listener(
            api=api,
            local=local,
            url=asked.forward,
            secret=secret,
            say=_say,
            types=asked.events,
            since=None if begun else asked.since,
            cursor=begun,
            keep_going=asked.keep_going,
        )
        if asked.resume is not None:
            listener.moved = lambda cursor: _keep(asked.resume, cursor)
        _say(f"forwarding {asked.url} to {asked.forward}" + ("" if asked.secret else f", signed with {secret}"))
        await _until_stopped(listener)
    _say(f"stopped; go on with --after {listener.cursor}" if listener.cursor else "stopped")


async def _until_stopped(listener: Listener) -> None:
    """Run until Ctrl-C or SIGTERM. Raises CannotListen."""
    work = asyncio.create_task(_work(listener))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with suppress(asyncio.CancelledError):
        await work


async def _work(listener: Listener) -> None:
    if listener.cursor is None and listener.since is None:
        await listener.skip()
    else:
        await listener.look()
    _say("ready (Ctrl-C stops)")
    await listener.run()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _kept(file: Path | None) -> str | None:
    """The event that an earlier run wrote down."""
    if file is None or not file.exists():
        return None
    return file.read_text(encoding="utf-8").strip() or None


def _keep(file: Path, cursor: str) -> None:
    """Whole or not at all: a run that is killed in between leaves the cursor before."""
    fresh = file.with_name(file.name + ".fresh")
    fresh.write_text(cursor + "\n", encoding="utf-8")
    fresh.replace(file)


def local_url(text: str) -> str:
    """`3000`, `3000/hook`, `localhost:3000/hook` or a whole URL as a URL. Raises ArgumentTypeError."""
    url = text if "://" in text else f"http://{text}"
    if PORT.match(text):
        url = f"http://localhost:{text}" if "/" in text else f"http://localhost:{text}/"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # A bare number would be an address in decimal: nobody's machine that was meant.
        is_good = parts.scheme in {"http", "https"} and bool(host) and not host.isdecimal() and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise argparse.ArgumentTypeError(f"not a URL: {text}")
    return url


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _secret(text: str) -> str:
    try:
        signing.secret_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
