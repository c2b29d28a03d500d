"""Checks of this repository that no ready-made tool makes; run by `make check`."""
