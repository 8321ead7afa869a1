"""No key and no prompt in a log, in Redis, in an error or in an answer."""

from uuid import uuid4

import redis

from tests.stack import Stack
from tests.team import accepted


async def test_a_providers_key_and_a_prompt_are_seen_by_the_provider_only(stack: Stack):
    team = await stack.team()
    key, prompt = f"sk-canary-{uuid4().hex}", f"prompt-canary-{uuid4().hex}"
    changed = await stack.admin.put(f"/api/model-aliases/{team.alias}", json={"api_key": key})
    seen = [changed.text]
    echo = {"error": {"message": f"Incorrect API key provided: {key}. url https://x.example/?key={key}"}}
    for status in (400, 401, 500):
        await stack.provider.script({"fault": "status", "status": status, "body": echo}, match=prompt, repeat=True)
        job_id = (await team.job())["job_id"]
        answer = await team.ask(job_id, prompt, deadline_s=5)
        assert answer.status_code >= 400
        seen += [answer.text, str(answer.headers)]
        for client in (team.client, stack.admin):
            for path in ("", "/calls", "/costs", f"/calls/{answer.headers['x-call-id']}"):
                seen.append((await client.get(f"/api/jobs/{job_id}{path}")).text)
        await stack.provider.reset()
    await stack.provider.script({"fault": "garbage"}, match=prompt, repeat=True)
    seen.append((await team.ask((await team.job())["job_id"], prompt, deadline_s=5)).text)
    seen.append((await stack.admin.get(f"/api/model-aliases/{team.alias}")).text)
    seen += [file.read_text(errors="replace") for file in stack.folder.glob("*.log") if "provider" not in file.name]

    for text in seen:
        assert key not in text
        assert prompt not in text
    with redis.Redis.from_url(stack.env["WAYBILL_REDIS_URL"]) as client:
        dumped = b"".join(name + (client.dump(name) or b"") for name in client.scan_iter())
    assert key.encode() not in dumped
    assert prompt.encode() not in dumped
    rows = await stack.sql(
        "select a.error_message from attempts a join calls c on c.id = a.call_id where team_id = %s", team.team_id
    )
    assert rows
    assert all(key not in (row.error_message or "") for row in rows)


async def test_secrets_are_sealed_or_hashed_at_rest(stack: Stack):
    team = await stack.team()
    hooks = await stack.receiver()
    await team.register(hooks, ["job.completed"])
    accepted(await stack.admin.get(f"/api/teams/{team.team_id}"))
    for table in ("virtual_keys", "model_aliases", "webhook_endpoints", "teams"):
        rows = await stack.sql(f"select t::text as text from {table} t")
        stored = "\n".join(row.text for row in rows)
        for secret in (team.key, hooks.secret, "sk-demo-provider"):
            assert secret not in stored
            assert secret.encode().hex() not in stored
