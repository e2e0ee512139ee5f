"""`python -m stream.cli`, which torchrun starts."""

from stream.cli.entry import main

main()
