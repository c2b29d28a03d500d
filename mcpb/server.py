"""What a desktop program starts of the bundle: the server, from the mcp_bus that lies beside this file."""

import sys

from mcp_bus.cli.main import run

if __name__ == "__main__":
    sys.argv[1:] = ["serve"]
    run()
