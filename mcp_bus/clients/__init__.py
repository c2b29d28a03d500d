"""Agent clients: where each keeps its MCP servers, and how ours gets in and out of there without harm."""
