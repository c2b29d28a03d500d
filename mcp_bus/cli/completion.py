"""completion: scripts by which a shell completes what is typed after `mcp-bus`.

They know nothing themselves: each asks the hidden verb `complete`.  They run the `mcp-bus` of the PATH, never the word
that was typed: who presses Tab after `./mcp-bus` has not yet decided to run what lies there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import Verb
from mcp_bus.cli.codes import OK

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call, Parser

BASH = r"""# mcp-bus: completion for bash 3.2 and newer
_mcp_bus() {
    local line typed=${2-${COMP_WORDS[COMP_CWORD]}}
    COMPREPLY=()
    while IFS= read -r line; do
        if [ "$line" = '<files>' ]; then
            compopt -o default 2>/dev/null
        else
            COMPREPLY+=("$line")
        fi
    done < <(command mcp-bus complete bash "$typed" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null </dev/null)
}
complete -F _mcp_bus mcp-bus
"""
ZSH = r"""#compdef mcp-bus
# mcp-bus: completion for zsh
_mcp_bus() {
    local line
    local -a names shown
    while IFS= read -r line; do
        if [[ $line == '<files>' ]]; then
            compset -P '--*='
            _files
            return
        fi
        names+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  -- }")
    done < <(command mcp-bus complete zsh "${words[CURRENT]}" "${(@)words[2,CURRENT]}" 2>/dev/null </dev/null)
    compadd -l -d shown -a names
}
if [[ $funcstack[1] == _mcp_bus ]]; then
    _mcp_bus "$@"
else
    compdef _mcp_bus mcp-bus
fi
"""
FISH = r"""# mcp-bus: completion for fish 3 and newer
function __mcp_bus
    set -l typed (commandline --current-token --cut-at-cursor)
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l found (command mcp-bus complete fish "$typed" $words[2..-1] "$typed" 2>/dev/null </dev/null)
    if test "$found" = '<files>'
        __fish_complete_path "$typed"
    else
        printf '%s\n' $found
    end
end
complete --command mcp-bus --no-files --arguments '(__mcp_bus)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
HELP = """\
mcp-bus completion bash
# to have it for good: bash, in ~/.bashrc
eval "$(mcp-bus completion bash)"
# zsh, in ~/.zshrc after compinit
eval "$(mcp-bus completion zsh)"
# fish, once
mcp-bus completion fish > ~/.config/fish/completions/mcp-bus.fish"""


def declare(parser: Parser) -> None:
    """Declare the options of `completion`."""
    parser.add_argument("shell", choices=tuple(SCRIPTS), metavar="SHELL", help=", ".join(SCRIPTS))


def completion(call: Call) -> int:
    """Print the script for a shell."""
    script = SCRIPTS[call.args.shell]
    if call.out.as_json:
        call.out.json({"shell": call.args.shell, "script": script})
    else:
        call.out.line(script.rstrip("\n"))
    return OK


VERBS = {"completion": Verb(declare, completion, HELP)}
