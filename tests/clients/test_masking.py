"""Settings as they are shown: what looks secret is not, in whatever form; what is not secret is."""

from __future__ import annotations

import pytest

from mcp_bus.clients import masking, texts

JSON, TOML, YAML = texts.JSON, texts.TOML, texts.YAML


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (JSON, '{"gh":{"env":{"GITHUB_TOKEN":"SECRETONE"}}}'),
        (JSON, '{"apiKey" : "SECRETONE", "password": "SECRETONE"}'),
        (JSON, '{"headers": {"Authorization": "Bearer SECRETONE", "x": 1}}'),
        (JSON, '{"credentials": {\n  "a": "SECRETONE",\n  "b": ["SECRETONE"]\n}}'),
        (JSON, '{"tokens": [\n  "SECRETONE"\n]}'),
        (JSON, '{"args": ["--api-key", "SECRETONE", "--token=SECRETONE", "-y"]}'),
        (JSON, '{"args": [\n  "--client-secret",\n  "SECRETONE"\n]}'),
        (JSON, '{"url": "https://me:SECRETONE@example.com/?access_token=SECRETONE&a=b"}'),
        (JSON, '{"command": "curl -H \'Authorization: Bearer SECRETONE\' --password SECRETONE"}'),
        (JSON, '{"args": ["-H", "X: Bearer SECRETONE", "Basic SECRETONE=="]}'),
        (JSON, '{"SECRET": "SECRETONE\\u00e9\\nSECRETONE", /* c */ "a": 1}'),
        (JSON, '{"a": "ghp_SECRETONE", "b": "sk-SECRETONE"}'),
        (JSON, '{"api_key": "SECRETONE", '),
        (TOML, "[a.env]\nGITHUB_TOKEN = \"SECRETONE\"\n'API-KEY' = 'SECRETONE'\n"),
        (TOML, 'a = { http_headers = { "Authorization" = "Bearer SECRETONE" } }\n'),
        (TOML, 'bearer_token = """\nSECRETONE\nSECRETONE2"""\n'),
        (YAML, "envs:\n  OPENAI_API_KEY: SECRETONE\n  password: 'SECRETONE'\n"),
        (YAML, "secret: |\n  SECRETONE\n  SECRETONE\n"),
        (YAML, "cookies:\n  - SECRETONE\n"),
    ],
)
def test_what_looks_secret_is_masked(form: str, text: str) -> None:
    made = masking.masked(text, form)
    assert "SECRETONE" not in made
    assert masking.MASK in made
    assert made.count("\n") == text.count("\n")


@pytest.mark.parametrize("form", [JSON, TOML, YAML, ""])
def test_what_is_not_is_as_it_was(form: str) -> None:
    text = '{"bus": {"command": "/x/mcp-bus", "args": ["serve", "--read-only"], "env": {"MCP_BUS_AGENT": "ann"}}}'
    assert masking.masked(text, form) == text


def test_short_values_are_masked_where_they_are_set_and_nowhere_else() -> None:
    assert masking.masked('{"token": "a", "args": ["a"]}', JSON) == '{"token": "***", "args": ["a"]}'


def test_a_long_line_is_masked_in_no_time() -> None:
    text = '{"x": "' + "a" * 2_000_000 + '", "token": "SECRETONE"}'
    assert masking.masked(text, JSON).endswith('"token": "***"}')
