"""Every anomaly that `fsck` knows: its word, who has to do something about it, what it means, what a repair does."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """Who has to do something about an anomaly: nobody, the next sweep, a repair, or a person."""

    NOTE = "note"
    HEALS = "heals"
    REPAIR = "repair"
    PERSON = "person"


class Kind(NamedTuple):
    """One kind of anomaly.

    Attributes:
        means: what it is, and which crash or which stranger leaves it.
        repair: what `--repair` does; empty if it does nothing.
    """

    level: Level
    means: str
    repair: str = ""


class Anomaly(NamedTuple):
    """One thing that is not as the protocol says, or worth a note.

    Attributes:
        kind: a word of `KINDS`, which stays the same in later versions.
        path: where, relative to the bus.
        id: of which task; empty if it is of none.
        detail: what was found there.
        other: a second path that it is about, such as where the task belongs.
    """

    kind: str
    path: str
    id: str = ""
    detail: str = ""
    other: str = ""

    @property
    def level(self) -> Level:
        """Who has to do something about it."""
        return KINDS[self.kind].level

    @property
    def means(self) -> str:
        """What it is, and what leaves it."""
        return KINDS[self.kind].means

    @property
    def repair(self) -> str:
        """What `--repair` does about it; empty if nothing."""
        return KINDS[self.kind].repair


_N, _H, _R, _P = Level
_ASIDE = "moves it to quarantine/, with its reason beside it"
# What a sweep mends; a repair then makes one.
SWEEP = "sweeps"

KINDS: dict[str, Kind] = {
    # --- the bus as a whole
    "format": Kind(
        _P, "bus.json names a format that this version does not know, so nothing else was looked at: use the version "
        "of mcp-bus that made the bus, or a newer one"
    ),
    "no-bus-json": Kind(
        _R, "bus.json is missing or cannot be read, so that mcp-bus takes the folder for no bus: somebody removed or "
        "cut it", "puts the bytes aside and writes it anew, with the id that it had where that is known"
    ),
    "missing-folder": Kind(_N, "a folder is missing that is made when it is needed", "makes it"),
    "lost-folder": Kind(
        _R, "a folder is missing without which what belongs to it is not seen: somebody removed it", "makes it"
    ),
    "symlink-folder": Kind(
        _P, "a symlink has the name of a folder of the bus; nothing follows it, so what is behind it is not on the "
        "bus: move the folder itself there"
    ),
    "in-the-way": Kind(
        _R, "something else has the name of a file or folder of the bus, and stops what needs that: somebody put it "
        "there", _ASIDE
    ),
    "stranger": Kind(_N, "the name is none of the bus's, and it is left alone: somebody put it there"),
    "foreign": Kind(
        _H, "the name is none that the bus makes, in a folder that workers read: a message that was put there by hand, "
        "which a sweep takes in, or something else, which it moves to quarantine/", SWEEP
    ),
    "mode": Kind(
        _R, "somebody whose bus it is may not read, write or enter it: an umask, a chmod, or a program that knows "
        "nothing of the bus",
        "gives what you own, and has no name outside the bus, the mode, and on a shared bus the group, that it has to "
        "have"
    ),
    "others-mode": Kind(
        _P, "somebody whose bus it is may not read, write or enter it, or everyone may write it, and it is another "
        "user's: that user, or root, has to mend it"
    ),
    "writable-by-others": Kind(
        _R, "other users may change what is on the bus, and with it what agents are told to do",
        "takes the right away from them"
    ),
    "readable-by-others": Kind(
        _N, "other users may read what is on the bus; `chmod 700` on the bus ends that"
    ),
    "owner": Kind(
        _P, "it belongs to another user than the bus, which is private, and that user may change it: have root "
        "`chown -R` the bus to its user, or move it away"
    ),
    "acl": Kind(
        _P, "it has an access control list, which lets in or keeps out others than the group that shares the bus, "
        "whatever its mode says: its owner takes that away with `setfacl -b -k`"
    ),
    # --- tasks
    "bad-body": Kind(
        _R, "under a task's name are bytes that are no message: cut off, damaged, or no regular file", _ASIDE
    ),
    "wrong-id": Kind(_R, "the message has another id than its name says: somebody renamed or copied a file", _ASIDE),
    "misnamed": Kind(
        _R, "the task's own file has a name that means nothing where it is: somebody renamed or moved it", _ASIDE
    ),
    "wrong-channel": Kind(
        _R, "the message is addressed to another channel than the one it is in: somebody moved or copied a file",
        "moves it to its channel if the task is nowhere else, else to quarantine/"
    ),
    "orphan": Kind(
        _R, "the task has an identity, and is in no state: its state file was removed, or a power cut took the name; "
        "it also heals at the next start of the machine, or when somebody asks for it",
        "puts it where it started; it may be worked on again"
    ),
    "put-aside": Kind(
        _N, "the task was refused when it was to be handed out, and lies in quarantine/, for a person to look at: its "
        "signature is missing or does not hold, or its sender may not post there; it stays there, and if the work is "
        "wanted it is posted anew"
    ),
    "done-without-name": Kind(
        _R, "the task has its result, and its name in the archive is gone: somebody removed it",
        "gives it the name that the result says"
    ),
    "tombstoned": Kind(
        _R, "the task was pruned, and its identity is still there: a prune was cut off and its trail removed", _ASIDE
    ),
    "lost-identity": Kind(
        _R, "the task is in a state, and has no identity: somebody removed it from tasks/", "links it there again"
    ),
    "new-message": Kind(
        _N, "a message that was put here by hand waits to be taken in, which the next sweep does", SWEEP
    ),
    "split": Kind(
        _R, "two names of one task are two files with the same bytes: the bus, or a file, was copied without its hard "
        "links", "makes them one file again"
    ),
    "other-body": Kind(
        _R, "the state file holds another message than was posted under that id: somebody wrote over one of them",
        "moves it to quarantine/ and puts what was posted in its place"
    ),
    "two-places": Kind(
        _R, "the task is in two states: somebody linked or copied a file, or a disk was restored in part",
        "keeps the one that is farther on, and moves this one to quarantine/"
    ),
    "second-body": Kind(
        _R, "beside the task itself lies a copy of it, or another message under its id: somebody copied a file", _ASIDE
    ),
    "shared-aside": Kind(
        _R, "what was put aside is still the same file as a task, whose names are counted", "makes it a file of its own"
    ),
    "extra-link": Kind(
        _N, "the task's file has more names than the bus gave it: a backup by hard links, or somebody's link"
    ),
    "post-cut-off": Kind(_H, "a post was cut off after the task was certain; a sweep goes on with it", SWEEP),
    "draft": Kind(_N, "a draft whose writer is still at it, or died; a sweep removes it after an hour"),
    "pruning": Kind(_H, "a prune was cut off; a sweep goes on with it", SWEEP),
    "lease-over": Kind(_N, "the lease ended and was not renewed: its worker died; a sweep takes it back", SWEEP),
    # --- keys
    "key-missing": Kind(
        _R, "the task's idempotency key is gone, so that repeating its post would make a second task: somebody "
        "removed it", "links it again"
    ),
    "key-taken": Kind(_N, "the task's idempotency key is another task's by now: it was removed and used again"),
    "bad-key": Kind(_R, "a key points to nothing that has that key: somebody damaged or renamed it", _ASIDE),
    "key-alone": Kind(
        _R, "a key has the message, and the task has nothing else: a post was cut off, and its draft removed, or "
        "somebody removed the rest", "gives the task its identity and place again"
    ),
    # --- results and history
    "bad-result": Kind(
        _R, "under a result's name are bytes that are no result of that task: cut off or damaged", _ASIDE
    ),
    "result-astray": Kind(
        _R, "the result is in another channel than its task, which is done and has no other: somebody renamed a "
        "channel's folder, or moved the file", "moves it to the channel of its task"
    ),
    "result-without-task": Kind(_R, "no task of that id is in the channel of the result: it was lost or moved", _ASIDE),
    "result-not-done": Kind(
        _R, "the task has a result, which is final, and its name says that it is not done: abq was cut off, or "
        "somebody moved a file", "moves the task to the archive, as done"
    ),
    "done-without-result": Kind(
        _P, "the task is done and its result is gone: somebody removed or damaged it; look in quarantine/ and "
        "rejected/; `mcp-bus discard` gives it up, and `retry` after that has it done once more"
    ),
    "staged": Kind(_H, "a result was cut off on its way; a sweep carries it on, or to rejected/", SWEEP),
    "history-astray": Kind(
        _N, "the history of a task is in another channel than the task: somebody renamed a channel's folder, or moved "
        "it", "moves it to the channel of its task, if there is none"
    ),
    "dead-without-reason": Kind(_N, "the page that says why the task is dead is missing", "writes it from the history"),
    "stale-reason": Kind(_N, "a page says why a task is dead that is not: a crash, or somebody, left it"),
    "history-without-task": Kind(_N, "a history of a task that is not on the bus: it was being written while the "
                                 "task was pruned, or the task was lost", _ASIDE),
    "bad-history": Kind(
        _N, "a line of history that cannot be read, for instance cut off in a crash; it decides nothing"
    ),
    # --- signatures, on signed channels
    "not-signed": Kind(
        _P, "the task is on a signed channel, and its signature is not there: somebody removed it, or put the message "
        "there; what waits is put aside when it is to be handed out; `cancel` or `discard` ends it, and if the work is "
        "wanted, post it anew"
    ),
    "unverified": Kind(
        _P, "the task's signature does not hold, or not for here and now: somebody altered the message or the "
        "signature, or brought back what was over; what waits is put aside when it is to be handed out; `cancel` or "
        "`discard` ends it, and if the work is wanted, post it anew"
    ),
    "result-unverified": Kind(
        _P, "the task is done, and what is there as its result is not what its worker signed; it is shown to nobody: "
        "look at it, then `mcp-bus discard` gives it up and puts it aside"
    ),
    "forged-result": Kind(
        _R, "the task is not done, and what is there as its result is not what its worker signed: somebody put it "
        "there to end the task", _ASIDE
    ),
    "unknown-result": Kind(
        _N, "the task is not done, and has a result of which it cannot be told here whether its worker signed it; it "
        "is left to who can"
    ),
    "unknown-key": Kind(
        _N, "it is signed with a key that you do not trust to be its agent's; those who do may work on it, and "
        "`mcp-bus key trust` trusts it"
    ),
    # --- what is beside the tasks
    "policy": Kind(
        _P, "the channel's rules cannot be read, so that sweeps leave the channel as it is: put the file right, or "
        "remove it, and the defaults hold"
    ),
    "plan": Kind(
        _P, "the plan cannot be read or was edited, so that it is not moved on: put it right, or cancel what it posted"
    ),
    "record": Kind(
        _R, "a record that cannot be read; who reads it puts it aside, and the revision before it counts", _ASIDE
    ),
    "old-revision": Kind(_N, "an earlier revision of a record, left by a crash; the highest counts"),
    "tombstone": Kind(_N, "a line of a tombstone that was cut off in a crash; the next one says it again"),
    "quarantine": Kind(_N, "bytes that were no messages were put aside for a person to look at"),
    "rejected": Kind(_N, "results that came after their lease was lost are kept for a person to look at"),
}  # fmt: skip
