"""Cases of a test that wait for --run-slow."""

import pytest


def slow(*values):
    """Parameters of a case that is likely to fail only together with one that always runs."""
    return pytest.param(*values, marks=pytest.mark.slow)
