"""The demo team of a local Waybill, made through the HTTP API like any other; safe to repeat."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from cli.home import Home, read_json, write_private

TEAM, ORGANIZATION, DEMO_GROUP = "acme-corp", "acme", "demo-models"
DEMO_CREDITS = 1000
ALIASES = "/api/model-aliases"


class SeedFailed(RuntimeError):
    """The API refused something the demo team needs."""


@dataclass(frozen=True)
class DemoModel:
    """An alias the demo provider answers; prices in USD per million tokens."""

    alias: str
    pricing_input: float
    pricing_output: float


DEMO_MODELS = (DemoModel("gpt-4", 30.0, 60.0), DemoModel("text-embedding-ada-002", 0.1, 0.0))
REAL_MODELS: Mapping[str, tuple[str, str, Sequence[str]]] = {
    # variable that holds the key: group, provider, models priced in the packaged map
    "OPENAI_API_KEY": (
        "openai-models",
        "openai",
        ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "text-embedding-3-small"),
    ),
    "ANTHROPIC_API_KEY": ("anthropic-models", "anthropic", ("claude-sonnet-5", "claude-haiku-4-5")),
}


@dataclass(frozen=True)
class Demo:
    """What the reader needs to try it: the team's key and the models it may use.

    virtual_key: None when somebody deleted the team, or its organization: it is not made again.
    off_models: variable -> models of an earlier run that are switched off while it is not set.
    """

    virtual_key: str | None
    demo_models: Sequence[str]
    real_models: Sequence[str]
    off_models: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Admin:
    """The admin routes this needs, as create-unless-there."""

    def __init__(self, api_url: str, admin_key: str) -> None:
        self._admin = {"X-Admin-Key": admin_key}
        self._http = httpx.Client(base_url=api_url, timeout=15, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, virtual_key: str | None = None) -> dict[str, Any] | None:
        """The object at `path`; None when it is not there, or the virtual key is not valid."""
        headers = {"Authorization": f"Bearer {virtual_key}"} if virtual_key else self._admin
        answer = self._http.get(path, headers=headers)
        if answer.status_code == 404 or (virtual_key and answer.status_code == 401):
            return None
        return _content(answer)

    def send(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return _content(self._http.request(method, path, json=body, headers=self._admin))

    def ensure(self, path: str, create_path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The object at `path`, made from `body` when it is not there; None when it was there once and was deleted."""
        return self.get(path) or self.create(path, create_path, body)

    def create(self, path: str, create_path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Make what is to be at `path`. None when it was deleted: a team's or organization's id is never free again."""
        answer = self._http.post(create_path, json=body, headers=self._admin)
        name = path.rpartition("/")[2]
        if answer.status_code == 400 and f"'{name}' already exists" in answer.text:
            return None
        return _content(answer)


def _content(answer: httpx.Response) -> dict[str, Any]:
    if not answer.is_success:
        request = answer.request
        raise SeedFailed(f"{request.method} {request.url.path} answered {answer.status_code}: {answer.text[:300]}")
    content = answer.json()
    if not isinstance(content, dict):
        raise SeedFailed(f"{answer.request.url.path} did not answer with an object")
    return content


def seed_demo(api_url: str, admin_key: str, provider_url: str, home: Home, environ: Mapping[str, str]) -> Demo:
    """Make what is missing of the demo team and its models.

    provider_url: base of the demo provider; aliases made for an earlier one follow it, others are left alone.
    Raises SeedFailed when the API refuses, httpx.HTTPError when it does not answer.
    """
    admin = Admin(api_url, admin_key)
    try:
        organization = admin.ensure(
            f"/api/organizations/{ORGANIZATION}",
            "/api/organizations/create",
            {"organization_id": ORGANIZATION, "name": "Acme", "create_default_team": False},
        )
        _ensure_group(admin, DEMO_GROUP, "Answered by the built-in demo provider")
        _ensure_demo_aliases(admin, provider_url, home)
        groups = _ensure_real_groups(admin)
        real = RealAliases(admin, home)
        for variable in REAL_MODELS:
            real.switch_on(variable) if environ.get(variable) else real.switch_off(variable)
        key = None
        if organization is not None:
            key = _ensure_team(admin, home, [DEMO_GROUP, *groups])
            _ensure_default_team(admin, environ)
    finally:
        admin.close()
    return Demo(key, [model.alias for model in DEMO_MODELS], real.on, real.off)


def _ensure_group(admin: Admin, name: str, description: str) -> None:
    body = {"group_name": name, "description": description}
    admin.ensure(f"/api/model-access-groups/{name}", "/api/model-access-groups/create", body)


def _ensure_demo_aliases(admin: Admin, provider_url: str, home: Home) -> None:
    kept = read_json(home.demo)
    for model in DEMO_MODELS:
        body = {
            "alias": model.alias,
            "litellm_model": f"openai/{model.alias}",
            "description": "Answered by the built-in demo provider",
            "access_groups": [DEMO_GROUP],
            "pricing_input": model.pricing_input,
            "pricing_output": model.pricing_output,
            "api_base": provider_url,
            "api_key": "sk-demo-provider",
        }
        path = f"{ALIASES}/{model.alias}"
        there = admin.ensure(path, f"{ALIASES}/create", body)
        moved = kept.get("provider_url", provider_url) != provider_url
        if moved and there and there.get("api_base") == kept["provider_url"]:
            admin.send("PUT", path, {"api_base": provider_url})
    write_private(home.demo, {**kept, "provider_url": provider_url})


def _ensure_real_groups(admin: Admin) -> list[str]:
    """A group for each provider, empty until its key is there, so that the team holds it from its first day."""
    for variable, (group, _provider, _names) in REAL_MODELS.items():
        _ensure_group(admin, group, f"Uses the server's own {variable}")
    return [group for group, _provider, _names in REAL_MODELS.values()]


class RealAliases:
    """Aliases for the providers whose key is in the environment; no key is stored on them.

    demo.json remembers which of them were made here: others of the same name are the user's, and stay as they are.
    """

    def __init__(self, admin: Admin, home: Home) -> None:
        self._admin, self._home = admin, home
        self._made: dict[str, str] = read_json(home.demo).get("made_models", {})
        self.on: list[str] = []
        self.off: dict[str, Sequence[str]] = {}

    def switch_on(self, variable: str) -> None:
        """Make those of this key that are missing, and put back those that a run without it switched off."""
        group, provider, names = REAL_MODELS[variable]
        for name in names:
            if self._admin.get(f"{ALIASES}/{name}") is None:
                self._note(name, "on")
                body = {"alias": name, "litellm_model": f"{provider}/{name}", "access_groups": [group]}
                self._admin.send("POST", f"{ALIASES}/create", body)
            elif self._made.get(name) == "off":
                self._admin.send("PUT", f"{ALIASES}/{name}", {"active": True})
                self._note(name, "on")
        self.on.extend(names)

    def switch_off(self, variable: str) -> None:
        """Without the key each call would fail; an alias that was given a key of its own works on."""
        _group, _provider, names = REAL_MODELS[variable]
        for name in (name for name in names if name in self._made):
            there = self._admin.get(f"{ALIASES}/{name}")
            if there is None or there["has_api_key"]:
                continue
            if there["active"]:
                self._note(name, "off")
                self._admin.send("PUT", f"{ALIASES}/{name}", {"active": False})
        off = [name for name in names if self._made.get(name) == "off"]
        if off:
            self.off[variable] = off

    def _note(self, name: str, state: str) -> None:
        self._made[name] = state
        write_private(self._home.demo, {**read_json(self._home.demo), "made_models": self._made})


def _ensure_team(admin: Admin, home: Home, groups: list[str]) -> str | None:
    """The demo team and its virtual key, None once it was deleted.

    The key is kept before the team is made, so that a crash loses neither.
    """
    kept = read_json(home.demo)
    key: str = kept.get("virtual_key") or f"sk-{secrets.token_urlsafe(32)}"
    write_private(home.demo, {**kept, "virtual_key": key})
    path = f"/api/teams/{TEAM}"
    team = admin.get(path)
    if team is None:
        body = {"organization_id": ORGANIZATION, "team_id": TEAM, "team_alias": "Acme Corp", "virtual_key": key}
        made = admin.create(
            path, "/api/teams/create", {**body, "access_groups": groups, "credits_allocated": DEMO_CREDITS}
        )
        if made is None:
            return None
        key = made["virtual_key"]
    else:
        missing = [group for group in groups if group not in team["access_groups"]]
        if missing:
            admin.send("PUT", path, {"access_groups": [*team["access_groups"], *missing]})
        if admin.get(path, virtual_key=key) is None:  # this home's key is lost or another home made the team
            key = admin.send("POST", f"{path}/rotate-key", {"grace_s": 0})["virtual_key"]
    write_private(home.demo, {**read_json(home.demo), "virtual_key": key})
    return key


def _ensure_default_team(admin: Admin, environ: Mapping[str, str]) -> None:
    """The team that keys made without naming one belong to."""
    name = environ.get("WAYBILL_DEFAULT_TEAM") or "default"
    body = {"organization_id": ORGANIZATION, "team_id": name, "access_groups": [DEMO_GROUP]}
    admin.ensure(f"/api/teams/{name}", "/api/teams/create", {**body, "credits_allocated": DEMO_CREDITS})
