"""Shoebox's configuration. docs/configuration.md of Backlore lists all keys; `address` shows a split by environment."""

from backlore import ENV

CONFIG = {
    "name": "shoebox",
    "port": 8000,
    "address": "https://shoebox.example" if ENV == "prod" else None,
    "proxies": ["127.0.0.1"] if ENV == "prod" else [],
}
