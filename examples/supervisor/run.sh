#!/usr/bin/env bash
# A fleet that is kept alive: one of three workers dies now and then, is started anew, and no task is lost.
#
#   examples/supervisor/run.sh     starts fleet.toml, gives it eight tasks, looks at it, and ends it
#
# MCP_BUS_DIR says where the bus is, else it is temporary.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
fleet=
trap '[ -z "$fleet" ] || kill "$fleet" 2>/dev/null || :; rm -rf "$work"' EXIT
export MCP_BUS_DIR=${MCP_BUS_DIR:-$work/bus}

tell() {
    echo "--- mcp-bus $*"
    mcp-bus -q "$@"
}

mcp-bus -q init >/dev/null
mcp-bus -q channel create text >/dev/null
mcp-bus -q channel create glass backoff_s=0 >/dev/null
mcp-bus -q worker up "$here/fleet.toml" &
fleet=$!

ids=()
for body in "one two" "three four five" "six" "seven eight"; do
    ids+=("$(mcp-bus -q --agent ann post text "$body" | cut -d' ' -f1)")
done
for body in "a plate" "fragile: a vase" "a bowl" "fragile: a bulb"; do
    ids+=("$(mcp-bus -q --agent ann post glass "$body" | cut -d' ' -f1)")
done
mcp-bus -q wait "${ids[@]}" --timeout 60s >/dev/null
echo "all ${#ids[@]} tasks are done"

tell worker ps
tell worker logs clumsy
tell worker stop clumsy
tell worker stop
wait "$fleet"
fleet=
tell ls
