"""How campaigns cut their work, whatever the time: workers that take no time say how much they took."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

import scdask as sc
from scdask.sweeps import campaign
from scdask.sweeps.grid import Found
from scdask.sweeps.runners import Ended

pytest.importorskip("xarray")


class Workers:
    """Threads that do one unit after the other, and look at the campaign meanwhile."""

    seconds = staticmethod(lambda setting: 0.1)
    begun: list

    def __init__(self, place, given):
        self.threads, self.units, self.most = place.threads, [], 0
        type(self).begun = []

    def submit(self, units, *, probe):
        self.units += units
        self.begun += map(len, units)
        type(self).most = max(type(self).most, len(self.units))

    def wait(self, seconds):
        unit = self.units.pop(0)
        return [Ended([Found(cell, {"value": 1.0}, "", self.seconds(setting)) for cell, setting in unit])]

    def close(self):
        pass


@pytest.fixture
def claims(monkeypatch):
    """The number of cells that are claimed after each exchange."""
    found = []
    exchange = campaign.Ledger.exchange

    def noted(self, *args):
        chosen = exchange(self, *args)
        found.append(int((self.grid.state < 0).sum()))
        return chosen

    ticks = count()
    clock = SimpleNamespace(monotonic=lambda: 1e-3 * next(ticks), sleep=lambda seconds: None)
    monkeypatch.setattr(campaign, "time", clock)
    monkeypatch.setattr(campaign, "Threads", Workers)
    monkeypatch.setattr(campaign.Ledger, "exchange", noted)
    Workers.most = 0
    return found


@pytest.mark.parametrize("threads", [2, 64])
def test_few_cells_run_at_once_and_few_are_claimed(claims, threads):
    with_threads = campaign.Place("threads", threads)
    found = sc.sweep(lambda seed: 1.0, over={"seed": range(20_000)}, scheduler=with_threads)
    assert (found.value == 1).all()
    assert Workers.most <= 3 * threads
    ahead = max(campaign.AHEAD_SECONDS, campaign.AHEAD_UNITS * threads / campaign.UNITS_A_SECOND)
    units = 3 * threads * max(campaign.UNIT_SECONDS, threads / campaign.UNITS_A_SECOND)
    assert max(claims) <= (ahead * threads + units) / 0.1 * 1.01
    assert Workers.begun[0] == 1
    assert max(Workers.begun) == max(1, int(threads / campaign.UNITS_A_SECOND / 0.1 + 1e-6))
    assert sum(Workers.begun) == 20_000
    assert found.tasks == len(Workers.begun)
    assert sum(Workers.begun[-threads:]) <= 2 * threads, "the last ones are small"


def test_tasks_follow_the_cost(claims, monkeypatch):
    monkeypatch.setattr(Workers, "seconds", staticmethod(lambda setting: 1e-4 * setting["length"]))
    over = {"length": [2**n for n in range(12)], "seed": range(400)}
    sc.sweep(lambda length, seed: 1.0, over=over, scheduler=campaign.Place("threads", 2))
    assert 100 < max(Workers.begun) <= campaign.MOST_CELLS
    assert Workers.begun[-20:] == [1] * 20, "a cell of 0.2 s is a task of its own"
    assert np.argmax(Workers.begun) < 20, "those that are cheap come first"
