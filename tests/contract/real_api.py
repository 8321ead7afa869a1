"""An api process on the real servers, spoken to without asyncio, and things for requests to do anything to."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from cli.spawn import free_port
from tests.api.admin import unique
from tests.programs import Program

TIMEOUT_S = 20
MESSAGES = [{"role": "user", "content": "x"}]


@dataclass(frozen=True)
class RealApi:
    """`headers` of each caller; the team `asking` is never the one that `ids` names, `poor` has no credits."""

    url: str
    headers: dict[str, dict[str, str]]
    asking: str
    group: str
    session: requests.Session

    def make(self, path: str, body: dict[str, Any], caller: str = "admin", **headers: str) -> dict[str, Any]:
        """The object that this POST makes."""
        return posted(self.session, f"{self.url}/api{path}", body, {**self.headers[caller], **headers})

    def ids(self, names: list[str], caller: str) -> dict[str, str]:
        """New things of these names, of the asking team where a team asks."""
        found: dict[str, str] = {}
        for name in names:
            match name:
                case "org_id":
                    found[name] = self.make("/organizations/create", organization())["organization_id"]
                case "team_id":
                    found[name] = (
                        self.asking if caller == "team" else self.make("/teams/create", self.team())["team_id"]
                    )
                case "alias" | "model":
                    found[name] = self.make("/model-aliases/create", alias(access_groups=[self.group]))["alias"]
                case "group_name":
                    body = {"group_name": unique("group")}
                    found[name] = (
                        self.group if caller == "team" else self.make("/model-access-groups/create", body)[name]
                    )
                case "job_id":
                    found[name] = self.make("/jobs/create", {"team_id": self.asking, "job_type": "t"}, "team")[name]
                case "call_id":
                    path, body = f"/jobs/{found['job_id']}/llm-call", {"messages": MESSAGES}
                    found[name] = self.make(path, body, "team", Prefer="respond-async")[name]
                case "file_id" | "batch_id":
                    found[name] = self._of_upload() if name == "file_id" else self._of_lines()
                case "webhook_id" | "replay_id" | "delivery_id":
                    found[name] = self._of_webhooks(name)
        return found

    def _of_webhooks(self, name: str) -> str:
        """A webhook of the asking team that is active, a new delivery, or a new replay, for which it has few places."""
        there = self._listed("webhooks", "/webhooks?status=active")
        body = {"team_id": self.asking, "webhook_url": "http://127.0.0.1:9999/hook"}
        one = there[0] if there and name != "replay_id" else self.make("/webhooks", body, "team")
        if name == "replay_id":
            since = {"id_mode": "same", "since": "2026-01-15T00:00:00Z"}
            one = self.make(f"/webhooks/{one['webhook_id']}/replay", since, "team")
        if name == "delivery_id":
            job = self.make("/jobs/create", {"team_id": self.asking, "job_type": "t"}, "team")["job_id"]
            self.make(f"/jobs/{job}/complete", {"status": "completed"}, "team")
            one = self._listed("deliveries", "/webhooks/deliveries?status=pending")[0]
        return str(one[name])

    def _of_upload(self) -> str:
        """A new file of the asking team."""
        answer = self.session.post(
            f"{self.url}/v1/files",
            headers=self.headers["team"],
            data={"purpose": "batch"},
            files={"file": ("in.jsonl", b"{}")},
            timeout=TIMEOUT_S,
        )
        assert answer.ok, answer.text
        return str(answer.json()["id"])

    def _of_lines(self) -> str:
        """A new batch of the asking team, which nobody checks."""
        line = {"custom_id": "1", "body": {"messages": MESSAGES}}
        body = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [line]}
        return str(posted(self.session, f"{self.url}/v1/batches", body, self.headers["team"])["id"])

    def _listed(self, things: str, path: str) -> list[dict[str, Any]]:
        answer = self.session.get(f"{self.url}/api{path}", headers=self.headers["team"], timeout=TIMEOUT_S)
        assert answer.ok, answer.text
        found: list[dict[str, Any]] = answer.json()[things]
        return found

    def team(self) -> dict[str, Any]:
        """The body of a new team."""
        made = self.make("/organizations/create", organization())["organization_id"]
        return {"organization_id": made, "team_id": unique("team"), "credits_allocated": 100_000}


@contextmanager
def running(env: dict[str, str], log: Path, admin_key: str) -> Iterator[RealApi]:
    """Start an api with these settings and a team that asks."""
    port = free_port()
    answers = {"WAYBILL_PORT": str(port), "WAYBILL_ADMIN_KEY": admin_key, "WAYBILL_DEFAULT_WAIT_S": "0.01"}
    program = Program("api", ("api.main",), {**os.environ, **env, **answers}, log)
    program.start()
    try:
        with requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{port}"
            wait_until_it_answers(session, url)
            yield opened(session, url, admin_key)
        assert program.running, "the api died"
    finally:
        program.kill()


def opened(session: requests.Session, url: str, admin_key: str) -> RealApi:
    headers = {"admin": {"X-Admin-Key": admin_key}, "nobody": {}}
    made = posted(session, f"{url}/api/model-aliases/create", alias(), headers["admin"])
    body = {"group_name": unique("group"), "model_aliases": [made["alias"]]}
    group = posted(session, f"{url}/api/model-access-groups/create", body, headers["admin"])["group_name"]
    api = RealApi(url, headers, unique("asking"), group, session)
    asking = api.make("/teams/create", {**api.team(), "team_id": api.asking, "access_groups": [group]})
    headers["team"] = {"Authorization": f"Bearer {asking['virtual_key']}"}
    poor = api.make("/teams/create", {**api.team(), "credits_allocated": 0, "access_groups": [group]})
    headers["poor"] = {"Authorization": f"Bearer {poor['virtual_key']}"}
    return api


def organization() -> dict[str, Any]:
    """The body of a new organization."""
    return {"organization_id": unique("org"), "name": "x", "create_default_team": False}


def alias(**fields: Any) -> dict[str, Any]:
    """The body of a new alias with a price and a key."""
    prices = {"pricing_input": 1, "pricing_output": 1}
    return {"alias": unique("alias"), "litellm_model": "openai/x", "api_key": "sk-provider", **prices, **fields}


def posted(session: requests.Session, url: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """The object of a successful POST."""
    answer = session.post(url, json=body, headers=headers, timeout=TIMEOUT_S)
    assert answer.ok, answer.text
    made: dict[str, Any] = answer.json()
    return made


def wait_until_it_answers(session: requests.Session, url: str) -> None:
    """Raises AssertionError after half a minute."""
    deadline = time.monotonic() + 30
    while True:
        try:
            assert session.get(f"{url}/health", timeout=5).ok
        except requests.ConnectionError:
            assert time.monotonic() < deadline, "the api does not answer"
            time.sleep(0.05)
        else:
            return
