"""skills: share the skills of this user's agents with other machines, through a git repository of their own."""

from __future__ import annotations

import sys
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

from mcp_bus.cli import timers
from mcp_bus.cli.arguments import Verb, seconds, shell
from mcp_bus.cli.codes import CONFLICT, ERROR, OK
from mcp_bus.cli.output import one_line
from mcp_bus.errors import BusError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call, Parser
    from mcp_bus.skills.sync import Item, Places, Sync
    from mcp_bus.stores.git.place import Address
    from mcp_bus.stores.git.repo import Repo

BRANCH = "main"
SIDES = ("mine", "theirs")
EXAMPLE = """\
mcp-bus skills list
mcp-bus skills sync --repo git@host:me/skills.git --dry-run
mcp-bus skills sync --repo git@host:me/skills.git --announce"""
# What was done, where it differs from what was to be done.
DONE = {
    "push": "pushed",
    "take": "took",
    "remove there": "removed",
    "remove here": "removed",
    "skip": "skipped",
    "fail": "failed",
}
# What a timer's mail need not say each day.
QUIET = ("same", "skip")
WHERE = {"remove there": "from the repository", "remove here": "from this machine"}


def declare(parser: Parser) -> None:
    """Declare the options of `skills`."""
    parser.add_argument("action", choices=("sync", "list"), help="sync them, or list those that would be shared")
    parser.add_argument(
        "--repo", dest="skills_repo", metavar="REMOTE", help=f"the git repository; REMOTE#BRANCH, else {BRANCH}"
    )
    parser.add_argument(
        "--from", dest="sources", action="append", metavar="DIR", help="a folder of skills, may be repeated"
    )
    parser.add_argument("--into", metavar="DIR", help="where skills go that are new here; else the first folder")
    parser.add_argument(
        "--take", action="append", nargs=2, metavar=("SIDE", "NAME"), help="after a conflict: mine or theirs counts"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument("--announce", action="store_true", help="tell everyone on the bus what was pushed")
    parser.add_argument("--every", type=seconds, default=0.0, metavar="TIME", help="for --timer, as 12h or 24h")
    parser.add_argument("--timer", choices=timers.KINDS, help="print what does so by itself, and do nothing")


def skills(call: Call) -> int:
    """Share skills, or list them."""
    args = call.args
    if args.action == "sync":
        return _sync(call)
    if args.into or args.take or args.dry_run or args.announce or args.timer:
        msg = "skills list takes --from alone"
        raise InvalidRequest(msg, hint="mcp-bus skills --help")
    return _list(call)


# --- where ----------------------------------------------------------------------------------------


def _sources(call: Call) -> list[Path]:
    """Return the folders of skills that were named, else those of the clients that are used here."""
    from mcp_bus.clients.known import Home
    from mcp_bus.config import environment, home
    from mcp_bus.skills import here

    seen = environment()
    named = [call.config.cwd / place for place in call.args.sources or ()]
    return here.sources(named or here.usual(Home(home(seen), seen, sys.platform)))


def _places(call: Call, where: Address) -> Places:
    import hashlib

    from mcp_bus.config import environment, state
    from mcp_bus.skills.sync import Places

    sources = _sources(call)
    if not sources and not call.args.into:
        msg = "no agent client here has a folder of skills"
        raise NotFound(msg, hint="name one: --from DIR, or --into DIR, which is made")
    into = (call.config.cwd / call.args.into).resolve() if call.args.into else sources[0]
    if into.is_dir() and into not in sources:
        sources.append(into)
    mark = hashlib.sha256(str(into).encode(errors="surrogateescape")).hexdigest()[:8]
    return Places(sources, into, state(environment()) / "skills" / f"{where.folder}-{mark}.json")


def _address(call: Call) -> Address:
    from mcp_bus.stores.git import place

    said = call.config["skills_repo"]
    if not said:
        msg = "it was not said in which repository the skills are"
        raise InvalidRequest(msg, hint="--repo REMOTE, MCP_BUS_SKILLS_REPO, or skills_repo in your own config.toml")
    return place.address(said if "#" in said else f"{said}#{BRANCH}", call.config.cwd)


def _sides(call: Call) -> dict[str, str]:
    for side, name in call.args.take or ():
        if side not in SIDES:
            msg = f"--take {side[:40]} {name[:40]}: a side is mine or theirs"
            raise InvalidRequest(msg, hint=f"--take mine {shell(name[:80])}, or --take theirs {shell(name[:80])}")
    return {name: side for side, name in call.args.take or ()}


# --- sync -----------------------------------------------------------------------------------------


def _sync(call: Call) -> int:
    where, sides = _address(call), _sides(call)
    places = _places(call, where)
    if call.args.timer:
        return timers.tell(call, _words(call, where, places), "skills sync")
    from mcp_bus.clock import System
    from mcp_bus.config import data, environment
    from mcp_bus.stores.git.place import CLONE
    from mcp_bus.stores.git.repo import Repo

    seen, now = environment(), System().now()
    with _bus(call) as bus:
        folder = data(seen) / "skills" / where.folder / CLONE
        repo = Repo(folder, where.remote, where.branch, timeout_s=call.config["git_timeout_s"], environment=seen)
        with closing(repo):
            made = _made(call, repo, places, sides, now)
            items = made.plan(now) if call.args.dry_run else made.run(now)
        items = [item for item in items if not item.is_gone]
        if made.lost:
            call.out.warn(
                f"mcp-bus: somebody rewrote the branch {where.branch!r}: it lost {made.lost[:12]}, which it had"
            )
        told = _announced(call, bus, items)
    _tell(call, items, made.head, told)
    if told == "":
        return ERROR
    found = {item.step.value for item in items}
    return CONFLICT if "conflict" in found else ERROR if "fail" in found else OK


def _made(call: Call, repo: Repo, places: Places, sides: dict[str, str], now: int) -> Sync:
    import time

    from mcp_bus.config import agent_of, environment, state
    from mcp_bus.skills.sync import Sync, Wish
    from mcp_bus.skills.writing import Writer
    from mcp_bus.stores.fsops import Fs

    fs, stamp = Fs(), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now // 1000))
    writer = Writer(fs, state(environment()) / "skills" / "removed", stamp)
    wish = Wish(one_line(agent_of(call.config)[0], 80), sides, is_named="#" in call.config["skills_repo"])
    return Sync(repo, places, wish, writer, fs)


def _words(call: Call, where: Address, places: Places) -> list[str]:
    """Return the command that does so once, whatever folder and environment a timer has."""
    words = timers.start(call)
    if call.args.announce:
        words += ["--bus", str(call.config.remote or call.config.path)]
    words += ["skills", "sync", "--repo", "#".join(where)]
    for place in places.sources if call.args.sources else ():
        words += ["--from", str(place)]
    words += ["--into", str(places.into)] if call.args.into else []
    return words + (["--announce"] if call.args.announce else [])


def _bus(call: Call) -> Any:  # noqa: ANN401  a bus, or nothing, as a context
    """Open the bus on which it is to be told, before anything is pushed.

    Raises:
        StoreUnavailable: there is none.
    """
    if not call.args.announce or call.args.dry_run:
        return nullcontext()
    from mcp_bus.cli import speaker

    bus = speaker.of(call).bus()
    bus.store.channels()  # Of a bus at a remote: whether there is one.
    return bus


def _announced(call: Call, bus: Bus | None, items: Sequence[Item]) -> str | None:
    """Tell everyone what was pushed; return the message's id, empty if that failed, None for nothing to tell."""
    names = [item.name for item in items if item.step.value in ("push", "remove there")]
    if bus is None or not names:
        return None
    text = f"pull latest skills: {', '.join(names)} changed"
    try:
        return bus.mail.send("broadcast", text, title=one_line(text, 100)).id
    except BusError as error:
        call.out.warn(f"mcp-bus: pushed, but nobody was told: {one_line(str(error), 300)}")
        call.out.warn(f"  next: {call.again()} send broadcast {shell(text)}")
        return ""


def _tell(call: Call, items: Sequence[Item], head: str, told: str | None) -> None:
    out, is_dry = call.out, call.args.dry_run
    words = [item.step.value if is_dry else DONE.get(item.step.value, item.step.value) for item in items]
    if out.as_json:
        shown = [_shown(item, is_dry=is_dry) for item in items]
        out.json({"head": head or None, "dry_run": is_dry, "skills": shown, "announced": told})
    else:
        for word, item in zip(words, items, strict=True):
            if out.quiet and not is_dry and item.step.value in QUIET:
                continue
            kept = f"kept in {', '.join(map(str, item.kept))}" if item.kept else ""
            said = ", ".join(filter(None, (item.why or ("" if is_dry else WHERE.get(item.step.value, "")), kept)))
            out.line(one_line(f"{word} {item.name}" + (f": {said}" if said else ""), 400))
    out.flush()  # What to do next comes below.
    for item in items:
        _left(call, item.name, item.left)
    held = [item for item in items if item.is_held][:1]  # What is said for one of them is said for all.
    for item in [*(item for item in items if item.step.value == "conflict"), *held]:
        again = f"{call.again()} skills sync {_given(call)} --take"
        name = shell(item.name)
        out.warn(f"  next: {one_line(f'{again} mine {name}, or --take theirs {name}', 400)}")
    said = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)) or "no skills"
    out.note(f"{said}{'; nothing was changed' if is_dry else ''}{'; told everyone' if told else ''}")


