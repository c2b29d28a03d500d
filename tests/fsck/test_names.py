"""Every name that the package makes at the top of a bus is known: to fsck, and to who makes a bus there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import children, conductor, fsck, pipes, presence, sealed
from mcp_bus.hooks import telling
from mcp_bus.model import PLANS, PROGRESS
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout, outputs, seals
from mcp_bus.workers import logs, runs, supervisor
from tests.security.conftest import CHANNEL, World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes import VirtualSource

KINDS = (
    presence.KIND, telling.KIND, PLANS, sealed.SEALS, PROGRESS, children.KIND, supervisor.KIND, supervisor.STOPS
)  # fmt: skip
MADE = {*KINDS, "cursors", seals.FOLDER, outputs.FOLDER, pipes.FOLDER, runs.FOLDER, logs.FOLDER.split("/")[0]}


def test_none_of_the_names_that_the_package_makes_is_a_stranger(root: Path, disk: Path, source: VirtualSource) -> None:
    world = World(root, disk / "home", source)
    world.key("planner")
    with world.bus() as bus:
        bus.create_channel(CHANNEL, signed=True)
        bus.create_channel("news", kind="topic")
        bus.roster.arrive()
        conductor.post(bus, {"goal": "ship", "steps": [{"name": "a", "body": "x", "channel": CHANNEL}]})
        bus.mail.topics.subscribe("news")
        sweep(bus)
        for kind in KINDS:
            bus.store.records.write(kind, "x", {}, after=0, durable=False)
    for name in MADE:
        (root / name).mkdir(mode=0o700, exist_ok=True)
    assert {path.name for path in root.iterdir()} >= MADE | {*layout.FOLDERS, "boots", "signatures", "plans.signed"}
    assert {path.name for path in root.iterdir()} <= layout.KNOWN
    assert "stranger" not in {item.kind for item in fsck.check(root, source=source).anomalies}
