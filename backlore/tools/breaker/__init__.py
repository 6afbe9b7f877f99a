"""The breaker: attacks every route of a server by the server's own description, before a stranger does."""
