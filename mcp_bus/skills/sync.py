"""One synchronization: what is there and here is compared, what is to go there is one push, the rest is written here.

The push is what decides between hosts: a host that comes second looks again, and decides again.  Nothing is written
here before it has succeeded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import Conflict, CorruptRecord, NotFound, StoreUnavailable
from mcp_bus.skills import base, decide, filters, here, there
from mcp_bus.skills.base import Known
from mcp_bus.skills.decide import Step
from mcp_bus.skills.filters import Unfit
from mcp_bus.skills.writing import Changed, Wanted
from mcp_bus.stores.git.repo import Refused
from mcp_bus.stores.git.stream import Change

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from mcp_bus.skills.decide import Blob
    from mcp_bus.skills.here import Skill
    from mcp_bus.skills.writing import Writer
    from mcp_bus.stores.fsops import Fs
    from mcp_bus.stores.git.repo import Repo

TRIES = 10
# Names in a commit's message, at most.
TOLD = 6
# A branch whose name says nothing to a shell.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}\Z")


class Item(NamedTuple):
    """What is to be done, or was done, with a skill.

    Attributes:
        why: the reason for a conflict, or for leaving it.
        copies: it, in each folder of skills that has it.
        theirs: what the repository has of it; None for nothing.
        data: the bytes of that, if they are needed.
        kept: where what was taken away is.
        is_held: whether it went with all others of its folder, so that a person has to say whether this was meant.
    """

    name: str
    step: Step
    why: str = ""
    copies: Sequence[Skill] = ()
    theirs: Mapping[str, Blob] | None = None
    data: Mapping[str, bytes] = {}
    kept: tuple[Path, ...] = ()
    is_held: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether neither side has it any more, and had nothing to do with that."""
        return self.step is Step.SAME and not self.copies

    @property
    def left(self) -> dict[str, str]:
        """What of it is not shared, and why."""
        return {str(skill.source / self.name / path): why for skill in self.copies for path, why in skill.left.items()}


class Places(NamedTuple):
    """Where skills are.

    Attributes:
        sources: the folders of this host, as they truly are.
        into: the one of them that a skill goes into which is new here.
        state: the file that says what was last the same.
    """

    sources: Sequence[Path]
    into: Path
    state: Path


class Wish(NamedTuple):
    """What a person said.

    Attributes:
        who: in whose name it is pushed.
        sides: the skills of which one side counts, with `mine` or `theirs`.
        is_named: whether the branch was named, and may be new where others are.
    """

    who: str
    sides: Mapping[str, str]
    is_named: bool


