#!/bin/sh
# Claude Code as a worker of a channel, in a git worktree of its own beside the repository it is started in.
#
#   worker.sh [CHANNEL [OPTION…]]     of the channel work, unless told; options are those of `mcp-bus worker run`
#
# It reads and edits the files of that worktree, and nothing else: it has no shell, no network, and nothing that the
# project's own settings allow. README.md says how to give it more.
set -eu
channel=${1-work}
[ $# -eq 0 ] || shift

tree=$(git rev-parse --show-toplevel)-claude
if ! [ -d "$tree" ]; then
    git worktree prune
    git worktree add -q "$tree" claude 2>/dev/null || git worktree add -q -b claude "$tree"
fi

exec mcp-bus --agent claude worker run "$channel" --preset claude --cwd "$tree" --timeout 20m "$@" -- \
    --restricted --strict-mcp-config --permission-mode acceptEdits --tools Read,Grep,Glob,Edit,Write --max-budget-usd 2
