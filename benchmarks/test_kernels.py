"""The cases of `scdask bench --peers` under pytest-benchmark, each a group: ours first, then NumPy and the peers."""

from functools import lru_cache

import pytest

from scdask.jobs.bench import cases, check
from scdask.jobs.peers import require_all

require_all()
NAMES = {case.name: tuple(case.runs) for case in cases(peers=True)}


@lru_cache(maxsize=1)
def checked_case(name):
    case = next(case for case in cases(peers=True) if case.name == name)
    check(case)
    return case


@pytest.mark.parametrize(("name", "run"), [(name, run) for name, runs in NAMES.items() for run in runs])
def test_kernel(benchmark, name, run):
    case = checked_case(name)
    benchmark.group = f"{name} ({case.work / 1e9:.3g} G{'bitop' if case.unit == 'Gbitop/s' else 'bit'})"
    benchmark.extra_info["work"] = case.work
    benchmark(case.runs[run])
