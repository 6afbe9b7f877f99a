"""`python -m backlore.cli`: the command `backlore` without an installed script."""

from backlore.cli import main

main()
