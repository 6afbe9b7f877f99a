"""How redis keys carry their partition: one user's data lies together, and stays atomic when data is spread."""

TAG = 3  # characters of an owner's id


def key(kind: str, owner: str, *rest: str | int) -> str:
    """The key of something of `owner`, a user's id or a session: `note:{k3f}x9…:12` for ("note", "k3fx9…", 12)."""
    return ":".join((f"{kind}:{{{owner[:TAG]}}}{owner[TAG:]}", *map(str, rest)))
