"""`python -m migrations`: bring the database at `WAYBILL_DATABASE_URL` to the newest revision."""

import os
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config

from shared.db import driver_url


def config(url: str) -> Config:
    """Alembic's configuration for this folder; there is no ini file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.attributes["url"] = driver_url(url)
    return made


def main() -> int:
    """Upgrade to head; a second process waits for the first. Returns the exit code."""
    url = os.environ.get("WAYBILL_DATABASE_URL", "")
    if not url:
        print("WAYBILL_DATABASE_URL is not set", file=sys.stderr)
        return 2
    command.upgrade(config(url), "head")
    return 0


if __name__ == "__main__":
    sys.exit(main())
