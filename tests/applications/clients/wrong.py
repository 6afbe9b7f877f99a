"""What must not pass mypy, with the error that each line must be."""

from odd import Client as Odd
from shoebox import Client


def wrong(client: Client, odd: Odd) -> None:
    client.create_note({})  # typeddict-item
    client.create_note({"text": 1})  # typeddict-item
    client.create_note({"text": "", "admin": True})  # typeddict-unknown-key
    client.read_note("1")  # arg-type
    client.create_note({"text": ""})["number"]  # typeddict-item
    client.get_admin_users({"sort": "size"})  # arg-type
    odd.upload({"title": ""})  # typeddict-item
    odd.elsewhere()  # attr-defined
