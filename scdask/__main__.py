"""`python -m scdask`."""

from .cli import main

main(prog_name="scdask")
