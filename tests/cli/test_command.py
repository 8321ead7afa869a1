"""`./waybill`, the command of the documents: it runs from anywhere, says what it lacks, and has what they name."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.home import Home, write_private

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "waybill"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "client").glob("*.md")]


def told(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """What a program says in this folder, in an environment that has only this."""
    given: Mapping[str, str] = {"PATH": "/usr/bin:/bin", **env}
    return subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, timeout=30, check=False)


def test_in_a_fresh_clone_it_says_what_to_run_first(tmp_path: Path) -> None:
    shutil.copy(COMMAND, tmp_path)
    ended = told(tmp_path / "waybill", "doctor", cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f'make -C "{tmp_path}" venv' in ended.stderr


def test_the_shell_gets_address_and_keys_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()  # a package of ours by its name, which must not be taken for it
    (tmp_path / "link").symlink_to(COMMAND)
    home = Home(tmp_path / "home")
    home.prepare()
    write_private(home.run, {"api_url": "http://127.0.0.1:8130"})
    write_private(home.keys, {"admin_key": "it's an admin"})
    write_private(home.demo, {"virtual_key": "sk-demo"})
    script = 'eval "$(./link env)"; echo "$WAYBILL_URL $WAYBILL_KEY $WAYBILL_ADMIN_KEY"'
    ended = told("sh", "-euc", script, cwd=tmp_path, WAYBILL_HOME="home")
    assert ended.stdout == "http://127.0.0.1:8130 sk-demo it's an admin\n", ended.stderr


def test_the_shell_gets_nothing_when_nothing_runs(tmp_path: Path) -> None:
    ended = told(COMMAND, "env", cwd=tmp_path, WAYBILL_HOME="home")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"no Waybill runs from {tmp_path}/home: start one with `make up`" in ended.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_documents_name_commands_that_exist(page: Path) -> None:
    text = page.read_text()
    for command in set(re.findall(r"\./waybill ([a-z][a-z-]*)", text)):
        assert told(COMMAND, command, "--help", cwd=ROOT).returncode == 0, command
    outside_a_container = re.findall(r"^.*python3? -m (?:cli|migrations)\b.*$", text, re.MULTILINE)
    assert not [line for line in outside_a_container if "docker compose" not in line]


def test_the_shell_lines_for_receivers_run_as_printed() -> None:
    [script] = re.findall(r"```sh\n(.*?)```", (ROOT / "client" / "README.md").read_text(), re.DOTALL)
    ended = told("sh", "-euc", script, cwd=ROOT)
    assert ended.stdout.endswith("believed\n"), ended.stderr
