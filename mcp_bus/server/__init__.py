"""The bus as an MCP server.  The only package that knows MCP."""
