CONFIG = {"name": "breaking", "files": {"free": 0}}
