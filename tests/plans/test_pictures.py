"""Plans drawn and told: every step is there, and no text of others is more than text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from mcp_bus import conductor, picture, plans, report
from mcp_bus.plan import Stage

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from mcp_bus.report import Row
    from tests.plans.conftest import Poster, Run

EVIL = 'x"]; a --> b\n</svg><script>\x1b[2J```\n## Done'


@pytest.fixture
def run(post: Poster) -> Run:
    made = post("gather", "lint<gather", "count<gather", "report<lint,count", lint={"capability": "lint"})
    made.do("gather", "three files")
    made.fail("count", EVIL)
    return made


def rows(run: Run) -> list[Row]:
    return report.rows(run.bus, *plans.progress(run.bus, run.plan.id))


@pytest.mark.parametrize("form", picture.FORMATS)
def test_a_picture_has_every_step_and_no_line_of_others(run: Run, form: str) -> None:
    drawn = picture.draw(form, EVIL, rows(run))
    for step in run.plan.steps:
        assert step.name in drawn
    assert "\x1b" not in drawn
    assert "<script>" not in drawn or form == "tree", "a terminal knows no tags"
    assert "a --> b" not in re.sub(r'"[^"]*"', "", drawn) or form == "tree"


def test_a_mermaid_picture_has_a_node_and_an_edge_for_each(run: Run) -> None:
    drawn = picture.mermaid("goal", rows(run)).splitlines()
    assert drawn[:4] == ["---", 'title: "goal"', "---", "flowchart LR"]
    assert len([line for line in drawn if re.match(r'    s\d\["[a-z]+<br>[a-z]+"\]:::[a-z]+$', line)]) == 4
    edges = [line.strip() for line in drawn if "-->" in line]
    assert sorted(edges) == ["s0 --> s1", "s0 --> s2", "s1 --> s3", "s2 --> s3"]


def test_an_svg_is_well_formed_and_its_boxes_do_not_overlap(run: Run) -> None:
    root = ET.fromstring(picture.svg(EVIL, rows(run)))  # noqa: S314  our own text
    boxes = [item for item in root.iter("{http://www.w3.org/2000/svg}rect") if item.get("rx")]
    places = {(item.get("x"), item.get("y")) for item in boxes}
    assert len(places) == len(boxes) == 4
    assert len(root.findall("{http://www.w3.org/2000/svg}path")) == 4


def test_a_tree_names_each_step_once_with_how_it_stands(run: Run) -> None:
    drawn = picture.tree("goal", rows(run))
    assert re.search(r"✓ gather  done  by ann", drawn)
    assert re.search(r"○ lint  ready", drawn)
    assert re.search(r"✗ count  failed", drawn)
    assert re.search(r"· report  waiting  \(also after count\)", drawn)
    assert len(drawn.splitlines()) == 5


def test_a_report_has_results_in_blocks_and_gaps_by_name(run: Run, bus: Bus) -> None:
    text = report.synthesis(bus, *plans.progress(bus, run.plan.id))
    assert "running: 1 of 4 steps done." in text
    assert "- **count** failed: `failed: " in text
    assert "## gather" in text
    assert "```\nthree files\n```" in text
    run.do("lint", "```\n## Done\n````", "lint")
    text = report.synthesis(bus, *plans.progress(bus, run.plan.id))
    assert "`````\n```\n## Done\n````\n`````" in text, "a result cannot end its block"


def test_what_no_worker_could_do_is_the_list_of_what_to_build(run: Run, bus: Bus) -> None:
    plan, progress = plans.progress(bus, run.plan.id)
    assert report.missing(plan, progress) == []
    skipped = progress.nodes["lint"]._replace(stage=Stage.SKIPPED, why="worker_absent: nobody")
    assert report.missing(plan, progress._replace(nodes={**progress.nodes, "lint": skipped})) == ["lint"]


def test_a_step_that_was_just_done_waits_for_nobody(post: Poster, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    run = post("a", "b", b={"verify": ["x"]})
    with monkeypatch.context() as patch:
        patch.setattr(bus, "_followed", lambda task: task)  # Nobody has moved the plan on yet.
        run.do("a")
        run.do("b")
    shown = {row.step.name: row.stage for row in report.rows(bus, *plans.progress(bus, run.plan.id))}
    assert shown == {"a": "released", "b": "released"}
    shown = {row.step.name: row.stage for row in report.rows(bus, *conductor.advance(bus, run.plan.id))}
    assert shown == {"a": "done", "b": "unverified"}
