"""A house with files of all sorts, and who checks it."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from backlore.services.check.check import Check
from backlore.services.check.findings import Findings, Problem
from backlore.services.files.catalog import File
from tests.kit.houses import ANN, BOB, House, read

GONE = "k3fgoneabcdefgh2"  # a user's id, and no user
CONTENTS = {"one": b"1" * 5000, "two": b"2" * 5000, "three": os.urandom(20_000), "empty": b""}


class Desk:
    """A house with files, and who checks it."""

    def __init__(self, house: House):
        self.house = house
        self.redis, self.files, self.disk = house.redis, house.files, house.disk
        self.put: dict[str, File] = {}

    async def fill(self) -> None:
        """Files of all sorts, all where they belong."""
        for name, content in CONTENTS.items():
            self.put[name] = await self.files.put(ANN, name, content)
        await self.files.put(ANN, "one again", CONTENTS["one"])
        await self.files.put(BOB, "one", CONTENTS["one"])
        self.put["dead"] = await self.files.put(ANN, "dead", b"dead" * 100)
        await self.files.delete(ANN, "dead")
        for number in range(3):
            self.put["log"] = await self.files.append(ANN, "log", b"%d\n" % number * 50)
        await self.house.settle()
        assert await self.check(deep=True) == []

    async def check(self, **options: Any) -> list[Problem]:
        """All that is found."""
        problems: list[Problem] = []
        await self.checked(tell=problems.append, **options)
        return problems

    async def checked(self, **options: Any) -> Findings:
        return await self.checking(**options).run()

    def checking(self, **options: Any) -> Check:
        async def is_gone(user: str) -> bool:
            return user == GONE

        keepers = self.files, self.house.uploads, self.house.s3
        return Check(self.redis, *keepers, **{"is_gone": is_gone, "age": 0.0, **options})

    async def is_whole(self) -> None:
        """All files have their contents, here and in S3, and nothing else is there."""
        await self.house.settle()
        assert await self.check(deep=True) == []
        for name, content in CONTENTS.items():
            assert await read(self.files, ANN, await self.files.find(ANN, name)) == content
        usages = [await self.files.catalog.usage(user) for user in (ANN, BOB, GONE)]
        assert await self.files.catalog.total() == sum(size for size, _ in usages)

    def blob(self, name: str) -> str:
        return self.put[name].blobs[0][0]

    def path(self, name: str) -> Path:
        return self.disk.path(self.blob(name))

    def object(self, name: str, folder: str = "files") -> str:
        return f"{folder}/{ANN}/{self.blob(name)}"

    def key(self, kind: str, *rest: str) -> str:
        return ":".join((f"{kind}:{{ann}}{ANN[3:]}", *rest))

    async def move(self, name: str, old: str, new: str, stays: bool = False) -> None:
        """Put an object into another folder of the bucket."""
        s3 = self.house.s3
        assert s3
        await s3.copy(self.object(name, old), self.object(name, new))
        if not stays:
            await s3.delete([self.object(name, old)])


def kinds(problems: list[Problem]) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in problems))
