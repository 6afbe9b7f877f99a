CONFIG = {"name": "pausing"}
