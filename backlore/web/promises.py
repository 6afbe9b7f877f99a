"""Reads the replies that a handler's docstring promises: `200 {"id": int, "tags": [str]}; 404 `note`; 429 `rate`.`

After each status comes what the reply carries: a shape in braces or brackets, a media type (`200 text/html`), or
error words in backticks. A word may bring keys of its own (`second` {ticket, factors}). In a shape a key stands with
a type or alone. Types are int, float, str, bool, dict, list, None, a shape, or `...` for anything.
"""

import re
from typing import Any, NamedTuple

STATUS = re.compile(r"(?<![\w`.])([2-5]\d\d)(?= [`{\[]| to `| [a-z]+/[a-z]|[.;,:]|\Z)")
WORD = re.compile(r"`([a-z]\w*)`(?: (\{[\w, ]+\}))?")
MEDIA = re.compile(r"\s*([a-z]+/[a-z0-9.+-]+)")
TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\.\.\.|\w+|[{}\[\]:,|])')

Schema = dict[str, Any]  # of JSON

TYPES: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "dict": {"type": "object"},
    "list": {"type": "array"},
    "None": {"type": "null"},
    "true": {"const": True},
    "false": {"const": False},
}


class Promise(NamedTuple):
    """What the reply with one status carries."""

    words: tuple[str, ...]  # error words
    keys: tuple[str, ...]  # further keys of an error, beside `error`
    shape: Schema | None  # of a JSON body
    media: str  # the media type of any other body, else ""


def read(text: str) -> dict[int, Promise]:
    """The promises of a docstring, by status."""
    found: dict[int, Promise] = {}
    _, *parts = STATUS.split(text)
    for status, said in zip(map(int, parts[::2]), parts[1::2], strict=True):
        words, keys, shape, media = found.get(status, Promise((), (), None, ""))
        if status < 400:
            named = MEDIA.match(said)
            found[status] = Promise((), (), shape or read_shape(said), named[1] if named else media)
            continue
        for word, more in WORD.findall(said):
            words += (word,)
            keys += tuple(re.findall(r"\w+", more))
        found[status] = Promise(words, keys, None, "")
    return found


def read_shape(text: str) -> Schema | None:
    """The JSON schema of the shape at the beginning of the text; None if there is none."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    tokens, at = [], 0
    while match := TOKEN.match(text, at):
        tokens.append(match[1])
        at = match.end()
    return _value([*tokens, ""])


def _value(tokens: list[str]) -> Schema:
    """Take a value, with its alternatives, off the tokens."""
    schema = _one(tokens)
    while tokens[0] == "|":
        tokens.pop(0)
        schema = {"anyOf": [*schema.get("anyOf", [schema]), _one(tokens)]}
    return schema


def _one(tokens: list[str]) -> Schema:
    token = tokens.pop(0) if tokens[0] else ""
    if token == "{":
        return _object(tokens)
    if token == "[":
        items = _value(tokens)
        while tokens[0] and tokens.pop(0) != "]":
            pass
        return {"type": "array", "items": items}
    return TYPES.get(token, {})


def _object(tokens: list[str]) -> Schema:
    properties: dict[str, Schema] = {}
    while tokens[0] and (token := tokens.pop(0)) != "}":
        if token in (",", "..."):
            continue
        properties[token.strip('"')] = _value(tokens) if tokens[0] == ":" and tokens.pop(0) else {}
    return {"type": "object", "properties": properties, "required": list(properties)}
