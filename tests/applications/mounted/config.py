CONFIG = {"name": "mounted", "durability": "always"}
