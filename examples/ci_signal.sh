#!/usr/bin/env bash
# A pipeline asks for a check, waits for the answer, and goes on or stops; through the command line.
#
#   examples/ci_signal.sh ask "REVISION"     post the check, wait for it; exit code 0 only if the answer is "pass"
#   examples/ci_signal.sh answer COMMAND…    take one check, run COMMAND with the revision as its last argument,
#                                            and answer "pass" or "fail"
#   examples/ci_signal.sh                    both, to see it work
#
# COMMAND is the operator's; what was posted is only ever one argument of it, never a command.
# MCP_BUS_DIR says where the bus is, as always.
set -euo pipefail

channel=ci-check

ask() {
    local revision=$1 id code=0
    # The key makes a second run of the same pipeline wait for the same check.
    id=$(mcp-bus --quiet --agent pipeline post "$channel" "$revision" --title "check $revision" \
        --key "check-$revision" | cut -d' ' -f1)
    echo "asked for $revision: $id"
    # 0 it is done, 1 cancelled or expired, 4 not in time, 6 dead or blocked: a person has to look.
    mcp-bus --quiet --json wait "$id" --timeout 60s >"$work/answer.json" || code=$?
    if [ "$code" -ne 0 ]; then
        echo "no answer (exit code $code)"
        return "$code"
    fi
    answer=$(field 'tasks[0].task.result.content' <"$work/answer.json")
    echo "the answer is: $answer"
    [ "$answer" = pass ]
}

answer() {
    local id token revision
    mcp-bus --quiet --agent checker claim "$channel" --wait 60s --lease 10m --json >"$work/task.json"
    id=$(field ticket.id <"$work/task.json")
    token=$(field ticket.token <"$work/task.json")
    revision=$(field body <"$work/task.json")
    echo "checking $revision"
    if "$@" "$revision"; then
        mcp-bus --quiet --agent checker submit "$id" --token "$token" --done pass
    else
        mcp-bus --quiet --agent checker submit "$id" --token "$token" --done fail
    fi
}

# Reads one value out of JSON: names joined by dots, [0] for the first of a list.
field() {
    python3 -c 'import functools, json, re, sys
step = lambda value, name: value[int(name)] if name.isdigit() else value[name]
print(functools.reduce(step, re.findall(r"\w+", sys.argv[1]), json.load(sys.stdin)))' "$1"
}

mcp-bus --quiet init >/dev/null  # makes the bus unless it is there
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case ${1-} in
ask) ask "$2" ;;
answer) shift && answer "$@" ;;
*)
    # A revision of its own for each run: one that was checked before would be answered from the bus, and the
    # checker would wait in vain.
    "$0" answer test -n &
    "$0" ask "revision-$(date +%s).$$"
    wait
    ;;
esac
