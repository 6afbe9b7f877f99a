"""Stamps that processes share."""

import subprocess
import sys
from pathlib import Path

from backlore.core.stamps import SIZE, Stamps


def test_what_another_process_changes_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "data" / "stamps"
    stamps = Stamps(file)
    stamps.renew("abc1")
    assert not file.parent.exists()  # whoever only changes something, perhaps as root, makes no file for the workers
    before = {owner: stamps.read(owner) for owner in ("abc1", "abd1", "777x")}
    renew = f"from pathlib import Path; from backlore.core.stamps import Stamps; Stamps(Path({str(file)!r})).renew"
    subprocess.run([sys.executable, "-c", renew + "('abcdef')"], check=True)
    assert stamps.read("abc1") != before["abc1"]
    assert {owner: stamps.read(owner) for owner in ("abd1", "777x")} == {"abd1": 0, "777x": 0}
    assert Stamps(file).read("abc9") == stamps.read("abc1")


def test_the_disk_has_room_for_all_of_them(tmp_path: Path) -> None:
    """A hole that the full disk can't fill would kill whoever looks at it."""
    Stamps(tmp_path / "stamps").read("abc")
    assert (tmp_path / "stamps").stat().st_blocks * 512 >= SIZE
