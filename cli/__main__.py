"""`waybill` on the command line: `./waybill <command>` runs it with .venv's Python, a container `python -m cli`."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="waybill", description="An event-driven job worker system for LLM calls.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="run everything on this machine and stay in the foreground")
    commands.add_parser("env", help="print the address and keys of what `up` runs, for the shell", add_help=False)
    commands.add_parser("migrate", help="bring the database at WAYBILL_DATABASE_URL to the newest revision")
    commands.add_parser("demo-provider", help="run the small OpenAI-compatible server of the demo", add_help=False)
    commands.add_parser("doctor", help="prove the books: balances, holds, costs, usage, events", add_help=False)
    commands.add_parser("reseal", help="seal every secret anew with the newest encryption key", add_help=False)
    commands.add_parser("listen", help="post a team's events, signed, to a URL on this machine", add_help=False)
    asked, rest = parser.parse_known_args(argv)
    if asked.command in OWN_ARGUMENTS:
        return OWN_ARGUMENTS[asked.command](rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return _up() if asked.command == "up" else _migrate()


def _up() -> int:
    from cli.up import up

    return up()


def _migrate() -> int:
    return subprocess.run([sys.executable, "-m", "migrations"], check=False).returncode


def _demo_provider(argv: Sequence[str]) -> int:
    from cli.demo_provider import main as serve

    return serve(argv) or 0


def _doctor(argv: Sequence[str]) -> int:
    from cli.doctor import main as examine

    return examine(argv)


def _reseal(argv: Sequence[str]) -> int:
    from cli.reseal import main as reseal

    return reseal(argv)


def _listen(argv: Sequence[str]) -> int:
    from cli.listen import main as listen

    return listen(argv)


def _env(argv: Sequence[str]) -> int:
    from cli.shell_env import main as tell

    return tell(argv)


OWN_ARGUMENTS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "env": _env,
    "demo-provider": _demo_provider,
    "doctor": _doctor,
    "reseal": _reseal,
    "listen": _listen,
}
"""Commands that read their arguments, and load what they need, themselves."""

if __name__ == "__main__":
    sys.exit(main())
