"""What can be wrong with files: each function here does one damage."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from backlore.services.files.catalog import new_id
from tests.kit.desks import CONTENTS, GONE, Desk
from tests.kit.houses import ANN, BOB

Damage = Callable[[Desk], Awaitable[Any]]


def cut(path: Path, size: int) -> None:
    path.chmod(0o644)
    os.truncate(path, size)


def flip(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


async def disk_deleted(desk: Desk) -> None:
    desk.path("one").unlink()  # two files have it


async def disk_cut(desk: Desk) -> None:
    cut(desk.path("three"), 100)


async def disk_longer(desk: Desk) -> None:
    cut(desk.path("three"), len(CONTENTS["three"]) + 4)


async def disk_flipped(desk: Desk) -> None:
    flip(desk.path("three"))


async def log_cut(desk: Desk) -> None:
    cut(desk.path("log"), 10)


async def log_deleted(desk: Desk) -> None:
    desk.path("log").unlink()


async def object_deleted(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.delete([desk.object("three")])


async def empty_object_deleted(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.delete([desk.object("empty")])


async def object_cut(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.put(desk.object("three"), CONTENTS["three"][:-1])


async def object_flipped(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.put(desk.object("three"), CONTENTS["three"][:-1] + b"!")


async def in_wrong_folder(desk: Desk) -> None:
    await desk.move("three", "files", "trash")


async def dead_in_wrong_folder(desk: Desk) -> None:
    await desk.move("dead", "trash", "files")


async def in_both_folders(desk: Desk) -> None:
    await desk.move("three", "files", "trash", stays=True)


async def in_wrong_folder_alone(desk: Desk) -> None:
    await desk.move("three", "files", "trash")
    desk.path("three").unlink()


async def cut_and_in_wrong_folder(desk: Desk) -> None:
    assert desk.house.s3
    await desk.move("three", "files", "trash", stays=True)
    await desk.house.s3.put(desk.object("three"), b"cut")


async def orphan_on_disk(desk: Desk) -> Path:
    path = desk.disk.path(new_id())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"nobody's")
    return path


async def orphan_in_s3(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.put(f"files/{ANN}/{new_id()}", b"nobody's")
    await desk.house.s3.put(f"trash/{BOB}/{desk.blob('one')}", b"Ann's, but not Bob's")


async def counts_high(desk: Desk) -> None:
    await desk.redis.hset(desk.key("blob", desk.blob("one")), "live", 7)


async def counts_low(desk: Desk) -> None:
    await desk.redis.hset(desk.key("blob", desk.blob("one")), "live", 1)


async def dead_counts(desk: Desk) -> None:
    await desk.redis.hset(desk.key("blob", desk.blob("dead")), "trash", 3)


async def usage_bytes(desk: Desk) -> None:
    await desk.redis.hincrby(desk.key("usage"), "bytes", -77)
    await desk.redis.hincrby("usage:{all}", "bytes", -77)


async def usage_files(desk: Desk) -> None:
    await desk.redis.hincrby(desk.key("usage"), "files", 5)


async def usage_gone(desk: Desk) -> None:
    await desk.redis.delete(desk.key("usage"))


async def total(desk: Desk) -> None:
    await desk.redis.hincrby("usage:{all}", "bytes", 1234)


async def newest_lacks(desk: Desk) -> None:
    await desk.redis.zrem(desk.key("newest"), "one")


async def newest_has_more(desk: Desk) -> None:
    await desk.redis.zadd(desk.key("newest"), {"nosuch": 1})


async def trashed_lacks(desk: Desk) -> None:
    await desk.redis.zrem(desk.key("trashed"), desk.put["dead"].id)


async def trashed_has_more(desk: Desk) -> None:
    await desk.redis.zadd(desk.key("trashed"), {"nosuch": 1})


async def never_emptied(desk: Desk) -> None:
    await desk.redis.zrem(desk.key("moves"), "~" + desk.put["dead"].id)


async def hash_lacks(desk: Desk) -> None:
    await desk.redis.hdel(desk.key("hashes"), desk.put["three"].hash)


async def hash_of_another(desk: Desk) -> None:
    await desk.redis.hset(desk.key("hashes"), desk.put["three"].hash, desk.blob("two"))


async def hash_has_more(desk: Desk) -> None:
    await desk.redis.hset(desk.key("hashes"), "0" * 64, desk.blob("two"))


async def move_lacks(desk: Desk) -> None:
    await desk.redis.hset(desk.key("blob", desk.blob("three")), mapping={"where": "", "pushed": 0})


async def move_in_vain(desk: Desk) -> None:
    await desk.redis.zadd(desk.key("moves"), {"nosuch": 9e15, "~nosuch": 9e15})


async def nobody_looks(desk: Desk) -> None:
    await desk.redis.zrem("moves:{all}", ANN)


async def unknown(desk: Desk) -> None:
    await desk.redis.delete(desk.key("blob", desk.blob("three")))


async def ownerless(desk: Desk) -> None:
    await desk.files.put(GONE, "left", b"behind")
    await desk.house.settle()
