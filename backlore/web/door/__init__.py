"""HTTP/1.1 for the internet: an ASGI server on uvloop, its heads parsed by httptools (Node's llhttp)."""
