"""Whose a bus is, and the modes its files must have for that: private to a user, or shared with a Unix group (rule F6).

The root directory says which, and nothing else does: a folder with the setgid bit that its group may read, write and
enter is shared with that group.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import InvalidRequest, Untrusted
from mcp_bus.stores import acls

if TYPE_CHECKING:
    from pathlib import Path

try:
    import grp
    import pwd
except ImportError:  # Windows: nobody but its user, and whom that lets in by other means.
    grp = pwd = None  # type: ignore[assignment]  # there are no such modules there

HAS_USERS = hasattr(os, "geteuid")
_SHARED = stat.S_ISGID | stat.S_IRWXG
_NOBODY = -1


class Modes(NamedTuple):
    """How what is on a bus must be made.

    Attributes:
        group: the id of the group that shares it; -1 if it is private.
    """

    group: int = _NOBODY

    @property
    def is_shared(self) -> bool:
        """Whether a group shares it."""
        return self.group != _NOBODY

    @property
    def file(self) -> int:
        """The mode of a file, and of a named pipe."""
        return 0o660 if self.is_shared else 0o600

    @property
    def folder(self) -> int:
        """The mode of a folder."""
        return 0o2770 if self.is_shared else 0o700

    def fits(self, about: os.stat_result) -> bool:
        """Tell whether something has the group and all the rights that it needs; others are another question."""
        if stat.S_ISLNK(about.st_mode):
            return True
        if not self.is_shared:
            needed = stat.S_IRWXU if stat.S_ISDIR(about.st_mode) else stat.S_IRUSR
            return about.st_mode & needed == needed
        needed = self.folder if stat.S_ISDIR(about.st_mode) else self.file
        return about.st_gid == self.group and about.st_mode & needed == needed

    def mended(self, about: os.stat_result) -> int:
        """Return the mode that something should have; no bit of the one it has is kept."""
        return self.folder if stat.S_ISDIR(about.st_mode) else self.file


PRIVATE = Modes()


def of(root: os.stat_result) -> Modes:
    """Return how a bus is made whose root directory that is."""
    return Modes(root.st_gid) if HAS_USERS and root.st_mode & _SHARED == _SHARED else PRIVATE


def is_mine(about: os.stat_result) -> bool:
    """Tell whether something is this user's, to change its mode; root might, and leaves what is another's."""
    return HAS_USERS and os.geteuid() == about.st_uid


def is_member(group: int) -> bool:
    """Tell whether this process is in a group."""
    return group == os.getegid() or group in os.getgroups()


def check(about: os.stat_result, root: Path, *, is_repair: bool = False) -> None:
    """Refuse a bus that is neither this user's nor shared with a group of theirs, or that everyone may write.

    The superuser may use a shared bus, for what it makes there is the group's; of another user's private one, what
    it makes would lock its owner out.

    Args:
        is_repair: what everyone may write is let through, to be put right.

    Raises:
        Untrusted: it is refused.
    """
    if not HAS_USERS:
        return
    path, me, modes = str(root), os.geteuid(), of(about)
    if modes.is_shared and me not in (0, about.st_uid) and not is_member(modes.group):
        msg = f"the bus {path!r} is shared with group {group_name(modes.group)}, and {user_name(me)} is not in it"
        hint = "have its owner add you to the group, and log in again; or use a bus of your own (--bus, MCP_BUS_DIR)"
        raise Untrusted(msg, hint=hint)
    if not modes.is_shared and me != about.st_uid:
        owner = user_name(about.st_uid)
        msg = f"the bus {path!r} belongs to user {owner}, and this is user {user_name(me)}"
        hint = "run as its owner, or use a bus of your own (--bus, MCP_BUS_DIR); its owner can share one with a group"
        raise Untrusted(msg, hint=hint)
    if about.st_mode & stat.S_IWOTH and not is_repair:
        msg = f"everyone on this machine may write the bus {path!r} (mode {stat.S_IMODE(about.st_mode):o})"
        hint = (
            f"`chmod o-w {path}`, or `mcp-bus fsck --repair`; then look at what is on it: anyone may have put it there"
        )
        raise Untrusted(msg, hint=hint)


def check_lists(root: int, path: Path) -> None:
    """Refuse a shared bus with an access control list, which lets in, or keeps out, others than its mode says.

    Args:
        root: its open directory.

    Raises:
        Untrusted: it has one, or what is made in it gets one.
    """
    if acls.has(root):
        msg = f"the bus {str(path)!r} has an access control list, which lets in or keeps out others than its group"
        raise Untrusted(msg, hint=f"`{acls.CURE} {path}` takes it away; `mcp-bus fsck` tells of those below")


def is_there(path: Path) -> bool:
    """Tell whether there is something; what is in a folder that is closed counts, for who opens that is told why.

    Raises:
        PermissionError: it cannot even be told whose that folder is.
    """
    try:
        return path.exists()
    except PermissionError:
        path.parent.stat()
        return True


# --- in words -------------------------------------------------------------------------------------


def user_name(uid: int) -> str:
    """Return a user's name and number; the number alone if it has none."""
    with suppress(KeyError, AttributeError):
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name and number; the number alone if it has none."""
    with suppress(KeyError, AttributeError):
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    return str(gid)


def told(about: os.stat_result, modes: Modes, *, has_acl: bool = False) -> str:
    """Say who owns something, which mode it has, and the words for `chmod` that its owner should use.

    Args:
        has_acl: it has an access control list: then it is not its mode that says who may use it.
    """
    words = f"{user_name(about.st_uid)} owns it, mode {stat.S_IMODE(about.st_mode):o}"
    if has_acl:
        return f"{words} with an access control list: `{acls.CURE}` takes that away, which is not allowed here"
    if modes.fits(about) and about.st_mode & stat.S_IWOTH:
        return f"{words}: `chmod o-w` keeps everyone else from writing it"
    if not modes.is_shared:
        return f"{words}: `chmod {'u+rwx' if stat.S_ISDIR(about.st_mode) else 'u+rw'}` lets its owner in"
    if about.st_gid != modes.group:
        words += f", group {group_name(about.st_gid)}: `chgrp {modes.group}`, then `chmod"
    else:
        words += ": `chmod"
    return f"{words} {'g+rwxs' if stat.S_ISDIR(about.st_mode) else 'g+rw'}` lets the group in"


def group_of(name: str) -> int:
    """Return the id of a group that the caller is in, from its name or number; of the primary one if it is empty.

    A primary group of the same name as its user is nobody else's, as Debian and Fedora make them: then one must be
    named.

    Raises:
        InvalidRequest: there is none of that name, or the caller is not in it.
    """
    if grp is None:
        msg = "this system has no groups to share a bus with"
        raise InvalidRequest(msg, hint="leave --group out")
    try:
        gid = _named(name) if name else _primary()
    except (KeyError, OverflowError):
        msg = f"there is no group {name[:80]!r}"
        raise InvalidRequest(msg, hint=_choices()) from None
    if os.geteuid() and not is_member(gid):
        msg = f"{user_name(os.geteuid())} is not in group {group_name(gid)}, or was not when this session began"
        raise InvalidRequest(msg, hint=_choices())
    return gid


def closed_above(root: Path, group: int) -> Path | None:
    """Return the nearest folder above a bus that a group may not enter; None if it can get there."""
    for path in root.resolve().parents:
        about = path.stat()
        if not about.st_mode & (stat.S_IXGRP if about.st_gid == group else stat.S_IXOTH):
            return path
    return None


def _named(name: str) -> int:
    return int(name) if name.isascii() and name.isdigit() else grp.getgrnam(name).gr_gid


def _primary() -> int:
    gid, me = os.getegid(), os.geteuid()
    with suppress(KeyError):
        if grp.getgrgid(gid).gr_name == pwd.getpwuid(me).pw_name:
            msg = f"the primary group of {user_name(me)} is theirs alone"
            raise InvalidRequest(msg, hint=_choices())
    return gid


def _choices() -> str:
    names = sorted({group_name(gid).partition(" ")[0] for gid in os.getgroups()})
    return f"name a group of yours: --group NAME, with NAME one of {', '.join(names)}" if names else "--group NAME"
