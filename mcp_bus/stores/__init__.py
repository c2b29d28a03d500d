"""Where tasks are kept: on plain files, or in memory for tests."""
