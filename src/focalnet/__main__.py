"""`python -m focalnet`, for launchers such as torchrun."""

from focalnet.cli import main

main()
