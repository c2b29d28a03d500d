"""Signatures: keys of agents, which of them this user trusts, and what they say about bytes on a bus."""
