"""`python -m backlore.cli`."""

from backlore.cli import main

main()
