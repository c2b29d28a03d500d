"""Every example in the docs runs, prints what the page says, and every relative link leads somewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.executed import COMMAND_S, ROOT, Run, Shell, environment, links, problems

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")})


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.timeout(600)  # Each command has its own limit.
@pytest.mark.parametrize("page", [page for page in PAGES if page != ROOT / "README.md"], ids=_named)
def test_the_examples_of_a_page_do_what_it_says(page: Path) -> None:
    assert not (found := problems(page)), "\n\n".join(found)


def test_the_examples_of_the_readme_do_what_it_says_and_work_a_second_time(tmp_path: Path) -> None:
    folder, text = tmp_path / "folder", (ROOT / "README.md").read_text("utf-8")
    folder.mkdir()
    (tmp_path / "home").mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    with Shell(folder, environment(folder), COMMAND_S) as shell:
        for _ in range(2):
            assert not (found := Run("README.md", folder, shell).page(text)), "\n\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert not (gone := list(links(page))), f"{_named(page)} links to what is not there: {', '.join(gone)}"


def test_the_pages_a_reader_starts_with_are_among_them() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} <= {_named(page) for page in PAGES}
