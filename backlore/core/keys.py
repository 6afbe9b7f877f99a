"""How redis keys carry their partition: one user's keys lie together, and stay atomic when data is sharded."""

TAG = 3  # characters of an owner's id

# The kinds of our own keys. A test checks that every kind in use is listed.
WORDS = """
aside awaited blob challenge destroying devices email erased files hashes lease linked links mail moves newest openid
passkeys pending rate recovery reset served session sessions signup task ticket totp trash trashed upload uploads usage
user users verify
"""
OURS = frozenset(WORDS.split())


def key(kind: str, owner: str, *rest: str | int) -> str:
    """The key of something that `owner` has, a user's id or a session: ("note", "k3fx9…", 12) → `note:{k3f}x9…:12`."""
    first = f"{kind}:{{{owner[:TAG]}}}{owner[TAG:]}"
    return ":".join((first, *map(str, rest))) if rest else first


def owner_of(text: str) -> str:
    """The owner of a key that `key` made from a kind and an owner.

    A key of the kind `blob` has one part behind its owner, which contains no colon. Other keys must have none.
    """
    kind, _, rest = text.partition(":{")
    tag, _, rest = rest.partition("}")
    return tag + (rest.rpartition(":")[0] if kind == "blob" else rest)


def application_key(kind: str, owner: str, *rest: str | int) -> str:
    """`key` for applications. Raises ValueError for a kind of Backlore's own: one would overwrite the other's data."""
    if kind in OURS:
        raise ValueError(f"{kind!r} is a kind of Backlore's own keys: choose another word, like 'my{kind}'")
    return key(kind, owner, *rest)
