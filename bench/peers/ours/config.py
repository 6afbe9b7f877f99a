"""Everything by default: what the contest runs is what an application gets."""

CONFIG = {"name": "bench"}
