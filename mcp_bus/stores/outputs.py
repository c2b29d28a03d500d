"""Results as Markdown, `outputs/<id>_result.md`: for people who look with `ls` and `cat`.

People move, link and delete what is in there as they like.  So the folder is opened anew each time, never kept open,
and never through a link: what was moved out of the bus is neither written to nor removed from.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mcp_bus import names
from mcp_bus.errors import CorruptRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.clock import Source
    from mcp_bus.stores.tree import Tree

FOLDER = "outputs"


class FileOutputs:
    """The folder of one bus; made when the first result is written."""

    def __init__(self, tree: Tree, source: Source, *, sync: bool) -> None:
        """Write below `tree`; with `sync` no power cut leaves a name whose content is missing."""
        self._tree = tree
        self._source = source
        self._sync = sync

    def ids(self) -> set[str]:
        """See `Outputs.ids`.  Empty where something else has the folder's name."""
        with self._tree.words(), suppress(CorruptRecord), _folder(self._tree) as at:
            listed = self._tree.fs.names(at) if at is not None else []
            return {task_id for name in listed if (task_id := names.of_output(name))}
        return set()

    def write(self, task_id: str, data: bytes) -> None:
        """See `Outputs.write`.  A link that has the name is replaced; what it leads to is not touched."""
        with self._tree.words():
            self._tree.check()
            draft, tmp = f"output.{self._source.token(8)}", self._tree.fd("tmp", make=True)
            self._tree.fs.create(draft, tmp, data, sync=self._sync)
            try:
                with _folder(self._tree, make=True) as at:
                    assert at is not None
                    self._tree.fs.rename(draft, tmp, names.output(task_id), at)
            except BaseException:
                self._tree.drop("tmp", draft)
                raise

    def remove(self, task_id: str) -> None:
        """See `Outputs.remove`."""
        with self._tree.words():
            drop(self._tree, task_id)


def drop(tree: Tree, task_id: str) -> None:
    """Remove the output of a task, if there is one; what cannot be removed stays."""
    with suppress(CorruptRecord, FileNotFoundError, IsADirectoryError, PermissionError), _folder(tree) as at:
        if at is not None:
            tree.fs.unlink(names.output(task_id), at)


@contextmanager
def _folder(tree: Tree, *, make: bool = False) -> Iterator[int | None]:
    """Open the folder that has the name now; None if there is none.

    Raises:
        CorruptRecord: what has the name is no folder.
    """
    try:
        at = tree.folder(FOLDER, tree.fd(), make=make)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise
        what = f"{FOLDER!r} in the bus is no folder"
        raise CorruptRecord(what, hint="move it away; the results themselves are in responses/") from None
    try:
        yield at
    finally:
        tree.fs.close(at)
