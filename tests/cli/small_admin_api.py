"""The admin routes that the demo team is made through, over a socket, with the books in a dict."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ADMIN_KEY = "the-admin-key"
ID_FIELDS = {
    "organizations": "organization_id",
    "model-access-groups": "group_name",
    "model-aliases": "alias",
    "teams": "team_id",
}


class Books:
    """What was made, and every writing request. deleted: paths whose ids are not free again."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.writes: list[tuple[str, str]] = []
        self.url = ""

    def answer(self, method: str, path: str, body: dict[str, Any], headers: Any) -> tuple[int, dict[str, Any]]:
        kind, _, rest = path.removeprefix("/api/").partition("/")
        if headers["X-Admin-Key"] is None:
            return self._for_team(path, headers["Authorization"] or "")
        if headers["X-Admin-Key"] != ADMIN_KEY:
            return 401, {"detail": "Invalid admin API key"}
        if method != "GET":
            self.writes.append((method, path))
        if rest == "create":
            fresh = {**body, **({"active": True, "has_api_key": "api_key" in body} if kind == "model-aliases" else {})}
            new = f"/api/{kind}/{body[ID_FIELDS[kind]]}"
            if new in self.deleted:
                return 400, {"detail": f"{kind} '{body[ID_FIELDS[kind]]}' already exists"}
            return 200, self.rows.setdefault(new, fresh)
        row = self.rows.get(path.removesuffix("/rotate-key"))
        if row is None:
            return 404, {"detail": "not found"}
        row.update({"virtual_key": "sk-rotated"} if rest.endswith("/rotate-key") else body)
        return 200, row

    def _for_team(self, path: str, authorization: str) -> tuple[int, dict[str, Any]]:
        row = self.rows.get(path, {})
        known = authorization == f"Bearer {row.get('virtual_key')}"
        return (200, row) if known else (401, {"detail": "Invalid API key"})

    def delete(self, path: str) -> None:
        """As an admin would."""
        del self.rows[path]
        self.deleted.add(path)


@contextmanager
def serving() -> Iterator[Books]:
    books = Books()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            status, content = books.answer(self.command, self.path, body, self.headers)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = answer  # noqa: N815 -- the names http.server looks for
        do_POST = answer  # noqa: N815
        do_PUT = answer  # noqa: N815

        def log_message(self, *_args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        books.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield books
        finally:
            server.shutdown()
            thread.join()
