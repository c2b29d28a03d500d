"""Settings: flag > environment > project file > user file > default.  The only reader of the environment.

The project file is `mcp-bus.toml` in the checkout's top directory, the user file
`~/.config/mcp-bus/config.toml` (or under `XDG_CONFIG_HOME`).  The project file comes with the code,
so it is read with care and may not set what only the person may decide.
"""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus import plain, settings, settingsfile
from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.errors import InvalidRequest, StoreUnavailable, Untrusted
from mcp_bus.identity import git, session
from mcp_bus.settings import PERSONAL, SETTINGS
from mcp_bus.stores import layout, probe
from mcp_bus.stores.away import NAME, SCHEME
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.modes import is_there

if TYPE_CHECKING:
    from mcp_bus.signing.guard import Guard
    from mcp_bus.stores.base import Store
    from mcp_bus.stores.git.place import Address

FOLDER = ".mcp-bus"


class Elsewhere(NamedTuple):
    """The folder of this user's parts of buses at git remotes, and the remote that was named, if one was."""

    parts: Path
    remote: "Address | None" = None


class Config:
    """Every setting's value, and where it came from (`flag`, an environment variable, a file, `default`)."""

    def __init__(self, values: dict[str, Any], origins: dict[str, str], cwd: Path, away: "Elsewhere") -> None:
        self.values = values
        self.origins = origins
        self.cwd = cwd
        self._away = away

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  settings have several types
        """Return a setting's value."""
        return self.values[name]

    @property
    def path(self) -> Path:
        """The bus directory, absolute."""
        return Path(self.values["bus"])

    @property
    def remote(self) -> "Address | None":
        """The git remote that the bus is at, if it is at one: its directory is this host's part of it.

        Raises:
            Untrusted: it is said by a file in a directory that is no part of this user's: where git is sent, and what
                it runs there, others do not decide.
        """
        with suppress(OSError):  # Whose it is that is closed to this user, says who opens it.
            if self._away.remote is None and os.path.lexists(self.path / NAME):
                if not self.is_part:
                    msg = f"{str(self.path)!r} says that it stands for a bus at a git remote, and is no folder for such"
                    hint = f"name the address, --bus git+REMOTE; or remove {NAME} from it, which you did not put there"
                    raise Untrusted(msg, hint=hint)
                from mcp_bus.stores.git import place  # noqa: PLC0415  few buses are at a remote

                self._away = self._away._replace(remote=place.read(self.path))
        return self._away.remote

    @property
    def is_part(self) -> bool:
        """Whether the directory is one of this user's parts of buses at remotes, though it may not say of which."""
        return os.path.realpath(self.path.parent) == os.path.realpath(self._away.parts)

    def replaced(self, origin: str, **values: object) -> "Config":
        """Return the same settings but for some, which come from `origin`."""
        return Config(self.values | values, self.origins | dict.fromkeys(values, origin), self.cwd, self._away)


