"""One plant for each kind of anomaly: what makes it, and where it is to be found."""

from __future__ import annotations

from typing import Any

from tests.fsck import hurt_rest, hurt_tasks

PLANTS: list[tuple[str, Any]] = [
    ("format", hurt_tasks.bus_format), ("no-bus-json", hurt_tasks.bus_json), ("no-bus-json", hurt_tasks.no_bus_json),
    ("missing-folder", hurt_tasks.missing_folder), ("lost-folder", hurt_tasks.no_tasks), ("lost-folder", hurt_tasks.no_requests),
    ("symlink-folder", hurt_tasks.symlink_folder), ("in-the-way", hurt_tasks.in_the_way), ("in-the-way", hurt_tasks.file_for_folder),
    ("in-the-way", hurt_tasks.bad_tombstones), ("stranger", hurt_tasks.stranger), ("foreign", hurt_tasks.foreign), ("mode", hurt_tasks.mode),
    ("mode", hurt_tasks.folder_mode), ("writable-by-others", hurt_tasks.writable), ("readable-by-others", hurt_tasks.readable), ("owner", hurt_tasks.owner),
    ("bad-body", hurt_tasks.torn), ("bad-body", hurt_tasks.linked_body), ("bad-body", hurt_tasks.piped_body), ("bad-body", hurt_tasks.folder_body),
    ("wrong-id", hurt_tasks.renamed), ("misnamed", hurt_tasks.misnamed), ("misnamed", hurt_tasks.link_among_keys),
    ("wrong-channel", hurt_tasks.moved), ("wrong-channel", hurt_tasks.copied_away), ("wrong-channel", hurt_tasks.two_channels),
    ("orphan", hurt_tasks.orphan), ("orphan", hurt_tasks.linked_orphan), ("done-without-name", hurt_tasks.nameless),
    ("done-without-name", hurt_tasks.nameless_of_abq), ("tombstoned", hurt_tasks.tombstoned), ("tombstoned", hurt_tasks.tombstoned_key),
    ("lost-identity", hurt_tasks.no_identity), ("new-message", hurt_tasks.by_hand), ("split", hurt_tasks.split), ("split", hurt_tasks.split_place),
    ("split", hurt_tasks.split_key), ("other-body", hurt_tasks.other_body), ("two-places", hurt_tasks.two_states), ("two-places", hurt_tasks.two_copies),
    ("second-body", hurt_tasks.copy_beside), ("shared-aside", hurt_tasks.shared), ("extra-link", hurt_tasks.backed_up), ("post-cut-off", hurt_tasks.cut_post),
    ("draft", hurt_tasks.draft), ("pruning", hurt_tasks.pruning), ("lease-over", hurt_rest.overdue), ("key-missing", hurt_rest.no_key),
    ("key-taken", hurt_rest.taken_key), ("bad-key", hurt_rest.torn_key), ("bad-key", hurt_rest.renamed_key), ("key-alone", hurt_rest.lone_key),
    ("bad-result", hurt_rest.torn_result), ("result-without-task", hurt_rest.lone_result), ("result-without-task", hurt_rest.strayed_result),
    ("result-not-done", hurt_rest.early_result), ("done-without-result", hurt_rest.no_result), ("staged", hurt_rest.staged),
    ("dead-without-reason", hurt_rest.no_reason), ("stale-reason", hurt_rest.stale_reason), ("history-without-task", hurt_rest.lone_history),
    ("bad-history", hurt_rest.torn_line), ("policy", hurt_rest.policy), ("plan", hurt_rest.plan), ("record", hurt_rest.record), ("record", hurt_rest.cursor),
    ("old-revision", hurt_rest.old_revision), ("tombstone", hurt_rest.tombstone), ("quarantine", hurt_rest.aside), ("rejected", hurt_rest.late),
]  # fmt: skip
