"""How redis keys carry their partition: one user's data lies together, and stays atomic when data is spread."""

TAG = 3  # characters of an owner's id

# The kinds of our own keys. A test looks whether all that we use are here.
WORDS = """
aside awaited blob challenge destroying devices email erased files hashes lease linked links mail moves newest openid
passkeys pending rate recovery reset served session sessions signup task ticket totp trash trashed upload uploads usage
user users verify
"""
OURS = frozenset(WORDS.split())


def key(kind: str, owner: str, *rest: str | int) -> str:
    """The key of something of `owner`, a user's id or a session: `note:{k3f}x9…:12` for ("note", "k3fx9…", 12)."""
    first = f"{kind}:{{{owner[:TAG]}}}{owner[TAG:]}"
    return ":".join((first, *map(str, rest))) if rest else first


def owner_of(text: str) -> str:
    """Whose a key is that `key` made of a kind and an owner alone, or with one part behind it that has no colon."""
    kind, _, rest = text.partition(":{")
    tag, _, rest = rest.partition("}")
    return tag + (rest.rpartition(":")[0] if kind == "blob" else rest)


def application_key(kind: str, owner: str, *rest: str | int) -> str:
    """The same for applications. Raises ValueError for a kind of ours: one would write over the other's data."""
    if kind in OURS:
        raise ValueError(f"{kind!r} is a kind of Backlore's own keys: choose another word, like 'my{kind}'")
    return key(kind, owner, *rest)
