CONFIG = {"name": "lasting", "files": {"free": 0}, "admins": ["boss@example.com"], "body_timeout": 60}
