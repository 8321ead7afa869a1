"""The documents lead nowhere that does not exist: links, headings, files of the code; decisions have one head."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "client").glob("*.md")]
CODE = "api|bench|cli|client|deploy|migrations|requirements|shared|tests|tools|workers"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_document_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)", text)
    for path, heading in links:
        assert (page.parent / path).exists(), path
        assert not heading or heading in headings(page.parent / path if path else page), f"{path}#{heading}"
    gone = [path for path in re.findall(rf"`((?:{CODE})/[\w./*-]+)`", text) if not list(ROOT.glob(path))]
    assert not gone


def test_decisions_are_numbered_and_dated_alike() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").iterdir())
    assert [int(file.name[:4]) for file in decisions] == list(range(1, len(decisions) + 1))
    for number, file in enumerate(decisions, 1):
        assert re.match(rf"# {number}\. .+\n\nAccepted, \d{{4}}-\d\d-\d\d\.\n\n", file.read_text()), file.name


def headings(page: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    }
