"""Letters: mails made from a template and its values.

A template is a file NAME.txt: a line `Subject: ...`, then paragraphs separated by empty lines, with `{name}` where a
value goes.

Laws: a value can't add a header, a line or a tag. It becomes a link only where the template's line is nothing but
that URL. A recipient is one bare address.
"""

import html
import re
import string
import textwrap
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

import idna


class Template(NamedTuple):
    """A mail as its author wrote it, with `{name}` where values go."""

    subject: str
    paragraphs: list[list[str]]  # of lines
    names: frozenset[str]


class Rendered(NamedTuple):
    """A template with its values."""

    subject: str
    text: str
    page: str  # HTML


class Templates:
    """The templates NAME.txt in all `folders` that exist; a later folder wins.

    `sender` is like "Shoebox <hello@shoebox.example>"; every template may use the values in `always`.
    Raises ValueError for a sender or a template that can't be used.
    """

    def __init__(self, sender: str, always: Mapping[str, str], *folders: Path | None):
        self._sender = parse_sender(sender)
        self._always = always
        files = {file.stem: file for folder in folders if folder for file in sorted(folder.glob("*.txt"))}
        self._templates = {name: parse_template(name, file.read_text("utf-8")) for name, file in files.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._templates

    def compose(self, name: str, values: Mapping[str, str], *, to: str, id: str) -> EmailMessage:
        """The mail to one address; `id` is the left part of its Message-ID.

        Raises what `render` raises, and ValueError for a recipient that is no address.
        """
        subject, text, page = self.render(name, values)
        recipient = parse_recipient(to)
        message = EmailMessage(policy.SMTP if recipient.addr_spec.isascii() else policy.SMTPUTF8)
        message["From"] = self._sender
        message["To"] = recipient
        message["Subject"] = subject
        message["Date"] = datetime.now(UTC)
        message["Message-ID"] = f"<{id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic reply answers it
        message.set_content(text, cte=transfer(text))
        message.add_alternative(page, subtype="html", cte=transfer(page))
        return message

    def render(self, name: str, values: Mapping[str, str]) -> Rendered:
        """The template `name`, filled with these values and those that every template may use.

        Raises KeyError when there is no such template, ValueError when a value is missing or the subject is not one
        line.
        """
        template, values = self._templates[name], {**values, **self._always}
        if missing := template.names - values.keys():
            raise ValueError(f"mail template {name}: no value for {', '.join(sorted(missing))}")
        subject = template.subject.format_map(values)
        if has_controls(subject):
            raise ValueError(f"mail template {name}: control characters in the subject")
        # a value gets no line of its own: text chosen by a stranger must not look like our paragraph or button
        clean = {name: " ".join("".join(" " if is_control(c) else c for c in v).split()) for name, v in values.items()}
        filled = [[line.format_map(clean) for line in lines] for lines in template.paragraphs]
        links = [
            [is_link(line, full) for line, full in zip(*both, strict=True)]
            for both in zip(template.paragraphs, filled, strict=True)
        ]
        # wrapping must not break a line within or before such a value either: lines with a value of several words stay
        several = {name for name, value in clean.items() if " " in value}
        wrapped = [
            [full if several & fields_of(line) else wrap(full) for line, full in zip(*both, strict=True)]
            for both in zip(template.paragraphs, filled, strict=True)
        ]
        return Rendered(subject, to_text(wrapped), to_html(subject, filled, links))


def is_control(character: str) -> bool:
    """Whether it is a control character, a line or paragraph separator, or a lone surrogate, which can't be encoded."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")


def has_controls(text: str) -> bool:
    """Whether the text is more than one line, or can't be shown."""
    return any(map(is_control, text))


def parse_recipient(to: str) -> Address:
    """One bare address, its domain in ASCII (IDNA). Raises ValueError."""
    local, _, domain = to.rpartition("@")
    # no quoted local parts: a server that parses them differently would deliver to somebody else
    if not re.fullmatch(r'[^\s"(),:;<>@\[\]\\]+', local) or has_controls(local):
        raise ValueError("no e-mail address: its part before the @")
    if not domain.isascii():
        # IDNA 2008: Python's own codec is IDNA 2003, which maps some domains to others (straße to strasse)
        domain = idna.encode(domain).decode()
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", domain):
        raise ValueError("no e-mail address: its part after the @")
    return Address(username=local, domain=domain)


def parse_sender(sender: str) -> Address:
    """The one address in "Name <address>" or "address". Raises ValueError."""
    header = policy.SMTP.header_factory("From", "" if has_controls(sender) else sender)
    if header.defects or len(header.addresses) != 1 or not header.addresses[0].domain:
        raise ValueError(f"{sender!r} is no sender: write it like Shoebox <hello@shoebox.example>")
    address: Address = header.addresses[0]
    bare = parse_recipient(f"{address.username}@{address.domain}")
    return Address(address.display_name, bare.username, bare.domain)


def parse_template(name: str, content: str) -> Template:
    """Parse a template: `Subject: ...`, then paragraphs separated by empty lines. Raises ValueError."""
    first, _, body = content.partition("\n")
    if not first.startswith("Subject: ") or not body.strip():
        raise ValueError(f"mail template {name}: begin with a line `Subject: ...`, then write paragraphs")
    names = set()
    for _, field, form, conversion in string.Formatter().parse(content):
        if field is None:
            continue
        if not field.isidentifier() or form or conversion:
            raise ValueError(f"mail template {name}: {{{field}}} is no plain name; write {{{{ for a brace")
        names.add(field)
    blocks = re.split(r"\n\s*\n", body.strip())
    lines = [[line.strip() for line in block.splitlines()] for block in blocks]
    return Template(first.removeprefix("Subject: ").strip(), lines, frozenset(names))


def is_link(line: str, filled: str) -> bool:
    """Whether a template's line is only a URL; `filled` is that line with its values."""
    return not re.search(r"\s", line) and re.fullmatch(r"https?://[^\s<>\"]+", filled) is not None


def transfer(text: str) -> str:
    """The transfer encoding: 7bit where allowed (RFC 5322, §2.1.1), so that people can read the .eml file."""
    plain = text.isascii() and all(len(line) <= 900 for line in text.splitlines())
    return "7bit" if plain else "quoted-printable"


def fields_of(text: str) -> set[str]:
    """The names of the values that a text takes."""
    return {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}


def wrap(line: str) -> str:
    """The line, wrapped at 76 characters. A long word, like a URL, is never broken."""
    return textwrap.fill(line, 76, break_long_words=False, break_on_hyphens=False)


def to_text(paragraphs: list[list[str]]) -> str:
    """The plain text of a mail."""
    return "\n\n".join(map("\n".join, paragraphs)) + "\n"


PAGE = """\
<!doctype html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{subject}</title>
</head>
<body style="margin: 0; padding: 24px 12px; background: #f4f4f2">
<div style="max-width: 520px; margin: 0 auto; padding: 20px 32px; background: #ffffff; color: #222222;
 border: 1px solid #e4e4e0; border-radius: 10px; font: 16px/1.55 system-ui, -apple-system, Segoe UI, sans-serif;
 overflow-wrap: anywhere">
{body}
</div>
</body>
</html>
"""
PARAGRAPH = '<p style="margin: 14px 0">\n{}\n</p>'
LINK = '<a href="{url}" style="color: #1f5fbf">{url}</a>'
BUTTON = """\
<a href="{url}" style="display: inline-block; margin: 6px 0; padding: 11px 20px; background: #1f5fbf; color: #ffffff;
 font-weight: 600; text-decoration: none; border-radius: 7px">{label}</a><br>
<a href="{url}" style="font-size: 12px; color: #777777">{url}</a>"""


def to_html(subject: str, paragraphs: list[list[str]], links: list[list[bool]]) -> str:
    """The HTML of a mail. A URL on a line of its own becomes a link, or a button if the line above ends in a colon."""
    blocks = []
    for lines, marks in zip(paragraphs, links, strict=True):
        pieces: list[str] = []
        for number, (line, link) in enumerate(zip(lines, marks, strict=True)):
            safe = html.escape(line)
            if not link:
                pieces.append(safe)
            elif number and lines[number - 1].endswith(":") and not marks[number - 1]:
                pieces[-1] = BUTTON.format(url=safe, label=pieces[-1].removesuffix(":"))
            else:
                pieces.append(LINK.format(url=safe))
        blocks.append(PARAGRAPH.format("<br>\n".join(pieces)))
    return PAGE.format(subject=html.escape(subject), body="\n".join(blocks))
