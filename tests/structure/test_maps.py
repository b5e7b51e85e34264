"""The maps agree with the house: what README.md, CONTRIBUTING.md and docs/ point to is there, and so is every room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import source_tree
from structure.test_rooms import LEVELS, ROOMS

ROOT = source_tree.ROOT
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_FILES = [*ROOT.glob("*.py"), *source_tree.python_files(source_tree.TESTS)]
PYTHON_FILES = {path.name for path in [*source_tree.modules().values(), *OTHER_FILES]}
# What a path starts with to be taken for one of this checkout. Gin files are also named as the commands take them.
FOLDERS = ("asr_tf/", "export/", "benchmarks/", "tests/", "docs/", "gin_configs/", ".ci/")
GIN_FOLDERS = ("models/", "scenes/")


def _without_fences(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def paths_named_in(text: str) -> set[str]:
    """The paths in backticks that a page says are in this checkout; those with a PLACEHOLDER are left out."""
    spans = re.findall(r"`([^`\s]+)`", _without_fences(text))
    paths = {span for span in spans if span.startswith(FOLDERS)}
    paths |= {f"gin_configs/{span}" for span in spans if span.startswith(GIN_FOLDERS) and span.endswith(".gin")}
    return {path for path in paths if not re.search(r"\b[A-Z]{2,}\b(?!\.md)", path)}


def files_named_in(text: str) -> set[str]:
    """Python files in backticks without a folder."""
    return set(re.findall(r"`(\w+\.py)`", _without_fences(text)))


def links_of(text: str) -> set[str]:
    """The targets of a page's links and pictures that lie in this checkout, relative to the page."""
    targets = re.findall(r"\]\(([^)\s]+)\)", _without_fences(text))
    return {target.partition("#")[0] for target in targets if not re.match(r"\w+:|#", target)}


def programs_named_in(text: str) -> set[str]:
    """Modules that a page runs as `python -m`, in prose or in a block of code."""
    return set(re.findall(r"-m ((?:asr_tf|benchmarks)(?:\.\w+)+)", text)) - {"benchmarks.NAME"}


def table(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its head, as texts of cells."""
    section = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\|(.+)\|$", section, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def rooms_named_in(cell: str) -> list[str]:
    """The rooms that paths in backticks lie in, in their order: `asr_tf/data/`, `data/`, `scene.py`, `export/`."""
    spans = re.findall(r"`(?:asr_tf/)?(\w+)(?:/[^`]*|\.py)`", cell)
    return [span for span in spans if span in ROOMS]


def is_there(path: str) -> bool:
    """Whether a file or a folder is there; of a pattern, whether anything fits it."""
    if path.endswith("/") and not (ROOT / path).is_dir():
        return False
    return (ROOT / path).exists() or ("*" in path and any(ROOT.glob(path)))


def test_reading_of_pages():
    text = "See `asr_tf/scene.py`, `models/asr.gin`, `docs/RESULTS.md`, `export/DIR/1` and [this](docs/a.md#b).\n"
    text += "```\n`tests/none.py` python -m benchmarks.speed\n```\n[there](https://example.org) [below](#here)\n"
    assert paths_named_in(text) == {"asr_tf/scene.py", "gin_configs/models/asr.gin", "docs/RESULTS.md"}
    assert files_named_in("`scene.py`, `asr_tf/checks.py`") == {"scene.py"}
    assert links_of(text) == {"docs/a.md"}
    assert programs_named_in(text) == {"benchmarks.speed"}
    assert rooms_named_in("`asr_tf/data/`, `fast/sums.py`, `scene.py` and `mine/`") == ["data", "fast", "scene"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_pages_point_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    missing = [path for path in sorted(paths_named_in(text)) if not is_there(path)]
    missing += sorted(files_named_in(text) - PYTHON_FILES)
    missing += [link for link in sorted(links_of(text)) if not (page.parent / link).exists()]
    missing += [name for name in sorted(programs_named_in(text)) if name not in source_tree.modules()]
    assert not missing, f"{page.name} names what isn't there: {', '.join(missing)}"


def test_contributing_lists_the_rooms_in_their_order():
    rows = table(ROOT / "CONTRIBUTING.md", "Where things are")
    assert [tuple(rooms_named_in(row[0])) for row in rows] == list(LEVELS)


def test_readme_points_into_every_room():
    rows = table(ROOT / "README.md", "Where to look")
    named = {room for row in rows for room in rooms_named_in(row[1])}
    assert set(ROOMS) - named == set(), "no row points there"
