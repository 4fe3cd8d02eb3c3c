"""`python -m captioning` is `captioning`."""

from captioning.cli import main

main()
