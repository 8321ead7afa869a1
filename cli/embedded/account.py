"""Who runs Postgres, which refuses to be root or a user without a name: the first way that works here."""

import os
import pwd
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path


def _plain_user() -> int:
    """A user that is not root and that this machine's user list names: nobody, where there is one."""
    users = [entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0]
    return 65534 if 65534 in users or not users else users[0]


USER = _plain_user()


@dataclass(frozen=True)
class Account:
    """prefix: the command that changes who we are; uid: user to start as; owner: whose the files must be."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    owner: int | None = None

    def command(self, *words: str, death_signal: signal.Signals) -> list[str]:
        """The command line that runs `words` as this account; the signal is the one its parent's end sends."""
        return [word.format(death_signal=death_signal.name) for word in self.prefix] + list(words)

    def own(self, path: Path) -> None:
        """Give a file, or a folder and what is in it, to the account."""
        if self.owner is None or path.stat().st_uid == self.owner:
            return
        for entry in (path, *path.rglob("*")):
            os.lchown(entry, self.owner, self.owner)


NAMESPACE = Account(prefix=("unshare", "--user", f"--map-user={USER}", f"--map-group={USER}"), owner=os.geteuid())
SETPRIV = Account(
    prefix=(
        "setpriv",
        f"--reuid={USER}",
        f"--regid={USER}",
        "--clear-groups",
        "--inh-caps=+dac_override",  # the tree may lie under a folder only root may enter
        "--ambient-caps=+dac_override",
        "--pdeathsig={death_signal}",  # changing the user clears the one set before
    ),
    owner=USER,
)
DROP = Account(uid=USER, owner=USER)


def works(account: Account, program: Path, folder: Path) -> bool:
    """Whether this way can run `program` and enter `folder` on this machine."""
    test = ("sh", "-c", 'cd "$2" && exec "$1" --version', "sh", str(program), str(folder))
    try:
        done = subprocess.run(
            account.command(*test, death_signal=signal.SIGKILL),
            capture_output=True,
            timeout=10,
            check=False,
            user=account.uid,
            group=account.uid,
            extra_groups=None if account.uid is None else [],
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def account_for(program: Path, folder: Path) -> Account:
    """The account that can run `program` with its data under `folder`; ourselves where Postgres lets us."""
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return Account()
    for account in (NAMESPACE, SETPRIV, DROP) if os.geteuid() == 0 else (NAMESPACE,):
        if works(account, program, folder):
            return account
    raise RuntimeError(
        "PostgreSQL runs neither as root nor as a user without a name, and no user namespace (unshare), setpriv or"
        f" change of user works here for {program}. Run as another user, or set WAYBILL_DATABASE_URL to a database that"
        " runs already."
    )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
