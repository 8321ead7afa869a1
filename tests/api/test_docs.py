"""The pages of /docs and /redoc load nothing that is not ours, under a policy that would not let them."""

import hashlib
import re

import pytest

from api.routes.docs import FILES, STATIC
from tests.scene import Scene

PAGES = ("/docs", "/redoc")
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
NOTHING = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_may_run_only_our_scripts_and_ask_only_us(scene: Scene, path: str):
    page = await scene.client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy.pop("style-src") == ("'self'" if path == "/docs" else f"'self' '{NOTHING}'")
    assert policy == POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", PAGES)
async def test_all_that_a_page_loads_is_here_and_may_be_kept(scene: Scene, path: str):
    page = (await scene.client.get(path)).text
    assert "<style" not in page
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|https?:", page)
    loaded = re.findall(r'(?:src|href)="(static/[^"]+)"', page)
    assert len(loaded) >= 3
    for name in loaded:
        file = await scene.client.get(f"/{name}")
        assert file.status_code == 200
        assert file.headers["content-type"] == {"js": "text/javascript", "css": "text/css"}[name.rpartition(".")[2]] + (
            "; charset=utf-8"
        )
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert file.headers["x-content-type-options"] == "nosniff"
        assert name.split("/")[1] == hashlib.sha256(file.content).hexdigest()[:16]


@pytest.mark.parametrize("name", ["docs.html", "LICENSE", "..", "SHA256SUMS", "%00"])
async def test_nothing_else_is_served(scene: Scene, name: str):
    digest = hashlib.sha256((STATIC / FILES["docs.js"]).read_bytes()).hexdigest()[:16]
    assert (await scene.client.get(f"/static/{digest}/{name}")).status_code == 404
    assert (await scene.client.get("/static/0000000000000000/docs.js")).status_code == 404


def test_vendored_files_are_the_published_ones_and_their_licences_are_here():
    sums = dict(reversed(line.split("  ")) for line in (STATIC / "SHA256SUMS").read_text().splitlines())
    vendored = [path for folder in ("swagger-ui", "redoc") for path in (STATIC / folder).iterdir()]
    assert set(sums) == {path.relative_to(STATIC).as_posix() for path in vendored}
    for path in vendored:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[path.relative_to(STATIC).as_posix()], path
    for folder in ("swagger-ui", "redoc"):
        assert (STATIC / folder / "LICENSE").stat().st_size > 500


def test_the_pages_ask_for_no_check_of_the_document_and_keep_no_credentials():
    script = (STATIC / "pages" / "docs.js").read_text()
    assert "validatorUrl: null" in script
    assert "persistAuthorization: false" in script
    assert "queryConfigEnabled: false" in script
