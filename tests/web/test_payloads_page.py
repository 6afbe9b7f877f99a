"""The page of payloads: each of its rows is so."""

import json
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest

from backlore import Payload, between, length, matching
from backlore.core.payload import Codec, Invalid, Malformed
from backlore.tools.typed.document import Document
from backlore.tools.typed.typescript import LANGUAGE
from backlore.web.openapi import describe_types
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "payloads.md").read_text()
NAMES = {
    each.__name__: each
    for each in (date, datetime, time, timedelta, Decimal, Enum, UUID, Payload, between, length, matching)
} | {"Annotated": Annotated, "Any": Any, "Literal": Literal}
exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], NAMES)
CELL = re.compile(r"`((?:[^`\\|]|\\.)*)`")
ROWS = [
    [cell.replace("\\|", "|") for cell in CELL.findall(line)] for line in PAGE.splitlines() if line.startswith("| `")
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_it_is_as_the_page_says(row: list[str]) -> None:
    kind, taken, *refused, schema, typed = row
    codec: Codec[Any] = Codec(eval(kind, NAMES))
    codec.from_json(taken.encode())
    for each in refused:
        with pytest.raises((Invalid, Malformed)):
            codec.from_json(each.encode())
    (described,), parts = describe_types([codec.type])
    assert described == json.loads(schema)
    document = {"info": {"title": "x"}, "paths": {}, "components": {"schemas": parts}}
    assert Document(document, LANGUAGE, {})._spell(described, "Type") == typed


def test_the_page_has_all_that_people_ask_for() -> None:
    text = " ".join(row[0] for row in ROWS)
    assert all(each in text for each in ("date", "Decimal", "Literal", "Color", "UUID", "Place", "list", "None"))
