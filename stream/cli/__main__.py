"""`python -m stream.cli`, the form torchrun starts."""

from stream.cli.entry import main

main()