def _given(call: Call) -> str:
    """Return the options that say where the skills are, as a shell needs them."""
    args = call.args
    words = ["--repo", call.config["skills_repo"]]
    words += [word for place in args.sources or () for word in ("--from", place)]
    return " ".join(map(shell, [*words, *(["--into", args.into] if args.into else [])]))


def _shown(item: Item, *, is_dry: bool) -> dict[str, Any]:
    return {
        "name": item.name,
        "step": item.step.value,
        "done": not is_dry and item.step.value in ("push", "take", "remove there", "remove here"),
        "why": item.why or None,
        "places": [str(skill.source / skill.name) for skill in item.copies],
        "left_out": item.left,
        "kept": [str(place) for place in item.kept],
    }


def _left(call: Call, name: str, left: dict[str, str]) -> None:
    if left:
        said = ", ".join(f"{path} ({why})" for path, why in left.items())
        call.out.note(f"not shared of {one_line(name, 80)}: {one_line(said, 600)}")


# --- list -----------------------------------------------------------------------------------------


def _list(call: Call) -> int:
    from mcp_bus.skills import here
    from mcp_bus.skills.filters import SKILL, frontmatter

    found = here.scan(_sources(call))
    about = {name: frontmatter(some[0].data[SKILL])["description"] for name, some in found.skills.items()}
    if call.out.as_json:
        shown = [
            {
                "name": name,
                "places": [str(skill.source / name) for skill in some],
                "description": about[name],
                "left_out": {
                    str(skill.source / name / path): why for skill in some for path, why in skill.left.items()
                },
            }
            for name, some in found.skills.items()
        ]
        call.out.json({"skills": shown, "skipped": found.skipped})
        return OK
    for name, some in sorted(found.skills.items()):
        call.out.line(f"{one_line(name, 80)}  {one_line(str(some[0].source / name))}  {one_line(about[name], 100)}")
    for name, why in sorted(found.skipped.items()):
        call.out.line(f"skipped {one_line(name, 80)}: {one_line(why, 400)}")
    call.out.flush()
    for name, some in sorted(found.skills.items()):
        for skill in some:
            _left(call, name, skill.left)
    if not found.skills:
        call.out.note("no skill here would be shared")
    return OK


VERBS = {"skills": Verb(declare, skills, EXAMPLE)}
