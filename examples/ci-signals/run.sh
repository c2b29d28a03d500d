#!/usr/bin/env bash
# CI signals between two git repositories on one bus: lib releases, app tries the release and answers.
#
#   examples/ci-signals/run.sh     makes both repositories in a temporary folder, and lets them talk: first by a topic,
#                                  then by abq's verbs. Releases 0.2.0 and 0.4.0 are good, 0.3.0 and 0.5.0 break app.
#
# build.sh is lib's, on-build.sh is app's; copy these. MCP_BUS_DIR says where the bus is, else it is temporary too.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
app=
trap '[ -z "$app" ] || kill "$app" 2>/dev/null || :; rm -rf "$work"' EXIT
export MCP_BUS_DIR=${MCP_BUS_DIR:-$work/bus}
export ABQ_HOME=$MCP_BUS_DIR
# Who speaks is told by git: an agent is a repository and its branch.
unset MCP_BUS_AGENT MCP_BUS_SESSION GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=ci GIT_AUTHOR_EMAIL=ci@git.example
export GIT_COMMITTER_NAME=ci GIT_COMMITTER_EMAIL=ci@git.example

# repository NAME FILE…: makes one with these files.
repository() {
    git init -q -b main "$work/$1"
    git -C "$work/$1" remote add origin "https://git.example/acme/$1"
    cp "${@:2}" "$work/$1"
}

# release WORD VERSION HOW: makes lib greet with that word, and runs its build.
release() {
    local code=0
    echo "greet() { echo \"$1 \$1\"; }" >"$work/lib/lib.sh"
    (cd "$work/lib" && ./build.sh "$2" "$3") || code=$?
    echo "lib's build of $2 ended with exit code $code"
}

# listen COMMAND…: runs app's side in the background.
listen() {
    (cd "$work/app" && exec mcp-bus "$@" --handler ./on-build.sh >/dev/null) &
    app=$!
}

hush() {
    kill "$app"
    wait "$app" || :
    app=
}

repository lib "$here/build.sh"
repository app "$here/on-build.sh"
cd "$work/app"
git remote add lib ../lib
echo '. ./lib.sh && [ "$(greet ann)" = "hello ann" ]' >test.sh
echo 'greet() { echo "hello $1"; }' >lib.sh
echo 0.1.0 >lib.version
git add -A && git commit -qm "lib 0.1.0"

mcp-bus -q init >/dev/null
mcp-bus -q channel create builds kind=topic >/dev/null
listen -q watch builds --match signal=build_complete --reply
release hello 0.2.0 topic
release hi 0.3.0 topic
hush

mcp-bus -q channel create app-agent >/dev/null
listen abq watch app-agent
release hello 0.4.0 abq
release hi 0.5.0 abq
hush

echo "what app took over:"
git log --reverse --format='  %s'
