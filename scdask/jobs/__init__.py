"""The jobs that the command line runs: each a lazy graph and a figure."""
