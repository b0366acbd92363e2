"""`python -m pipeline` is the command `weir`."""

from pipeline.cli import main

main()
