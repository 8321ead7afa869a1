"""A small OpenAI-compatible server on this machine, so that calls can be made without any account.

/v1/chat/completions, /v1/completions, /v1/embeddings  ModelEndpoint: read, log, script, answer
/v1/models, /health                                    fixed answers
/_control/*                                            only with --control (cli/demo_control.py)
"""

import argparse
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cli.demo_answers import MODELS
from cli.demo_bodies import JSON_TYPE, error_body
from cli.demo_control import control_routes
from cli.demo_desk import LOG_ENTRIES, Desk, Entry
from cli.demo_exchange import COMPLETIONS, EMBEDDINGS, Exchange
from cli.demo_faults import Pace
from cli.demo_texts import Json, last_message
from cli.demo_wire import ClientGone, OpenProtocol, Wire

# Above any client's own idle limit: who closes first would race with the next request.
KEEP_ALIVE_S = 300
BACKLOG = 4096
GROUND_TRUTH_VARIABLE = "WAYBILL_DEMO_GROUND_TRUTH"


class ModelEndpoint:
    """Answers what a model is asked, as an ASGI application of its own: the benchmark measures against it."""

    def __init__(self, desk: Desk, ground_truth_fd: int | None) -> None:
        self.desk = desk
        self.ground_truth_fd = ground_truth_fd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = Wire(scope, receive, send)
        try:
            raw = await wire.read()
        except ClientGone:
            return
        entry, body = self._record(scope, raw)
        try:
            await Exchange(self.desk, wire, entry, body).run()
        except ClientGone:
            self.desk.close(entry, "disconnected")

    def _record(self, scope: Scope, raw: bytes) -> tuple[Entry, Json | None]:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            body = None
        body = body if isinstance(body, dict) else None
        message = last_message(body) if body else ""
        model = str(body.get("model", "")) if body else ""
        entry = self.desk.record(scope["path"], model, message, raw, scope["headers"])
        if self.ground_truth_fd is not None:
            os.write(self.ground_truth_fd, ground_truth_line(entry, body or {}))
        return entry, body


def ground_truth_line(entry: Entry, body: Json) -> bytes:
    client_id = next((value.decode("latin-1") for name, value in entry.headers if name == b"x-client-request-id"), None)
    line = {
        "seq": entry.seq,
        "arrived_at": entry.arrived_at,
        "model": entry.model,
        "client_request_id": client_id,
        "user": body.get("user"),
        "message": entry.message[:200],
    }
    return orjson.dumps(line) + b"\n"


async def list_models(_: Request) -> Response:
    return Response(orjson.dumps({"object": "list", "data": [_model(name) for name in MODELS]}), media_type=JSON_TYPE)


async def get_model(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in MODELS:
        raise HTTPException(404, f"The model '{name}' does not exist")
    return Response(orjson.dumps(_model(name)), media_type=JSON_TYPE)


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "demo"}


async def health(_: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type=JSON_TYPE)


async def http_error(_: Request, error: Exception) -> Response:
    status, message = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "Internal error")
    return Response(orjson.dumps(error_body(status, message)), status, media_type=JSON_TYPE)


def make_app(desk: Desk, *, control: bool, ground_truth_fd: int | None = None) -> Starlette:
    models = ModelEndpoint(desk, ground_truth_fd)
    routes = [
        Route("/v1/chat/completions", models, methods=["POST"]),
        Route(COMPLETIONS, models, methods=["POST"]),
        Route(EMBEDDINGS, models, methods=["POST"]),
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", get_model),
        Route("/health", health),
        *(control_routes(desk) if control else []),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: http_error})


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; connections wait in its backlog until the server runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(BACKLOG)
    return sock


def serve(app: Starlette, sock: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=OpenProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    uvicorn.Server(config).run(sockets=[sock])


def _exit(_signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo-provider", description="A small OpenAI-compatible server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed at start")
    parser.add_argument("--control", action="store_true", help="mount /_control: anybody who reaches it scripts faults")
    parser.add_argument("--delay-s", type=float, default=0.0, help="before every answer")
    parser.add_argument("--chunk-delay-s", type=float, default=0.0, help="after each stream chunk")
    parser.add_argument(
        "--ground-truth",
        type=Path,
        default=os.environ.get(GROUND_TRUTH_VARIABLE) or None,
        help=f"append a line per request to this file before answering (default: ${GROUND_TRUTH_VARIABLE})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, which end every connection at once."""
    args = _parser().parse_args(argv)
    # Uvicorn raises the signal again once it has stopped: that must be exit code 0, not a death by signal.
    signal.signal(signal.SIGTERM, _exit)
    _raise_file_limit()
    truth = args.ground_truth
    truth_fd = os.open(truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if truth is not None else None
    desk = Desk(Pace(seconds=args.delay_s, chunk_seconds=args.chunk_delay_s), LOG_ENTRIES if args.control else 0)
    try:
        sock = listen(args.host, args.port)
    except OSError as error:
        print(f"demo provider cannot listen on {args.host} port {args.port}: {error.strerror}", file=sys.stderr)
        return 1
    shown_host = f"[{args.host}]" if ":" in args.host else args.host
    print(f"demo provider at http://{shown_host}:{sock.getsockname()[1]}/v1", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        serve(make_app(desk, control=args.control, ground_truth_fd=truth_fd), sock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
