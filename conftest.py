"""What every run of pytest here has, whichever folder it is for."""

pytest_plugins = ["tests.tally"]
