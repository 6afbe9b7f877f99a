"""Everything by default, but room for the uploads, and nginx, which comes from an address of its own, may send."""

CONFIG = {
    "name": "filing",
    "files": {"free": 0, "quota": 1 << 40, "accel": "/contents/"},
    "proxies": ["127.0.0.2"],
    "upload_limit": 4 << 30,
}
