#!/bin/sh
# A command that takes its worker down with it, as running out of memory does: at the first attempt of what is fragile.
set -eu
case "$MCP_BUS_ATTEMPT $ABQ_MSG_CONTENT" in
'1 fragile'*)
    echo "dropped it" >&2
    kill -KILL "$PPID"
    ;;
esac
echo "carried at attempt $MCP_BUS_ATTEMPT"
