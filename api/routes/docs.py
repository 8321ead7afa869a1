"""/openapi.json and the two pages that show it; everything they load is served from here."""

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api import prefer
from api.http import endpoint
from api.replies import Reply
from api.wire.media import Media
from shared.errors import NotFound

STATIC = Path(__file__).parent.parent / "static"
MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
FILES = {
    "swagger-ui.css": "swagger-ui/swagger-ui.css",
    "swagger-ui-bundle.js": "swagger-ui/swagger-ui-bundle.js",
    "redoc.standalone.js": "redoc/redoc.standalone.js",
    "docs.js": "pages/docs.js",
    "redoc.js": "pages/redoc.js",
    "page.css": "pages/page.css",
}
"""What a page may load, and where it lies under `static`."""

EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""The hash of nothing: redoc makes an empty <style> and fills it through the DOM, which a policy does not restrict."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' {styles}; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDED = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
A_YEAR = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file with the digest that its URL holds, so that it may be kept for ever."""

    body: bytes
    digest: str
    media_type: str


@endpoint("none", answers=dict[str, Any])
async def openapi_json(request: Request) -> Response | Reply:
    """This document."""
    found = await asyncio.to_thread(request.app.state.openapi)
    headers = {"ETag": found.etag, "Cache-Control": "no-cache"}
    if prefer.matches(request, found.etag):
        return Reply(status=304, headers=headers)
    return Response(found.body, media_type="application/json", headers=headers)


@endpoint("none", answers=Media("text/html"))
async def swagger_page() -> Response:
    """The document as a page on which requests can be tried out."""
    return _page("docs.html", styles="")


@endpoint("none", answers=Media("text/html"))
async def redoc_page() -> Response:
    """The document as a page to read."""
    return _page("redoc.html", styles=EMPTY_STYLE)


@endpoint("none", answers=Media("*/*"))
async def static_file(digest: str, name: str) -> Response:
    """A script or a style of these pages."""
    found = _file(name) if name in FILES else None
    if found is None or found.digest != digest:
        raise NotFound("Not Found")
    headers = {"Cache-Control": A_YEAR, **GUARDED}
    return Response(found.body, media_type=found.media_type, headers=headers)


def _page(name: str, *, styles: str) -> Response:
    policy = POLICY.format(styles=styles).replace(" ;", ";")
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache", **GUARDED}
    return Response(_html(name), media_type="text/html", headers=headers)


@cache
def _html(name: str) -> str:
    text = (STATIC / "pages" / name).read_text(encoding="utf-8")
    for file in FILES:
        text = text.replace(f"{{{file}}}", f"static/{_file(file).digest}/{file}")
    return text


@cache
def _file(name: str) -> File:
    body = (STATIC / FILES[name]).read_bytes()
    media_type = MEDIA_TYPES[Path(name).suffix]
    return File(body=body, digest=hashlib.sha256(body).hexdigest()[:16], media_type=media_type)
