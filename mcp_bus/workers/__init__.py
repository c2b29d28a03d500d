"""Agents that do not speak MCP: commands that are run for tasks and messages, and kept alive."""
