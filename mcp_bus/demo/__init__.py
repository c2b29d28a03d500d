"""A demonstration anyone can run: real processes, real servers, a real bus, every step checked."""
