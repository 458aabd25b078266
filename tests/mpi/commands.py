"""Commands of scdask one after the other in the ranks of one job: their arguments, with `then` between two."""

import sys

from scdask.cli import main

commands = [[]]
for word in sys.argv[1:]:
    if word == "then":
        commands.append([])
    else:
        commands[-1].append(word)
for command in commands:
    try:
        main(command)
    except SystemExit as end:
        if end.code:
            raise
print("fine", flush=True)
