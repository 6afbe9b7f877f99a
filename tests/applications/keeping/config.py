CONFIG = {"name": "keeping", "files": {"free": 0}}
