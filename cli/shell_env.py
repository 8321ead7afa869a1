"""`waybill env`: lines for a shell that name the `waybill up` which runs here, and its keys."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.home import Home, read_json

TOLD, NOT_RUNNING = 0, 1


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Print one `export NAME=value` for each variable. Returns 1, and prints none, when nothing runs from the home."""
    _parser().parse_args(argv)
    home = Home(Path(environ.get("WAYBILL_HOME") or ".waybill"))
    api_url = read_json(home.run).get("api_url")
    if not api_url:
        sys.stderr.write(f"waybill: no Waybill runs from {home.path}: start one with `make up`\n")
        return NOT_RUNNING
    told = {
        "WAYBILL_URL": api_url,
        "WAYBILL_KEY": read_json(home.demo).get("virtual_key"),
        "WAYBILL_ADMIN_KEY": environ.get("WAYBILL_ADMIN_KEY") or read_json(home.keys).get("admin_key"),
    }
    for name, value in told.items():
        if value:
            print(f"export {name}={shlex.quote(value)}")
    return TOLD


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="waybill env",
        description="Print what the examples of the documents need, for the shell: the address of the Waybill that "
        "runs here, the demo team's virtual key, the admin key.",
        epilog='Use it so: eval "$(./waybill env)"',
    )
