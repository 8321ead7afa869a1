"""Refuse a virtual environment that would run unknown code whenever its Python starts.

Run by the system's python with -I -S, before the first start of the environment's own: a stolen release needs
only a .pth file, a sitecustomize or a usercustomize to run in every process.
"""

import pathlib
import sys

# Nothing that we lock ships one of these. `.start` files are Python 3.15's successor of `.pth`.
HOOK_SUFFIXES = (".pth", ".start")
HOOK_MODULES = ("sitecustomize", "usercustomize")


def start_hooks(site_packages: pathlib.Path) -> list[str]:
    """Each entry of site-packages that Python would run at every start."""
    return [
        f"{entry}: Python runs this at every start"
        for entry in sorted(site_packages.iterdir())
        if entry.suffix in HOOK_SUFFIXES or entry.name.split(".")[0] in HOOK_MODULES
    ]


def foreign_interpreters(venv: pathlib.Path) -> list[str]:
    """Each bin/python* that is a file of its own: `venv` only links, so a package has put it there."""
    found = sorted((venv / "bin").glob("python*"))
    return [f"{path}: replaced by a package" for path in found if not path.is_symlink()]


def config_faults(venv: pathlib.Path) -> list[str]:
    """A pyvenv.cfg that lets site-packages from outside in, where nothing is locked."""
    settings = dict(_setting(line) for line in (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines())
    if settings.get("include-system-site-packages", "").lower() == "false":
        return []
    return [f"{venv / 'pyvenv.cfg'}: include-system-site-packages is not false"]


def faults(venv: pathlib.Path) -> list[str]:
    """All that is wrong with this environment, one line each; empty when it may start."""
    directories = sorted({path.resolve() for path in venv.glob("lib*/python*/site-packages")})
    if not directories:
        return [f"{venv}: no site-packages there"]
    hooks = [hook for directory in directories for hook in start_hooks(directory)]
    return [*config_faults(venv), *foreign_interpreters(venv), *hooks]


def main(arguments: list[str]) -> int:
    """Exit 0 when the environment named by the one argument may start, 1 with the reasons when not."""
    if len(arguments) != 1:
        print("usage: python3 -I -S tools/check_venv.py VENV", file=sys.stderr)
        return 2
    found = faults(pathlib.Path(arguments[0]))
    for line in found:
        print(f"check_venv: {line}", file=sys.stderr)
    return 1 if found else 0


def _setting(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name.strip(), value.strip()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
