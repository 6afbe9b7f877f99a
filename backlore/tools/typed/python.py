"""Writes a client in Python."""

import builtins
import json
import keyword
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backlore.tools.typed.document import Document, Language, Shape, TypedField, TypedOperation, snake, unused

TEMPLATE = Path(__file__).parent / "client.py.in"
TYPING = ("Any", "Literal", "NamedTuple", "NotRequired", "TypeAlias", "TypedDict", "cast")
NAMES = frozenset({*dir(builtins), *keyword.kwlist})
WIDTH = 120


def quote(text: str) -> str:
    """A string literal, as a formatter leaves it."""
    return f'"{said[1:-1]}"' if (said := repr(text))[0] == "'" and '"' not in text else said


def choice(values: list[Any]) -> str:
    """The type of one of some values."""
    said = [quote(value) if isinstance(value, str) else repr(value) for value in values]
    return f"Literal[{', '.join(said)}]"


LANGUAGE = Language(
    plain={
        "string": "str",
        "integer": "int",
        "number": "float",
        "boolean": "bool",
        "null": "None",
        "file": "File",
        "any": "Any",
        "array": "list[Any]",
        "object": "Reply",
    },
    array="list[{}]",
    record="dict[str, {}]",
    fixed="tuple[{}]",
    choice=choice,
    method=str,
    members=NAMES | {"call", "cast"},
    types=NAMES | set(TYPING) | {"Client", "File", "Given", "Iterator", "Mapping", "Refused", "Reply"},
)


def write(document: dict[str, Any], command: str, names: Mapping[tuple[str, str], str]) -> str:
    """The text of a module with a client for the document's routes. `command` is the command that made it."""
    read = Document(document, LANGUAGE, names)
    parts = {
        "COMMAND": command,
        "TITLE": plain(read.title),
        "TYPES": "\n\n\n".join(map(declare, read.shapes)),
        "METHODS": "\n\n".join(map(define, read.operations)),
    }
    template = TEMPLATE.read_text("utf-8")
    text = re.sub("|".join(parts), lambda found: parts[found[0]], template)
    text = re.sub(r"\n{4,}", "\n\n\n", text)
    used = [name for name in TYPING if re.search(rf"\b{name}\b", text)]
    return text.replace("IMPORTS", ", ".join(used), 1)


def declare(shape: Shape) -> str:
    """A type's declaration. A type with a key that can't be a name is written as a call of TypedDict."""
    if shape.fields is None:
        return f"{shape.name}: TypeAlias = {quote(shape.type)}"
    if all(field.name.isidentifier() and field.name not in keyword.kwlist for field in shape.fields):
        text = docstring(shape.text, "    ")
        body = "".join(map(member, shape.fields))
        apart = "\n" if text and body else ""
        return f"class {shape.name}(TypedDict):\n{text}{apart}{body}".rstrip() + ("" if text or body else "\n    pass")
    lines = "".join(f"{comment(f.text, '        ')}        {quote(f.name)}: {quote(wrap(f))},\n" for f in shape.fields)
    return f"{shape.name} = TypedDict(\n    {quote(shape.name)},\n    {{\n{lines}    }},\n)"


def member(field: TypedField) -> str:
    """A field of a type, with its bounds above it."""
    return f"{comment(field.text, '    ')}    {field.name}: {wrap(field)}\n"


def wrap(field: TypedField) -> str:
    """The type of a field."""
    return field.type if field.required else f"NotRequired[{field.type}]"


def define(operation: TypedOperation) -> str:
    """A method of the client."""
    taken = {*keyword.kwlist, "self", "body", "query", "cast"}
    parts = {field.name: unused([snake(field.name) or "value"], taken) for field in operation.parts}
    words = ["self", *(f"{parts[field.name]}: {field.type}" for field in operation.parts)]
    pieces = enumerate(re.split(r"\{([^}]+)\}", operation.path))
    path = "".join(f"{{_part({parts[word]})}}" if at % 2 else brace(word) for at, word in pieces)
    given = [quote(operation.method), f"f{json.dumps(path)}" if operation.parts else json.dumps(operation.path)]
    if operation.body:
        words.append(f"body: {operation.body.name}")
        given.append("form=body" if operation.is_form else "body=body")
    if operation.query:
        words.append(f"query: {operation.query.name}{' | None = None' if operation.optional else ''}")
        given.append("query=query")
    reply = operation.reply or "Reply"
    head = across(f"    def {operation.name}(", words, f") -> {reply}:", "    ")
    if operation.reply:
        inner = f"self.call({', '.join(given)})"
        line = across("        return cast(", [quote(reply), inner], ")", "        ")
    else:
        line = across("        return self.call(", given, ")", "        ")
    text = docstring(operation.text, "        ")
    return f"{head}\n{text}{line}"


def across(head: str, words: list[str], tail: str, indent: str) -> str:
    """A call or a signature: on one line if it fits, else with a line for each word."""
    line = f"{head}{', '.join(words)}{tail}"
    if len(line) <= WIDTH:
        return line
    return f"{head}\n" + "".join(f"{indent}    {word},\n" for word in words) + f"{indent}{tail}"


def brace(text: str) -> str:
    """Text that stands for itself in an f-string."""
    return text.replace("{", "{{").replace("}", "}}")


def plain(text: str) -> str:
    """Text that stands for itself in a docstring."""
    return re.sub(r'"(?="")|"\Z', r'\\"', text.replace("\\", "\\\\"))


def docstring(text: str, indent: str) -> str:
    """A docstring; "" for no text."""
    lines = [line for each in plain(text.strip()).splitlines() for line in textwrap.wrap(each, 105) or [""]]
    if len(lines) < 2:
        return f'{indent}"""{lines[0]}"""\n' if lines else ""
    said = "\n".join(f"{indent}{line}".rstrip() for line in lines)
    return f'{indent}"""{said.lstrip()}\n{indent}"""\n'


def comment(text: str, indent: str) -> str:
    """A comment above something; "" for no text."""
    return "".join(f"{indent}# {line}\n" for line in textwrap.wrap(" ".join(text.split()), 110))