def load(
    flags: Mapping[str, Any] | None = None, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Config:
    """Gather all settings.

    Args:
        flags: values given on the command line or in code; None ones count as not given.

    Raises:
        InvalidRequest: names the setting, where it was set, and what it should be.
    """
    env = os.environ if env is None else env
    cwd = Path.cwd() if cwd is None else cwd
    checkout = git.find(cwd)
    layers: list[tuple[str, Mapping[str, Any]]] = [
        ("flag", {name: value for name, value in (flags or {}).items() if value is not None}),
        ("environment", {name: env[s.env] for name, s in SETTINGS.items() if env.get(s.env)}),
    ]
    top = checkout.top if checkout else cwd
    layers.append((str(top / "mcp-bus.toml"), _project(top)))
    base = Path(env.get("XDG_CONFIG_HOME") or home(env) / ".config")
    layers.append((str(base / "mcp-bus" / "config.toml"), _file(base / "mcp-bus" / "config.toml")))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        values[name], origins[name] = setting.default, "default"
        for origin, layer in layers:
            if name in layer:
                where = setting.env if origin == "environment" else origin
                values[name], origins[name] = _checked(name, layer[name], where), where
                break
    if not values["bus"]:
        values["bus"], origins["bus"] = _place(checkout, env)
    remote = None
    if values["bus"].startswith(SCHEME):
        from mcp_bus.stores.git import place  # noqa: PLC0415  few buses are at a remote

        remote = place.address(values["bus"], cwd)
        values["bus"] = str(data(env) / "git" / remote.folder)
    elif ":" in values["bus"]:
        from mcp_bus.stores import mistaken  # noqa: PLC0415  few names have one

        mistaken.check_name(values["bus"], cwd)
    values["bus"] = str((cwd / _expanded(values["bus"], env)).absolute())
    return Config(values, origins, cwd, Elsewhere(data(env) / "git", remote))


def agent_of(config: Config) -> tuple[str, str]:
    """Return the name under which this process speaks, and where it is from: a setting, `git`, or `directory`."""
    if config["agent"]:
        return config["agent"], config.origins["agent"]
    who = session.identify(config.cwd, session="0", pid=os.getpid())
    return who.agent, "git" if git.find(config.cwd) else "directory"


def home(env: Mapping[str, str]) -> Path:
    """Return the user's home.  An empty HOME counts as not set; `Path.home` would make `/` of it."""
    if env.get("HOME"):
        return Path(env["HOME"])
    try:
        import pwd  # noqa: PLC0415  not on every system, and rarely needed
    except ImportError:
        return Path.home()
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        msg = "HOME is not set, and this user has no home"
        raise InvalidRequest(msg, hint="set HOME, or name the bus and XDG_CONFIG_HOME") from None


def state(env: Mapping[str, str]) -> Path:
    """Return the folder of what this program keeps for the user, which may not be there yet."""
    said = Path(env.get("XDG_STATE_HOME", ""))
    return (said if said.is_absolute() else home(env) / ".local" / "state") / "mcp-bus"


def data(env: Mapping[str, str]) -> Path:
    """Return the folder of what this program keeps for the user and could fetch again, which may not be there yet."""
    said = Path(env.get("XDG_DATA_HOME", ""))
    return (said if said.is_absolute() else home(env) / ".local" / "share") / "mcp-bus"


def _expanded(text: str, env: Mapping[str, str]) -> Path:
    if text == "~" or text.startswith("~/"):
        return home(env) / text[2:]
    try:
        return Path(text).expanduser()
    except RuntimeError:
        msg = f"{text[:80]!r} begins with the home of a user who is not known"
        raise InvalidRequest(msg, hint="./~… is a name that begins with ~") from None


def _place(checkout: git.Checkout | None, env: Mapping[str, str]) -> tuple[str, str]:
    if checkout is not None and (checkout.home / FOLDER).is_dir():
        return str(checkout.home / FOLDER), "repository"
    return str(home(env) / FOLDER), "default: one per user"


def _file(path: Path, *, may_be_link: bool = True) -> dict[str, Any]:
    found = settingsfile.read(path, may_be_link=may_be_link)
    unknown = sorted(set(found) - set(SETTINGS))
    if unknown:
        msg = f"{str(path)!r} sets {unknown[0]!r}, which is not a setting"
        raise InvalidRequest(msg, hint="known settings: " + ", ".join(SETTINGS))
    return found


def _project(top: Path) -> dict[str, Any]:
    """Read a project's file.  It comes with the code, so it may not send work elsewhere or speak for anyone."""
    path = top / "mcp-bus.toml"
    found = _file(path, may_be_link=False)
    for name in PERSONAL:
        if name in found:
            msg = f"{str(path)!r} sets {name!r}, which a project's file may not"
            raise InvalidRequest(msg, hint=f"set it yourself: {SETTINGS[name].env}, or in your own config.toml")
    if "bus" in found:
        if str(found["bus"]).startswith(SCHEME) or _is_address(str(found["bus"])):
            msg = f"{str(path)!r} puts the bus at a remote"
            raise InvalidRequest(msg, hint="a project's file may only name a directory inside it; use MCP_BUS_DIR")
        place = (top / str(found["bus"])).resolve()
        if not place.is_relative_to(top.resolve()):
            msg = f"{str(path)!r} puts the bus outside the project"
            raise InvalidRequest(msg, hint="a project's file may only name a directory inside it; use MCP_BUS_DIR")
        found["bus"] = str(place)
    return found


def _is_address(text: str) -> bool:
    if ":" not in text:
        return False
    from mcp_bus.stores import mistaken  # noqa: PLC0415  few names have one

    return mistaken.is_address(text)


def _checked(name: str, value: Any, where: str) -> Any:  # noqa: ANN401  settings have several types
    try:
        return settings.parsed(name, value)
    except (TypeError, ValueError, InvalidRequest) as error:
        msg = f"{where} sets {name} to {str(value)[:80]!r}: {error}"
        raise InvalidRequest(msg, hint=SETTINGS[name].about) from None


def _tell(text: str) -> None:
    print(f"mcp-bus: {plain.clean(text)}", file=sys.stderr)  # noqa: T201  people must know, wherever they are


def open_from(
    config: Config,
    *,
    client: str = "",
    create: bool = False,
    tell: Callable[[str], None] = _tell,
    is_asking: bool = True,
) -> Bus:
    """Open the bus that the settings name.

    Args:
        client: the program that speaks, part of the agent's name.
        tell: takes what a person must know: that a bus was made, or will not last.
        create: make the bus if there is none; never with `read_only`, which does not tend it either.
        is_asking: of a bus at a git remote, ask that at once; else only if what is known is old.

    Raises:
        StoreUnavailable: there is no bus, or its file system cannot carry one.
        InvalidRequest: it is a git repository, and no bus.
        Untrusted: it is another user's, or of a group this user is not in, or everyone may write it.
    """
    path = config.path
    try:
        is_missing = not is_there(path / "bus.json")
        verdict = probe.judge(probe.kind_of(path))
    except OSError as error:
        msg = f"{str(path)[:200]!r} cannot be a bus: {error.strerror}"
        raise StoreUnavailable(msg, hint="name another place with --bus or MCP_BUS_DIR") from error
    verdict.check(path)
    remote = config.remote
    if remote is not None:
        is_missing = False
    elif config.is_part and not is_missing:
        msg = f"{str(path)!r} is this host's part of a bus at a git remote, and its {NAME} is gone"
        raise StoreUnavailable(msg, hint="name the address, --bus git+REMOTE, which writes it anew")
    elif is_missing:
        from mcp_bus.stores import mistaken  # noqa: PLC0415  most buses are there

        mistaken.check_missing(path)
        if create and not config["read_only"]:
            verdict = layout.create(path)
            tell(f"made a new bus at {path}")
    if verdict.warning:
        tell(f"WARNING: {verdict.warning}")
    source = System()
    who = session.identify(
        config.cwd,
        agent=config["agent"],
        client=client,
        session=config["session"] or source.token(4),
        pid=os.getpid(),
    )
    keys = guards(path, who.agent)
    store: Store
    if remote is not None:
        from mcp_bus.stores.git import opening  # noqa: PLC0415  few buses are at a remote

        means = opening.Means(
            os.environ, config["git_fresh_s"], config["git_timeout_s"], is_asking, config["git_tentative"]
        )
        store = opening.opened(path, remote, means, source=source, who=who.holder, keys=keys)
    else:
        store = FileStore(path, source=source, durable=config["durability"] == "full", who=who.holder, keys=keys)
    bus = Bus(store, who, source, tend=None if config["read_only"] else _tender())
    bus.capabilities = config["capabilities"]
    bus.may_eval = config["post_eval"]
    return bus


def guards(root: Path, agent: str = "") -> "Callable[[str], Guard] | None":
    """Return what makes the guard of a bus with an id; None where this user has no private folder at all.

    Args:
        agent: whose keys open what is encrypted; empty for those of all agents of this user.
    """
    try:
        folder = state(os.environ)
    except InvalidRequest:
        return None
    from mcp_bus.signing.guard import Guard  # noqa: PLC0415  settings alone do not need it

    return lambda bus: Guard(folder, bus, root, System(), agent)


def _tender() -> Callable[[Bus], None]:
    """Return what sweeps a bus now and then; a verb that does not wait or claim does not load it."""
    made: list[Callable[[Bus], None]] = []

    def tend(bus: Bus) -> None:
        if not made:
            from mcp_bus.recovery import Tender  # noqa: PLC0415  as above

            made.append(Tender())
        made[0](bus)

    return tend


def as_abq(flags: Mapping[str, Any]) -> Config:
    """Gather the settings as abq's users expect them: the bus is `ABQ_HOME`, else `MCP_BUS_DIR`, else `~/.abq`."""
    place = os.environ.get("ABQ_HOME") or os.environ.get("MCP_BUS_DIR") or str(home(os.environ) / ".abq")
    return load({"bus": place, **flags})


def environment() -> dict[str, str]:
    """Return the environment as it is, for programs that are started."""
    return dict(os.environ)


def open_bus(path: str | os.PathLike[str] | None = None, *, create: bool = True, **settings: object) -> Bus:
    """Open a bus; what scripts start with.

    For example `open_bus("/tmp/my-bus", agent="nightly", capabilities=["python"])`.

    Args:
        path: the bus directory; None looks at `MCP_BUS_DIR`, then for `.mcp-bus/` beside the git
            directory all worktrees share, then takes `~/.mcp-bus`.
        create: make it if it is missing.
        **settings: any of `mcp_bus.settings.SETTINGS` by name, such as `agent`, `capabilities`,
            `durability`; they win over the environment and files.

    Returns:
        The bus, a context manager.  Acknowledged writes are on disk for good (`durability="full"`).

    Raises:
        StoreUnavailable: no bus there (with `create=False`), or a file system that cannot carry one.
        InvalidRequest: a setting is unknown or has a wrong value.
    """
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        msg = f"{unknown[0]!r} is not a setting"
        raise InvalidRequest(msg, hint="known settings: " + ", ".join(SETTINGS))
    return open_from(load({"bus": path, **settings}), create=create)
