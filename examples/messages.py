"""Two agents write to each other, through the library: a note, an answer, a topic, and what became of each.

Run it: `python examples/messages.py [BUS_DIRECTORY]`.  Without a directory it makes a temporary bus.

Here both agents are in one process, so that the steps stand in their order; each could as well be a process
on its own, for they share nothing but the directory.  Sending says that a message is queued, and no more:
the trace tells when it was offered and when it was acked, and it is unread again until it was acked.
"""

from __future__ import annotations

import sys
import tempfile
from typing import TYPE_CHECKING

from mcp_bus import Bus, open_bus, trace, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.model import Body

TOPIC = "builds"


def unread(bus: Bus) -> Iterator[Body]:
    """Wait for messages; ack each only when its reader is done with it, so that none is lost to a crash."""
    # Inboxes and topics are folders: these are watched, and looked into when they change.
    channels = [*bus.mail.inboxes, *bus.mail.topics.subscribed()]
    for letter in wait_for(bus, lambda: bus.mail.read() or None, channels=channels, timeout_s=10) or ():
        print(f"{bus.identity.agent} reads {letter.body.content!r} from {letter.body.sender.agent}")
        yield letter.body
        bus.mail.ack([letter.body.id])


def tell(bus: Bus, message: str) -> None:
    """Print what became of a message, for each of its readers: only what can be shown."""
    for reader in trace(bus, message).readers:
        print(f"    {message[-8:]} for {reader.agent}: {', '.join(step.what for step in reader.steps)}")


def main(path: str) -> None:
    """Let ann ask and announce, and bob answer and read."""
    with open_bus(path, agent="ann") as ann, open_bus(path, agent="bob") as bob:
        # `@bob` is always an agent, also one that was never here: the note waits for it.
        question = ann.mail.send("@bob", "which port does the server use?")
        print(f"ann sent {question.id[-8:]} to bob, who has {question.live} live sessions: it waits")
        tell(ann, question.id)
        for body in unread(bob):
            if body.id == question.id:
                # Without a recipient, the answer goes to who wrote what it answers.
                bob.mail.send("", "8080", reply_to=body.id)
        tell(ann, question.id)
        for body in unread(ann):
            print(f"    that answers {body.reply_to[-8:]}")

        # A topic is made by its first subscriber; only what the filter wants is shown.
        bob.mail.topics.subscribe(TOPIC, {"signal": "failed"})
        ann.mail.send(TOPIC, {"signal": "started", "commit": "1f3a90c"}, type="signal")
        failed = ann.mail.send(TOPIC, {"signal": "failed", "commit": "1f3a90c"}, type="signal")
        for _ in unread(bob):
            tell(ann, failed.id)
        tell(ann, failed.id)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(f"{scratch}/bus")