class Sync:
    """One host's part.

    Attributes:
        head: the commit that the repository has; empty for none.
        lost: the commit that it had and has no more; empty if nobody rewrote the branch.
    """

    def __init__(self, repo: Repo, places: Places, wish: Wish, writer: Writer, fs: Fs) -> None:
        """Begin with what was last the same.

        Raises:
            CorruptRecord: what says so is damaged.
        """
        self._repo, self._places, self._wish, self._writer, self._fs = repo, places, wish, writer, fs
        self._known = base.read(places.state)
        self.head, self.lost = "", ""

    def plan(self, now: int) -> list[Item]:
        """Ask the repository; return what is to be done, by name.

        Args:
            now: the time, in milliseconds.

        Raises:
            NotFound: there is no such skill, or no such branch.
            StoreUnavailable: the remote does not answer, or lost the branch.
        """
        seen, _ = self._repo.seen()
        self.head = self._repo.fetch(seen)
        if self.head:
            is_rewritten = seen and seen != self.head and not self._repo.is_within(seen, self.head)
            self.lost = seen if is_rewritten else self.lost
            self._repo.see(self.head, seen, now)
        elif seen:
            msg = f"the branch {self._repo.branch!r} of {self._repo.shown!r} is gone, which was there"
            hint = f"find out who removed it; if that is meant, remove {str(self._repo.folder.parent)!r}"
            raise StoreUnavailable(msg, hint=hint)
        elif not self._wish.is_named:
            self._check_new()
        theirs = there.tree(self._repo.entries(self.head) if self.head else [])
        mine = here.scan(self._places.sources, "sha256" if len(self.head) == 64 else "sha1")
        names = sorted({*self._known, *theirs.skills, *theirs.skipped, *mine.skills, *mine.skipped})
        unknown = [name for name in self._wish.sides if name not in {*theirs.skills, *mine.skills}]
        if unknown:
            msg = f"there is no skill {unknown[0]!r}, here or in the repository"
            raise NotFound(msg, hint="look for its name in what `mcp-bus skills list` shows")
        folded = dict[str, list[str]]()
        for name in names:
            folded.setdefault(filters.folded(name), []).append(name)
        items = [self._item(name, mine, theirs) for name in names]
        return [_unclashed(item, folded[filters.folded(item.name)], theirs.files) for item in items]

    def _check_new(self) -> None:
        """Refuse to begin a branch beside others that nobody named.

        Raises:
            NotFound: the remote has others.
        """
        others = self._repo.branches()
        if others:
            msg = f"{self._repo.shown!r} has no branch {self._repo.branch!r}, but {', '.join(map(repr, others[:5]))}"
            # Whoever has the repository chose that name, and a hint is what people and models paste into a shell.
            name = others[0] if _PLAIN.match(others[0]) else "BRANCH"
            raise NotFound(msg, hint=f"name it: REMOTE#{name}; REMOTE#{self._repo.branch} begins a new one")

    def _item(self, name: str, mine: here.Found, theirs: there.Tree) -> Item:
        copies, known = mine.skills.get(name, []), self._known.get(name)
        item = Item(name, Step.SKIP, "", copies, theirs.skills.get(name))
        why = theirs.skipped.get(name, "") or ("" if copies else mine.skipped.get(name, ""))
        if why:
            return item._replace(why=why)
        if known is not None and not copies:
            gone = [source for source in known.sources if Path(source) not in self._places.sources]
            if gone:
                return item._replace(why=f"it was in {gone[0]!r}, which is not looked at, or gone")
            why = "" if name in self._wish.sides or item.theirs is None else self._emptied(known, mine)
            if why:
                return item._replace(why=why, is_held=True)
        files = [skill.files for skill in copies]
        side = self._wish.sides.get(name)
        step = (
            decide.chosen(side, files, item.theirs)
            if side
            else decide.of_copies(known.files if known else None, files, item.theirs)
        )
        return self._with_data(item._replace(step=step, why=_reason(item) if step is Step.CONFLICT else ""))

    def _emptied(self, known: Known, mine: here.Found) -> str:
        """Return why a skill that is gone here may be missing, and not removed; empty if it was removed."""
        if known.is_held:
            return f"it went with all skills of {known.sources[0]!r} at once: nothing was removed"
        full = {str(skill.source) for some in mine.skills.values() for skill in some}
        empty = next((source for source in known.sources if source not in full), None)
        had = sum(empty in other.sources for other in self._known.values())
        return f"{empty!r} had {had} skill{'s'[: had != 1]} and has none: nothing was removed" if empty else ""

    def _with_data(self, item: Item) -> Item:
        """Return an item with the bytes that are to be written here; one that is refused if they are not fit."""
        if item.step is not Step.TAKE or item.theirs is None:
            return item
        try:
            return item._replace(data=there.contents(self._repo, item.theirs))
        except Unfit as error:
            return item._replace(step=Step.SKIP, why=str(error))

    # --- doing it -----------------------------------------------------------------------------------

    def run(self, now: int) -> list[Item]:
        """Synchronize; return what was done, by name.

        Args:
            now: the time, in milliseconds.

        Raises:
            Conflict: others were faster each time.
            StoreUnavailable: the remote does not answer, or takes nothing; nothing was changed.
        """
        for _ in range(TRIES):
            items = self.plan(now)
            if self._pushed(items, now):
                break
        else:
            msg = f"the branch {self._repo.branch!r} moved on {TRIES} times while this was pushed"
            raise Conflict(msg, hint="repeat the call")
        self._note([item for item in items if item.is_held or item.step in (Step.SAME, Step.PUSH, Step.DROP_THERE)])
        done = [self._here(item) for item in items]
        self._note([item for item in done if item.step in (Step.TAKE, Step.DROP_HERE)])
        self._repo.tidy()
        return [item for item in done if not item.is_gone]

    def _pushed(self, items: Sequence[Item], now: int) -> bool:
        """Push what is to go there, as one commit; False if somebody was faster."""
        changes = [change for item in items for change in _changes(item)]
        if not changes:
            return True
        made = self._repo.commit(self.head, changes, (message(items, self._wish.who), self._wish.who, now))
        try:
            self._repo.push(made, self.head)
        except Refused:
            return False
        self._repo.see(made, self.head, now)
        self.head = made
        return True

    def _here(self, item: Item) -> Item:
        """Do what is to be done here with one skill; what fails there does not stop the others."""
        if item.step not in (Step.TAKE, Step.DROP_HERE):
            return item
        kept = list[Path]()
        try:
            if not all(map(here.again, item.copies)):
                return item._replace(step=Step.CONFLICT, why="it was changed here meanwhile")
            is_chosen = item.name in self._wish.sides
            for source in [skill.source for skill in item.copies] or [self._places.into]:
                skill = next((one for one in item.copies if one.source == source), None)
                if item.step is Step.DROP_HERE:
                    kept.append(self._writer.remove(source, item.name))
                    continue
                if is_chosen and skill is not None:
                    kept.append(self._writer.keep(skill))
                assert item.theirs is not None
                self._writer.take(source, item.name, Wanted(item.theirs, item.data), skill.files if skill else {})
        except Changed as error:
            return item._replace(step=Step.CONFLICT, why=str(error), kept=tuple(kept))
        except (Unfit, CorruptRecord) as error:
            return item._replace(step=Step.FAIL, why=str(error), kept=tuple(kept))
        except OSError as error:
            why = f"it could not be written here: {error.strerror}"
            return item._replace(step=Step.FAIL, why=why, kept=tuple(kept))
        return item._replace(kept=tuple(kept))

    def _note(self, items: Sequence[Item]) -> None:
        """Keep what is the same on both sides now; what is gone on both is forgotten."""
        made = dict(self._known)
        for item in items:
            if item.is_held:  # Also when another skill has come into that folder since.
                made[item.name] = made[item.name]._replace(is_held=True)
                continue
            files = item.theirs if item.step is Step.TAKE else item.copies[0].files if item.copies else None
            sources = [str(skill.source) for skill in item.copies] or [str(self._places.into)]
            made[item.name] = Known(files or {}, tuple(sources))
            if files is None or item.step is Step.DROP_HERE:
                del made[item.name]
        if made != self._known:
            base.write(self._places.state, made, self._fs)
            self._known = made


