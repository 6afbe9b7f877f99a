CONFIG = {"name": "odd"}
