"""What a check has seen so far, on the disk instead of in memory: a private database that ends with the process."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from backlore.clients.disk import KeptContent
from backlore.services.files.catalog import Blob, File

TABLES = """
PRAGMA journal_mode = off;
PRAGMA cache_size = -8192;
CREATE TABLE owners (user PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE blobs (id, size, hash, live, trash, version, place, pushed, user, PRIMARY KEY (id, user)) WITHOUT ROWID;
CREATE INDEX of_user ON blobs (user);
CREATE TABLE refs (user, blob, kind, field, name, PRIMARY KEY (user, blob, kind, field)) WITHOUT ROWID;
CREATE INDEX of_blob ON refs (blob);
CREATE TABLE held (id PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE disk (id PRIMARY KEY, size, age) WITHOUT ROWID;
CREATE TABLE objects (id, user, folder, size, age, PRIMARY KEY (id, user, folder)) WITHOUT ROWID;
"""
# Who has each content of a user, where that isn't what the catalog says
MISCOUNTED = """
SELECT id, version, sum(kind IS 'files') AS in_files, sum(kind IS 'trash') AS in_trash
FROM blobs LEFT JOIN refs ON refs.user = blobs.user AND refs.blob = blobs.id
WHERE blobs.user = ? GROUP BY id HAVING in_files != live OR in_trash != trash
"""
UNKNOWN = """
SELECT DISTINCT blob FROM refs WHERE user = ? AND NOT EXISTS
(SELECT 1 FROM blobs WHERE blobs.id = refs.blob AND blobs.user = refs.user)
"""
ORPHANS_OF_DISK = """
SELECT id, size, age FROM disk WHERE age >= ?
AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.id = disk.id) AND NOT EXISTS (SELECT 1 FROM refs WHERE blob = disk.id)
AND NOT EXISTS (SELECT 1 FROM held WHERE held.id = disk.id)
"""
ORPHANS_OF_S3 = """
SELECT id, user, folder, age FROM objects WHERE age >= ? AND NOT EXISTS
(SELECT 1 FROM blobs WHERE blobs.id = objects.id AND blobs.user = objects.user)
AND NOT EXISTS (SELECT 1 FROM refs WHERE refs.blob = objects.id AND refs.user = objects.user)
AND NOT EXISTS (SELECT 1 FROM held WHERE held.id = objects.id)
"""
CONTENTS = """
SELECT user, id, (SELECT size FROM disk WHERE disk.id = blobs.id) AS here,
(SELECT size FROM objects WHERE objects.id = blobs.id AND objects.user = blobs.user AND folder = 'files'),
(SELECT size FROM objects WHERE objects.id = blobs.id AND objects.user = blobs.user AND folder = 'trash'),
size, hash, live, trash, version, place, pushed
FROM blobs WHERE live > 0 OR trash > 0
"""


class Spool:
    """Tables of what was seen. What was seen twice is there once."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.executescript(TABLES)

    def close(self) -> None:
        """Forget all."""
        self._base.close()

    def add_owners(self, users: Iterable[str]) -> None:
        """Who has something in the catalog."""
        self._many("INSERT OR IGNORE INTO owners VALUES (?)", ((user,) for user in users))

    def add_blobs(self, blobs: Iterable[tuple[str, Blob]]) -> None:
        """What is known of blobs now."""
        rows = (
            (each.id, each.size, each.hash, each.live, each.trash, each.version, each.where, each.pushed, user)
            for user, each in blobs
        )
        self._many("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def forget_blob(self, user: str, id: str) -> None:
        """It is no more."""
        self._base.execute("DELETE FROM blobs WHERE id = ? AND user = ?", (id, user))

    def add_refs(self, user: str, kind: str, files: dict[str, File]) -> None:
        """Files, or what is in the trash, with their blobs."""
        rows = ((user, blob, kind, field, file.name) for field, file in files.items() for blob, _ in file.blobs)
        self._many("INSERT OR REPLACE INTO refs VALUES (?, ?, ?, ?, ?)", rows)

    def forget_refs(self, user: str) -> None:
        """Count anew."""
        self._base.execute("DELETE FROM refs WHERE user = ?", (user,))

    def add_held(self, blobs: Iterable[str]) -> None:
        """What uploads have that are under way."""
        self._many("INSERT OR IGNORE INTO held VALUES (?)", ((blob,) for blob in blobs))

    def add_disk(self, contents: Iterable[KeptContent]) -> None:
        """What is on the disk; of more than one copy the longest counts, and the youngest."""
        text = (
            "INSERT INTO disk VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET size = max(size, excluded.size), age = min(age, excluded.age)"
        )
        self._many(text, contents)

    def add_objects(self, objects: Iterable[tuple[str, str, str, int, float]]) -> None:
        """What is in S3: blob, user, folder, bytes, seconds."""
        self._many("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", objects)

    def owners(self, after: str, limit: int) -> list[str]:
        """Who comes next."""
        return self._column("SELECT user FROM owners WHERE user > ? ORDER BY user LIMIT ?", after, limit)

    def of_user(self, user: str, after: str, limit: int) -> list[str]:
        """The blobs of a user that come next."""
        return self._column("SELECT id FROM blobs WHERE user = ? AND id > ? ORDER BY id LIMIT ?", user, after, limit)

    def hashed(self, user: str, after: str, limit: int) -> list[tuple[str, str]]:
        """The next blobs of a user that came whole, with their hashes."""
        which = "user = ? AND id > ? AND hash != '' AND (live > 0 OR trash > 0)"
        text = f"SELECT hash, id FROM blobs WHERE {which} ORDER BY id LIMIT ?"
        return self._base.execute(text, (user, after, limit)).fetchall()

    def unknown(self, user: str) -> list[str]:
        """Blobs of a user's files of which nothing is known."""
        return self._column(UNKNOWN, user)

    def miscounted(self, user: str) -> list[tuple[str, int, int, int]]:
        """Blobs of a user counted wrongly: version, how many files have them, and how many of the trash."""
        return self._base.execute(MISCOUNTED, (user,)).fetchall()

    def count_of(self, user: str) -> int:
        """How many blobs a user has."""
        return int(self._base.execute("SELECT count(*) FROM blobs WHERE user = ?", (user,)).fetchone()[0])

    def bytes_of(self, user: str) -> int:
        """What a user's contents take that somebody has."""
        text = "SELECT coalesce(sum(size), 0) FROM blobs WHERE user = ? AND (live > 0 OR trash > 0)"
        return int(self._base.execute(text, (user,)).fetchone()[0])

    def refs_of(self, user: str, blob: str) -> list[tuple[str, str, str]]:
        """What has a blob: "files" or "trash", name or id, name."""
        text = "SELECT kind, field, name FROM refs WHERE user = ? AND blob = ?"
        return self._base.execute(text, (user, blob)).fetchall()

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self._base.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def orphans_of_disk(self, age: float) -> Iterator[tuple[str, int, float]]:
        """Contents that nobody has, of an age: name, bytes, seconds."""
        yield from self._base.execute(ORPHANS_OF_DISK, (age,))

    def orphans_of_s3(self, age: float) -> Iterator[tuple[str, str, str, float]]:
        """Objects that nobody has, of an age: blob, user, folder, seconds."""
        yield from self._base.execute(ORPHANS_OF_S3, (age,))

    def contents(self) -> Iterator[tuple[str, Blob, int | None, dict[str, int]]]:
        """Each blob that somebody has: user, what is known of it, bytes on the disk, bytes by folder in S3."""
        for user, id, here, files, trash, *known in self._base.execute(CONTENTS):
            there = {folder: size for folder, size in (("files", files), ("trash", trash)) if size is not None}
            yield user, Blob(id, *known), here, there

    def _many(self, text: str, rows: Iterable[Sequence[object]]) -> None:
        self._base.execute("BEGIN")
        self._base.executemany(text, rows)
        self._base.execute("COMMIT")

    def _column(self, text: str, *given: object) -> list[str]:
        return [each for (each,) in self._base.execute(text, given)]