def _unclashed(item: Item, same: Sequence[str], files: Collection[str]) -> Item:
    """Return an item; one that is refused if others have its name, on a disk that does not tell case apart."""
    why = f"{' and '.join(map(repr, same))} are one name on some disks" if len(same) > 1 else ""
    if filters.folded(item.name) in files:
        why = "the repository has a file of that name"
    return item._replace(step=Step.SKIP, why=why) if why else item


def _reason(item: Item) -> str:
    if len(item.copies) > 1 and any(skill.files != item.copies[0].files for skill in item.copies):
        return " and ".join(str(skill.source / item.name) for skill in item.copies) + " differ"
    if not item.copies:
        return "removed here, changed in the repository"
    return (
        "changed here and in the repository" if item.theirs is not None else "changed here, removed in the repository"
    )


def _changes(item: Item) -> Iterator[Change]:
    """Yield what a commit does for a skill: what is to be gone first, for a folder may come in place of a file."""
    theirs = item.theirs or {}
    if item.step is Step.DROP_THERE:
        yield Change(item.name, None)
    if item.step is not Step.PUSH:
        return
    skill = item.copies[0]
    for path in sorted(theirs.keys() - skill.files.keys()):
        yield Change(f"{item.name}/{path}", None)
    for path, blob in sorted(skill.files.items()):
        if theirs.get(path) != blob:
            yield Change(f"{item.name}/{path}", skill.data[path], blob.is_executable)


def message(items: Sequence[Item], who: str) -> str:
    """Return what a commit says: which skills it adds, changes and removes, and in whose name."""
    told = [f"{_verb(item)} {item.name}" for item in items if item.step in (Step.PUSH, Step.DROP_THERE)]
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return f"skills: {', '.join(told[:TOLD])}{more} by {who}"


def _verb(item: Item) -> str:
    return "remove" if item.step is Step.DROP_THERE else "add" if item.theirs is None else "change"
