"""Everything by default: what the contest runs is what an application gets. One contestant remembers no sessions."""

import os

CONFIG = {"name": "bench"}
if memory := os.environ.get("SESSION_MEMORY"):
    CONFIG["session_memory"] = float(memory)
