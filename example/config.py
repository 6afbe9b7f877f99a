"""Shoebox's configuration. All keys are in Backlore's README; split one by environment as shown at `address`."""

from backlore import ENV

CONFIG = {
    "name": "shoebox",
    "port": 8000,
    "address": "https://shoebox.example" if ENV == "prod" else None,
    "proxies": ["127.0.0.1"] if ENV == "prod" else [],
}
