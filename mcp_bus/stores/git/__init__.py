"""The store that meets other hosts at a git remote."""
