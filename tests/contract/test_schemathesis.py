"""Requests made from /openapi.json, good and bad, to a real api: never a 500, and always what it documents."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import schemathesis.openapi
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.case import Case
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api import app
from api.openapi import document
from api.openapi_routes import Documented
from tests.conftest import ADMIN_KEY, ENCRYPTION_KEY
from tests.contract.real_api import TIMEOUT_S, RealApi, running
from tests.contract.routes import NOBODY, ROUTES, named
from tests.servers import Servers

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
SCHEMA = schemathesis.openapi.from_dict(
    document(app.TABLES),
    config=SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}}),
)
FEW, MANY = 6, 200
SHORT_S = 0.01
SECRET_KEY = "contract-secret-key-of-at-least-32-characters"
CALLERS: dict[str, tuple[str, ...]] = {
    "none": ("nobody",),
    "team": ("team",),
    "any": ("team", "admin"),
    "any:w": ("team", "admin"),
    "admin:r": ("admin",),
    "admin:w": ("admin",),
    "owner": ("admin",),
    "session": ("admin",),
}
"""Who is let in; that nobody else is, the sweeps of test_openapi.py show."""


def callers(route: Documented) -> tuple[str, ...]:
    """Who asks. No worker runs here, so that what may be streamed must not be accepted: it would never end."""
    allowed = CALLERS[route.given.access]
    return ("poor",) if route.is_stream else allowed


CASES = [pytest.param(route, caller, id=f"{named(route)} as {caller}") for route in ROUTES for caller in callers(route)]


@pytest.fixture(scope="module")
def real_api(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApi]:
    folder: Path = tmp_path_factory.mktemp("api")
    url = servers.create_database()
    env = {
        "WAYBILL_DATABASE_URL": url,
        "WAYBILL_REDIS_URL": servers.valkey.url(),
        "WAYBILL_ENCRYPTION_KEY": ENCRYPTION_KEY,
        "WAYBILL_SECRET_KEY": SECRET_KEY,
        "WAYBILL_HOME": str(folder),
    }
    with running(env, folder / "api.log", ADMIN_KEY) as api:
        yield api
    servers.drop_database(url)


def requests_for(route: Documented, ids: dict[str, str]) -> st.SearchStrategy[Case]:
    """Good and bad requests, and good ones to things that exist."""
    operation = SCHEMA[route.template][route.method]
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    if not route.path_parameters:
        return good | bad
    known = {name: ids.get(name, NOBODY) for name in route.path_parameters}
    return operation.as_strategy(generation_mode=GenerationMode.POSITIVE, path_parameters=known) | good | bad


def ask(api: RealApi, route: Documented, caller: str, examples: int) -> None:
    """Send generated requests and hold every answer against the document."""
    needs_worker = route.is_stream or route.template.endswith("/test")
    ids = {} if needs_worker else api.ids(route.path_parameters, caller)

    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=requests_for(route, ids))
    def each(case: Case) -> None:
        wait = (case.query or {}).get("wait")
        if isinstance(wait, int | float) and not isinstance(wait, bool) and wait > SHORT_S:
            case.query["wait"] = SHORT_S  # what is waited for never comes here
        answer = case.call(base_url=api.url, headers=api.headers[caller], session=api.session, timeout=TIMEOUT_S)
        case.validate_response(answer, checks=CHECKS)

    each()


@pytest.mark.parametrize(("route", "caller"), CASES)
def test_a_few_requests(real_api: RealApi, route: Documented, caller: str):
    ask(real_api, route, caller, FEW)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("route", "caller"), CASES)
def test_many_requests(real_api: RealApi, route: Documented, caller: str):
    ask(real_api, route, caller, MANY)
