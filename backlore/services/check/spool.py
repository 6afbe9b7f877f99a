"""Everything that a check has seen, on the disk instead of in memory: a private database that ends with the process."""

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
# The references to each content of a user, where they differ from the catalog's counts
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
    """Tables of what was seen. A thing that was seen twice is there once."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.executescript(TABLES)

    def close(self) -> None:
        """Drop the database."""
        self._base.close()

    def add_owners(self, users: Iterable[str]) -> None:
        """Users with entries in the catalog."""
        self._many("INSERT OR IGNORE INTO owners VALUES (?)", ((user,) for user in users))

    def add_blobs(self, blobs: Iterable[tuple[str, Blob]]) -> None:
        """The current records of blobs, with their users."""
        rows = (
            (each.id, each.size, each.hash, each.live, each.trash, each.version, each.where, each.pushed, user)
            for user, each in blobs
        )
        self._many("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def forget_blob(self, user: str, id: str) -> None:
        """Drop a blob that no longer exists."""
        self._base.execute("DELETE FROM blobs WHERE id = ? AND user = ?", (id, user))

    def add_refs(self, user: str, kind: str, files: dict[str, File]) -> None:
        """The references of files, or of files in the trash, to their blobs; `files` by name or id."""
        rows = ((user, blob, kind, field, file.name) for field, file in files.items() for blob, _ in file.blobs)
        self._many("INSERT OR REPLACE INTO refs VALUES (?, ?, ?, ?, ?)", rows)

    def forget_refs(self, user: str) -> None:
        """Drop a user's references, to count them anew."""
        self._base.execute("DELETE FROM refs WHERE user = ?", (user,))

    def add_held(self, blobs: Iterable[str]) -> None:
        """The blobs of unfinished uploads."""
        self._many("INSERT OR IGNORE INTO held VALUES (?)", ((blob,) for blob in blobs))

    def add_disk(self, contents: Iterable[KeptContent]) -> None:
        """Contents on the disk. Of several copies the largest size and the lowest age count."""
        text = (
            "INSERT INTO disk VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET size = max(size, excluded.size), age = min(age, excluded.age)"
        )
        self._many(text, contents)

    def add_objects(self, objects: Iterable[tuple[str, str, str, int, float]]) -> None:
        """Objects in S3: blob, user, folder, bytes, age in seconds."""
        self._many("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", objects)

    def owners(self, after: str, limit: int) -> list[str]:
        """The next users in order."""
        return self._column("SELECT user FROM owners WHERE user > ? ORDER BY user LIMIT ?", after, limit)

    def of_user(self, user: str, after: str, limit: int) -> list[str]:
        """The next blobs of a user in order."""
        return self._column("SELECT id FROM blobs WHERE user = ? AND id > ? ORDER BY id LIMIT ?", user, after, limit)

    def hashed(self, user: str, after: str, limit: int) -> list[tuple[str, str]]:
        """The next blobs of a user that have a hash: hash and blob."""
        which = "user = ? AND id > ? AND hash != '' AND (live > 0 OR trash > 0)"
        text = f"SELECT hash, id FROM blobs WHERE {which} ORDER BY id LIMIT ?"
        return self._base.execute(text, (user, after, limit)).fetchall()

    def unknown(self, user: str) -> list[str]:
        """Blobs that a user's files refer to, and that have no record."""
        return self._column(UNKNOWN, user)

    def miscounted(self, user: str) -> list[tuple[str, int, int, int]]:
        """Blobs of a user that are counted wrongly: blob, version, references of files, references in the trash."""
        return self._base.execute(MISCOUNTED, (user,)).fetchall()

    def count_of(self, user: str) -> int:
        """How many blobs a user has."""
        return int(self._base.execute("SELECT count(*) FROM blobs WHERE user = ?", (user,)).fetchone()[0])

    def bytes_of(self, user: str) -> int:
        """The bytes of a user's contents that are not orphaned, by the catalog."""
        text = "SELECT coalesce(sum(size), 0) FROM blobs WHERE user = ? AND (live > 0 OR trash > 0)"
        return int(self._base.execute(text, (user,)).fetchone()[0])

    def refs_of(self, user: str, blob: str) -> list[tuple[str, str, str]]:
        """The references to a blob: "files" or "trash", name or id, name of the file."""
        text = "SELECT kind, field, name FROM refs WHERE user = ? AND blob = ?"
        return self._base.execute(text, (user, blob)).fetchall()

    def count(self, table: str) -> int:
        """The number of rows of a table."""
        return int(self._base.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def orphans_of_disk(self, age: float) -> Iterator[tuple[str, int, float]]:
        """Orphaned contents of at least this age: name, bytes, age in seconds."""
        yield from self._base.execute(ORPHANS_OF_DISK, (age,))

    def orphans_of_s3(self, age: float) -> Iterator[tuple[str, str, str, float]]:
        """Orphaned objects of at least this age: blob, user, folder, age in seconds."""
        yield from self._base.execute(ORPHANS_OF_S3, (age,))

    def contents(self) -> Iterator[tuple[str, Blob, int | None, dict[str, int]]]:
        """Each blob that isn't orphaned: user, record, bytes on the disk, bytes by folder in S3."""
        for user, id, here, files, trash, *known in self._base.execute(CONTENTS):
            there = {folder: size for folder, size in (("files", files), ("trash", trash)) if size is not None}
            yield user, Blob(id, *known), here, there

    def _many(self, text: str, rows: Iterable[Sequence[object]]) -> None:
        self._base.execute("BEGIN")
        self._base.executemany(text, rows)
        self._base.execute("COMMIT")

    def _column(self, text: str, *given: object) -> list[str]:
        return [each for (each,) in self._base.execute(text, given)]
