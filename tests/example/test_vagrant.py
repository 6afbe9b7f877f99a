"""The Vagrantfile of a new application: it is Ruby, and its provisioning makes a bare Debian serve the application.

Nothing is mounted and no process started outside of namespaces of their own, so none outlives its test.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port

VAGRANTFILE = ROOT / "backlore" / "cli" / "skeleton" / "Vagrantfile"
INLINE = re.compile(r'"shell", inline: <<-SHELL\n(.*)\n {3}SHELL\n', re.DOTALL)

# What happens in the machine: the provisioning, twice as `vagrant provision` may do it, then a newcomer's commands.
NEWCOMER = """
set -e
sh -e /provision.sh
sh -e /provision.sh
cd /home/vagrant
backlore new box
cd box
backlore run --port PORT --workers 1 & server=$!
/opt/backlore/bin/python - <<'END'
import time, urllib.request
until = time.monotonic() + 30
while True:
    try:
        page = urllib.request.urlopen("http://127.0.0.1:PORT/").read().decode()
        break
    except OSError:
        assert time.monotonic() < until, "it does not answer"
        time.sleep(0.1)
print("\\nanswered", "<h1>Box</h1>" in page, flush=True)
END
kill $server
wait $server
"""
POLICY = "#!/bin/sh\nexit 101\n"  # of Debian's packages: start no service, there is no init


def run(*words: str | Path, seconds: float = 300) -> str:
    got = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
    assert got.returncode == 0, got.stdout[-5000:]
    return got.stdout


def test_it_is_ruby() -> None:
    if not shutil.which("ruby"):
        pytest.skip("no ruby here")
    assert "Syntax OK" in run("ruby", "-c", VAGRANTFILE)
    assert 'forwarded_port", guest: 8000, host: 8000' in VAGRANTFILE.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root folder of a bare Debian, with this Backlore and what it needs in the place of the package index."""
    if not shutil.which("debootstrap"):
        pytest.skip("no debootstrap here")
    if not Path("/proc/self/ns").exists() or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("not root: no mounts, no chroot")
    wheels, root = tmp_path / "wheels", tmp_path / "root"
    pip = ["python3", "-m", "pip"]
    # redis-py asks for async-timeout before Python 3.11.3, which may be the machine's and not ours
    run(*pip, "wheel", "--quiet", "--wheel-dir", wheels, ROOT, "async-timeout")
    release = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    assert release
    run("debootstrap", "--variant=minbase", release[1], root)
    shutil.copytree(wheels, root / "wheels")
    (root / "usr/sbin/policy-rc.d").write_text(POLICY)
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    (root / "home/vagrant").mkdir()
    (root / "home/vagrant/.bashrc").touch()
    return root


def test_its_provisioning_serves(machine: Path) -> None:
    script = INLINE.search(VAGRANTFILE.read_text())
    assert script
    (machine / "provision.sh").write_text(script[1])
    (machine / "newcomer.sh").write_text(NEWCOMER.replace("PORT", str(free_port())))
    settings = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
    settings += ["PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels", "PIP_ROOT_USER_ACTION=ignore"]
    enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" env -i "$@"'
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    said = run(*alone, "sh", "-c", enter, machine, *settings, "sh", "/newcomer.sh")
    assert "answered True" in said, said[-5000:]
    assert (machine / "home/vagrant/.bashrc").read_text() == "sudo su -\n"
    shutil.rmtree(machine)
