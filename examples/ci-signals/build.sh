#!/bin/sh
# lib's build: releases a version, tells who builds on it, and goes by the answer.
#
#   ./build.sh VERSION [topic|abq]     exit code 0: their tests passed; 1: they failed; 4: nobody answered in time
set -eu
version=$1

git add -A
git commit -qm "lib $version"
git tag "v$version"

signal="{\"signal\": \"build_complete\", \"version\": \"$version\"}"
case ${2-topic} in
topic)
    told=$(mcp-bus -q --json send '#builds' signal "$signal" --wait 60s)
    answer=$(printf '%s' "$told" | python3 -c 'import json, sys; print(json.load(sys.stdin)["answer"]["body"])')
    ;;
abq)
    told=$(mcp-bus abq send app-agent signal "$signal" --wait --timeout 60) || exit 4
    answer=$(printf '%s\n' "$told" | sed -n 's/^Response \[success\]: //p')
    ;;
esac

echo "lib $version: $answer"
case $answer in
*'"tests_passed"'*) ;;
*) exit 1 ;;
esac
