"""The images hold what they need and no more; above all the api's has no litellm."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


@dataclass
class Stage:
    base: str
    instructions: list[str]


def stages() -> dict[str, Stage]:
    """Each `FROM base AS name`, with its instructions on one line each."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"))
    found: dict[str, Stage] = {}
    for line in text.splitlines():
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            stage = found[start[2]] = Stage(start[1], [])
        elif line and not line.startswith("#"):
            stage.instructions.append(line)
    return found


STAGES = stages()


def lineage(name: str) -> list[str]:
    """The instructions of a stage and of the stages it is based on."""
    stage = STAGES.get(name)
    return [*lineage(stage.base), *stage.instructions] if stage else []


def copied_from(name: str) -> set[tuple[str, str]]:
    """(stage, path) of all that the image takes from other stages."""
    return {
        (copy[1], copy[2]) for line in lineage(name) if (copy := re.fullmatch(r"COPY --from=(\S+) (\S+) \S+", line))
    }


def copied_folders(name: str) -> set[str]:
    """Top-level folders of ours in the image."""
    return {copy[1] for line in lineage(name) if (copy := re.fullmatch(r"COPY (\w+)/ \1/", line))}


def test_the_api_image_never_installs_the_workers_packages():
    assert copied_from("api") == {("api-packages", "/app/.venv"), ("worker-packages", "/app/prices.json")}
    for name in ("api", "api-packages"):
        assert not [line for line in lineage(name) if "worker.lock" in line or "litellm" in line]
    lock = (ROOT / "requirements" / "api.lock").read_text(encoding="utf-8")
    assert not re.search(r"^litellm\b", lock, re.MULTILINE)


def test_both_images_price_from_the_map_they_hold():
    assert "WAYBILL_PRICE_MAP=/app/prices.json" in " ".join(lineage("api"))
    for name in ("api", "worker"):
        assert ("worker-packages", "/app/prices.json") in copied_from(name)


@pytest.mark.parametrize("name", STAGES)
def test_every_install_is_by_hash_and_checked_before_its_python_starts(name: str):
    installs = [line for line in STAGES[name].instructions if re.search(r"\b(pip|uv) .*(install|sync)", line)]
    for line in installs:
        assert len(re.findall(r"pip (?:install|sync)", line)) == line.count("--require-hashes")
    if name.endswith("-packages"):
        assert re.search(r"sync .* && python -I -S tools/check_venv.py /app/.venv && .*--compile-bytecode", installs[0])


@pytest.mark.parametrize("name", ["api", "worker"])
def test_images_run_as_a_user_without_rights_in_production(name: str):
    users = [line.split()[1] for line in lineage(name) if line.startswith("USER ")]
    assert users == ["10001"]
    assert "WAYBILL_ENV=production" in " ".join(lineage(name))


def test_the_api_image_holds_the_operators_commands():
    assert "cli" in copied_folders("api")


@pytest.mark.parametrize("name", OURS)
def test_a_service_finds_its_program_in_its_image(name: str):
    _, flag, module = SERVICES[name]["command"]
    target = SERVICES[name]["build"]["target"]
    assert flag == "-m"
    assert module.split(".")[0] in copied_folders(target)
    source = ROOT.joinpath(*module.split("."))
    assert source.with_suffix(".py").exists() or (source / "__main__.py").exists()


@pytest.mark.parametrize("name", ["api", "worker"])
def test_a_build_sees_what_the_images_copy(name: str):
    allowed = {
        line.removeprefix("!").split("/")[0]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert copied_folders(name) | {"requirements", "tools"} <= allowed
