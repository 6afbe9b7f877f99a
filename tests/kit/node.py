"""What npm installs for tests, and where."""

import sys
from pathlib import Path

NODE = Path(sys.prefix) / "node"  # what npm installs is kept beside what pip has installed
