"""Skills that several hosts share through a git repository of their own."""
