"""The breaker: attacks every route of a server by its own description, before a stranger does."""
