"""`python -m migrations`: bring the database at `WAYBILL_DATABASE_URL` to the newest revision."""

import os
from pathlib import Path

from alembic import command
from alembic.config import Config

from shared.db import driver_url
from shared.read_settings import BadSetting, check_database_url, end_with
from shared.servers import check_postgres


def config(url: str) -> Config:
    """Alembic's configuration for this folder; there is no ini file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.attributes["url"] = driver_url(url)
    return made


def main() -> None:
    """Upgrade to head; a second process waits for the first."""
    url = os.environ.get("WAYBILL_DATABASE_URL", "")
    try:
        check_database_url(url)
        check_postgres(url)
    except BadSetting as error:
        end_with(error)
    command.upgrade(config(url), "head")


if __name__ == "__main__":
    main()
