"""What `waybill up` prints once everything is ready."""

import json
import shlex
from collections.abc import Mapping

from cli.config import OPEN_NETWORKS, Config
from cli.home import Home
from cli.seed import TEAM, Demo


def banner(config: Config, home: Home, env: Mapping[str, str], demo: Demo | None) -> str:
    """Address, keys, logs and, when there is a demo team, a curl line that works when pasted."""
    facts = {"api": config.api_url, "admin key": env["WAYBILL_ADMIN_KEY"]}
    if demo:
        facts |= {"demo team": TEAM if demo.virtual_key else f"{TEAM} was deleted and is not made again"}
        facts |= {"virtual key": demo.virtual_key} if demo.virtual_key else {}
        facts |= {"demo models": ", ".join(demo.demo_models) + " (answered by the built-in demo provider)"}
        if demo.real_models:
            facts |= {"real models": ", ".join(demo.real_models)}
        if demo.off_models:
            off = [f"{', '.join(models)} (until {variable} is set)" for variable, models in demo.off_models.items()]
            facts |= {"switched off": "; ".join(off)}
    workers = f"{env['WAYBILL_WORKERS']}, and {env['WAYBILL_BATCH_WORKERS']} for batches alone"
    facts |= {"workers": workers, "logs": str(home.path / "logs"), "pids, URLs": str(home.run)}
    lines = ["", "Waybill is ready.", ""]
    lines += [f"  {name:<12} {value}" for name, value in facts.items()]
    lines += ["", *_open_networks(env)]
    if demo and demo.virtual_key:
        lines += ["", "Try it:", "", f"  {curl_line(config.api_url, demo.virtual_key)}"]
    lines += ["", 'In a second shell, for the examples of the documents:  eval "$(./waybill env)"']
    return "\n".join([*lines, "", "Ctrl-C stops all of it.", ""])


def _open_networks(env: Mapping[str, str]) -> list[str]:
    told = {"WAYBILL_WEBHOOK_ALLOW_NETS": "Webhooks", "WAYBILL_PROVIDER_ALLOW_NETS": "Providers"}
    return [f"  {told[name]} may be in these private networks: {env[name]} ({name})" for name in OPEN_NETWORKS]


def curl_line(api_url: str, virtual_key: str) -> str:
    """A first job with one question to the demo model, for a POSIX shell: the answer is printed."""
    question = {"model": "gpt-4", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    job = _post(f"{api_url}/api/jobs/create", virtual_key, {"team_id": TEAM, "job_type": "test"})
    call = _post(f"{api_url}/api/jobs/$JOB/llm-call", virtual_key, question)
    return f'JOB=$({job} | sed -E \'s/.*"job_id":"([^"]+)".*/\\1/\'); {call}'


def _post(url: str, virtual_key: str, body: Mapping[str, object]) -> str:
    header = shlex.quote(f"Authorization: Bearer {virtual_key}")
    return f'curl -s "{url}" -H {header} -d {shlex.quote(json.dumps(body))}'
