CONFIG = {
    "name": "kinds",
    "body_limit": 20_000,
    "upload_limit": 1_000_000,
    "upload_parts": 5,
    "body_timeout": 2,
    "upload_timeout": 6,
    "header_timeout": 2,
    "proxies": ["127.0.0.0/8"],
    "admins": ["admin@example.com"],
    "whitelist": None,
    "drain": 5,
}
