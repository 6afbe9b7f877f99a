"""Writes a client in TypeScript."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backlore.tools.typed.document import Document, Language, Shape, TypedField, TypedOperation, camel, snake, unused

TEMPLATE = Path(__file__).parent / "client.ts.in"
# Names that no parameter may have: words of the language, and what a method uses itself.
RESERVED = """arguments await break case catch class const continue debugger default delete do else enum eval export
extends false finally for function if implements import in instanceof interface let new null package part private
protected public return static super switch this throw true try typeof var void while with yield"""
# Names that the template defines, and names that the language has built in.
TYPES = """AbortSignal Array Blob Boolean Client Error FormData Given Headers JSON Map Number Object Omit Partial
Promise RangeError Record Refused Reply Response String Symbol URLSearchParams"""


def choice(values: list[Any]) -> str:
    """The type of one of some values."""
    return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)


LANGUAGE = Language(
    plain={
        "string": "string",
        "integer": "number",
        "number": "number",
        "boolean": "boolean",
        "null": "null",
        "file": "Blob",
        "any": "unknown",
        "array": "unknown[]",
        "object": "Reply",
    },
    array="({})[]",
    record="Record<string, {}>",
    fixed="[{}]",
    choice=choice,
    method=camel,
    members=frozenset({"constructor", "call", "timeout"}),
    types=frozenset(TYPES.split()),
)


def write(document: dict[str, Any], command: str, names: Mapping[tuple[str, str], str]) -> str:
    """The text of a module with a client for the document's routes. `command` is the command that made it."""
    read = Document(document, LANGUAGE, names)
    parts = {
        "COMMAND": command,
        "TITLE": read.title.replace("*/", "* /"),
        "TYPES": "\n\n".join(map(declare, read.shapes)),
        "METHODS": "\n\n".join(map(define, read.operations)),
    }
    text = re.sub("|".join(parts), lambda found: parts[found[0]], TEMPLATE.read_text("utf-8"))
    return re.sub(r"\n{3,}", "\n\n", text)


def declare(shape: Shape) -> str:
    """A type's declaration."""
    if shape.fields is None:
        return f"{comment(shape.text, '')}export type {shape.name} = {tidy(shape.type)};"
    if not shape.fields:
        return f"{comment(shape.text, '')}export type {shape.name} = Record<string, never>;"
    lines = "".join(map(member, shape.fields))
    return f"{comment(shape.text, '')}export interface {shape.name} {{\n{lines}}}"


def member(field: TypedField) -> str:
    """A field of a type, with its bounds above it."""
    name = field.name if re.fullmatch(r"[A-Za-z_$][\w$]*", field.name, re.ASCII) else json.dumps(field.name)
    mark = "" if field.required else "?"
    return f"{comment(field.text, '  ')}  {name}{mark}: {tidy(field.type)};\n"


def define(operation: TypedOperation) -> str:
    """A method of the client."""
    taken = {*RESERVED.split(), "body", "query"}
    parts = {field.name: unused([camel(snake(field.name)) or "value"], taken) for field in operation.parts}
    path = "".join(f"${{part({parts[word]})}}" if at % 2 else plain(word) for at, word in split(operation.path))
    words = [f"{parts[field.name]}: {tidy(field.type)}" for field in operation.parts]
    given = []
    if operation.body:
        words.append(f"body: {operation.body.name}")
        given.append("form: body" if operation.is_form else "body")
    if operation.query:
        words.append(f"query: {operation.query.name}{' = {}' if operation.optional else ''}")
        given.append("query")
    reply = tidy(operation.reply or "Reply")
    kind = f"<{reply}>" if operation.reply else ""
    quote = "`" if operation.parts else '"'
    words_sent = [f'"{operation.method}"', f"{quote}{path}{quote}", *([f"{{ {', '.join(given)} }}"] if given else [])]
    call = f"this.call{kind}({', '.join(words_sent)})"
    if len(call) > 108:  # with its indent and `return`
        call = f"this.call{kind}(\n" + "".join(f"      {word},\n" for word in words_sent) + "    )"
    head = f"  {operation.name}({', '.join(words)}): Promise<{reply}> {{"
    if len(head) > 120:
        head = f"  {operation.name}(\n" + "".join(f"    {word},\n" for word in words) + f"  ): Promise<{reply}> {{"
    return f"{comment(operation.text, '  ')}{head}\n    return {call};\n  }}"


def split(path: str) -> Iterator[tuple[int, str]]:
    """The pieces of a path; every second one is the name of a parameter."""
    return enumerate(re.split(r"\{([^}]+)\}", path))


def plain(text: str) -> str:
    """Text that stands for itself between backticks or quotes."""
    return re.sub(r'([`"\\$])', r"\\\1", text)


def tidy(kind: str) -> str:
    """A type without parentheses that it doesn't need."""
    return re.sub(r"\((\w+)\)\[\]", r"\1[]", kind)


def comment(text: str, indent: str) -> str:
    """A comment above something; "" for no text."""
    lines = [line for each in text.replace("*/", "* /").splitlines() for line in textwrap.wrap(each, 105) or [""]]
    if len(lines) < 2:
        return f"{indent}/** {lines[0]} */\n" if lines else ""
    return f"{indent}/**\n" + "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines) + f"{indent} */\n"
