"""The page of the dashboard in a browser."""

import re
import shutil
from contextlib import contextmanager

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

import scdask as sc
from scdask import vector_ops
from scdask.cluster import open_scheduler
from scdask.dashboard import install

pytestmark = [pytest.mark.slow, pytest.mark.component("browser"), pytest.mark.component("apps")]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAPTOP, DESK = (1280, 800), (1920, 1080)
SECONDS = 30_000  # milliseconds that something may take to show


@contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opened(chromium, address, size):
    """A page, which must not have complained at the end."""
    width, height = size
    page = chromium.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(SECONDS)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.get_by_text("Streams encoded").wait_for()
    yield page
    assert complaints == []
    page.close()


def figure(page, name):
    return page.locator(f"[data-figure='{name}']").inner_text()


def rows(page, table):
    return [row.all_inner_texts() for row in map(cells, page.locator(f"[data-table='{table}'] tr").all()[1:])]


def cells(row):
    return row.locator("td")


def work(seed):
    values = da.from_array(np.random.default_rng(seed).random(40_000), chunks=10_000)
    a, b = (sc.encode(values, 1024, sng=sc.Bernoulli(2 * seed + i)) for i in range(2))
    weights = sc.encode(np.full((32, 64), 0.5), 1024, sng=sc.Sobol(1), chunks=(8, -1))
    x = sc.encode(np.full((16, 64), 0.5), 1024, sng=sc.Sobol(2))
    return (a & b).decode().mean(), vector_ops.vec_mac(weights.words, x.words)


def test_numbers_move_during_a_job():
    with open_scheduler("local", workers=2, threads=1) as place, browser() as chromium:
        place.wait_until_ready()
        with opened(chromium, place.page, LAPTOP) as page:
            assert figure(page, "Streams encoded") == "0"
            page.get_by_text("No bit operations yet").wait_for()
            page.get_by_text(f"scdask infer digits --scheduler {place.client.scheduler.address}").wait_for()
            held = sc.encode(np.full(1024, 0.5), 8192, sng=sc.Sobol(1), chunks=(256,)).persist()
            seen = set()
            for seed in range(40):
                sc.compute(*work(seed))
                page.wait_for_timeout(300)
                seen.add(figure(page, "Bit operations"))
                ready = len(seen) > 3 and {"encode", "gate", "mac", "popcount"} <= {
                    r[0] for r in rows(page, "operations")
                }
                if ready and all(r[5].endswith(" %") for r in rows(page, "operations")):
                    break
            else:
                pytest.fail(f"{seen}, {rows(page, 'operations')}")
            page.get_by_text("No bit operations yet").wait_for(state="hidden")
            page.get_by_text(f"{held.nbytes / 2**20:.2f} MiB").first.wait_for()
            assert figure(page, "Workers") == "2"
            assert int(figure(page, "Streams encoded").replace(",", "")) >= 1024
            assert re.fullmatch(r"[\d.]+ [kMG]?bitop/s", figure(page, "Speed now"))
            workers = rows(page, "workers")
            assert {row[1] for row in workers} == {"numpy"}
            assert [row[3] for row in workers] == ["1", "1"]
            for row in (*rows(page, "operations"), *workers):
                assert all(row), row
            for width, height in (DESK, LAPTOP):
                page.set_viewport_size({"width": width, "height": height})
                page.wait_for_timeout(500)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, "it is wider than the window"


def test_a_training_is_shown():
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        browser() as chromium,
    ):
        port = client.scheduler_info()["services"]["dashboard"]
        install(client)
        with opened(chromium, f"http://127.0.0.1:{port}/scdask", LAPTOP) as page:
            for epoch in (1, 2):
                event = {"run": "a", "epoch": epoch, "epochs": 9, "loss": 2 / epoch, "train_accuracy": 0.5}
                client.log_event("scdask-training", event | {"test_accuracy": None})
                page.get_by_text(f"epoch {epoch} of 9").wait_for()


def test_early_exits_and_campaigns_are_shown():
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        browser() as chromium,
    ):
        port = client.scheduler_info()["services"]["dashboard"]
        install(client)
        with opened(chromium, f"http://127.0.0.1:{port}/scdask", LAPTOP) as page:
            for start in (0, 50):
                event = {"run": "a", "name": "sobol split, margin=0.9", "length": 256, "of": 150, "start": start}
                client.log_event("scdask-early-exit", event | {"samples": 50, "right": 40, "cycles": [[16, 50]]})
                page.get_by_text(f"{start + 50} of 150 samples").wait_for()
            assert rows(page, "early exit") == [["sobol split, margin=0.9", "100 of 150", "16.0 of 256", "0.8000"]]
            line = {"label": "gate=and", "x": [4, 8], "mean": [0.5, np.nan], "low": [np.nan] * 2, "high": [np.nan] * 2}
            figure = {"metric": "rmse", "x": "length", "ticks": ["16", "256"], "at": {}, "lines": [line]}
            event = {"run": "a", "name": "product", "total": 2000, "failed": 1, "running": 4, "left": 90, "rate": 12.5}
            client.log_event("scdask-sweep", event | {"done": 8, "figure": None})
            page.get_by_text("product: 9 of 2,000 cells, 1 failed, 4 running, 12.5 cells/s, 1:30 min left").wait_for()
            client.log_event("scdask-sweep", event | {"done": 1999, "figure": figure})
            page.get_by_text("product: 2,000 of 2,000 cells, 1 failed").wait_for()
            assert rows(page, "campaigns") == [["product", "2,000", "1,999", "1", "", ""]]


def test_the_bar_of_dasks_pages_leads_there():
    with open_scheduler("local", workers=1, threads=1) as place, browser() as chromium:
        page = chromium.new_page()
        page.goto(place.dashboard)
        page.get_by_role("link", name="Scdask").click()
        page.wait_for_url(place.page)
