#!/usr/bin/env bash
# A test runner and an app agent: red tests become a task for the agent, who mends the code; again, until they are green.
#
#   examples/test-runner/run.sh [ATTEMPTS]     exit code 0: green; 6: the attempts (4) are spent, and a person has to look
#
# run-tests.sh is the test runner, agent.py stands in for a model. With Claude Code instead of it, the second worker is
#
#   mcp-bus --agent app worker run fixes --cwd app --preset claude -- --allowedTools "Read,Edit"
#
# MCP_BUS_DIR says where the bus is, else it is temporary, as the app is.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
workers=()
trap '[ ${#workers[@]} -eq 0 ] || kill "${workers[@]}" 2>/dev/null || :; rm -rf "$work"' EXIT
export MCP_BUS_DIR=${MCP_BUS_DIR:-$work/bus}

# worker AGENT CHANNEL COMMAND: works in the background.
worker() {
    mcp-bus -q --agent "$1" worker run "$2" --cwd "$work" -- "$3" >/dev/null 2>&1 &
    workers+=($!)
}

cat >"$work/shop.py" <<'EOF'
def total(prices):
    return sum(prices) - 1


def mean(prices):
    return total(prices) / 2
EOF
cat >"$work/test_shop.py" <<'EOF'
import unittest

import shop


class ShopTest(unittest.TestCase):
    def test_total(self):
        self.assertEqual(shop.total([3, 4]), 7)

    def test_mean(self):
        self.assertEqual(shop.mean([1, 2, 6]), 3)
EOF

mcp-bus -q init >/dev/null
mcp-bus -q channel create tests >/dev/null
mcp-bus -q channel create fixes >/dev/null
worker test-runner tests "$here/run-tests.sh"
worker app fixes "$here/agent.py"

# The budget is the task's own: each attempt is one correction.
id=$(mcp-bus -q --agent ci post tests "is the shop green?" --max-attempts "${1-4}" --backoff 0 | cut -d' ' -f1)
code=0
mcp-bus -q --agent ci wait "$id" --timeout 60s || code=$?
mcp-bus -q show "$id" | sed -n '/^history/,/^$/p'
kill "${workers[@]}"
wait
exit "$code"
