"""What workers count, and how the scheduler shows it. The page itself is tested in test_browser.py."""

import asyncio
import time
import urllib.request
from urllib.parse import urlsplit

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, get_task_stream

import scdask as sc
from scdask import dashboard, vector_ops
from scdask.cluster import open_scheduler, operation_of
from scdask.dashboard import Monitor
from scdask.dashboard.install import _set_up
from scdask.errors import SchedulerError

LENGTH = 640
WORDS = LENGTH // 64


@pytest.fixture
def client():
    """Of a cluster of one process, whose scheduler is in this one."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def monitor_of(client):
    return client.cluster.scheduler.plugins[Monitor.name]


def sample(dask_scheduler):
    dask_scheduler.plugins[Monitor.name].sample()


def totals_after(client, *collections):
    """What the monitor has when the workers have sent their counts of a computation."""
    sc.compute(*collections)
    monitor = monitor_of(client)
    before = time.time()
    deadline = time.monotonic() + 20
    while not (monitor.reports and all(report.time > before for report in monitor.reports.values())):
        assert time.monotonic() < deadline, "no heartbeat came"
        time.sleep(0.1)
        client.run_on_scheduler(sample)
    return {operation: total for (operation, _), total in monitor.totals().items()}


TOGGLE = sc.Machine([[0, 1], [1, 0]], [[0, 0], [0, 1]])
MACHINE = {"gate": 12 * WORDS * 64, "machine": 12 * LENGTH}


def fetch(address):
    # The link of a cluster within a process names the machine, but the server listens as it was told.
    local = urlsplit(address)._replace(netloc=f"127.0.0.1:{urlsplit(address).port}").geturl()
    with urllib.request.urlopen(local, timeout=20) as answer:
        return answer.read().decode()


def random_words(shape, chunks):
    return da.from_array(np.random.default_rng(0).integers(0, 2**64, shape, dtype=np.uint64), chunks=chunks)


def test_a_mac_counts_each_pair_of_bits(client):
    dashboard.install(client)
    batch, neurons, inputs = 5, 7, 30
    weights = random_words((neurons, inputs, WORDS), (3, 11, 4))
    x = random_words((batch, inputs, WORDS), (2, 11, 4))
    totals = totals_after(client, vector_ops.vec_mac(weights, x))
    assert {name: total.bitops for name, total in totals.items()} == {"mac": batch * neurons * inputs * WORDS * 64}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda a, b: sc.encode(da.full(33, 0.3, chunks=10), 100, sng=sc.Sobol(1)).words, {"encode": 33 * 100}),
        (lambda a, b: vector_ops.vec_and(a, b), {"gate": 12 * WORDS * 64}),
        (lambda a, b: vector_ops.vec_mux(a, b, a), {"gate": 12 * WORDS * 64}),
        (lambda a, b: vector_ops.vec_not(a, LENGTH - 5), {"gate": 12 * WORDS * 64}),
        (lambda a, b: vector_ops.popcount(a), {"popcount": 12 * WORDS * 64}),
        (lambda a, b: vector_ops.stream_popcount(a), {"popcount": 12 * WORDS * 64}),
        (lambda a, b: vector_ops.vec_popcount(a), {"popcount": 12 * WORDS * 64}),
        (lambda a, b: vector_ops.run_machine(TOGGLE, vector_ops.mask_tail(a, LENGTH), length=LENGTH)[0], MACHINE),
        (lambda a, b: vector_ops.unpack_bitstream(a, LENGTH), {"pack": 12 * LENGTH}),
        (lambda a, b: vector_ops.pack_bitstream(da.ones((4, 70), chunks=2, dtype=np.uint8)), {"pack": 4 * 70}),
        (
            lambda a, b: sc.matmul(da.full((6, 8), 0.5, chunks=(2, -1)), np.full((3, 8), 0.25), 200),
            # of split weights, and of the inputs for each chunk of neurons
            {"encode": 2 * 3 * 8 * 200 + 6 * 8 * 200, "mac": 6 * 2 * 3 * 8 * 4 * 64},
        ),
    ],
    ids=[
        "encode",
        "and",
        "mux",
        "not",
        "popcount",
        "stream_popcount",
        "vec_popcount",
        "machine",
        "unpack",
        "pack",
        "matmul",
    ],
)
def test_operations_count_their_bits(client, make, expected):
    dashboard.install(client)
    a, b = (random_words((12, WORDS), (5, 4)) for _ in range(2))
    totals = totals_after(client, make(a, b))
    assert {name: total.bitops for name, total in totals.items()} == expected


def test_streams_are_counted_once_however_their_words_are_cut(client):
    dashboard.install(client)
    stream = sc.encode(np.full(21, 0.5), LENGTH, sng=sc.Bernoulli(1), chunks=(4, 3))
    totals = totals_after(client, stream)
    assert totals["encode"].streams == 21
    assert totals["encode"].bitops == 21 * LENGTH
    assert totals["encode"].seconds > 0


@pytest.mark.component("jax")
def test_jax_kernels_count_too_and_tracing_does_not(client):
    from scdask.jax_backend import to_jax

    dashboard.install(client)
    weights = to_jax(random_words((4, 6, WORDS), (2, 6, WORDS)))
    x = to_jax(random_words((3, 6, WORDS), (3, 6, WORDS)))
    totals_after(client, vector_ops.vec_mac(weights, x))
    totals = monitor_of(client).totals()
    assert totals["mac", "jax"].bitops == 3 * 4 * 6 * WORDS * 64
    assert {backend for _, backend in totals} == {"jax"}


def test_nothing_is_counted_outside_of_tasks(client):
    dashboard.install(client)
    sc.encode(np.full(9, 0.5), LENGTH, sng=sc.Sobol(1)).popcount()
    with dask.config.set(scheduler="threads"):
        sc.encode(np.full(9, 0.5), LENGTH, sng=sc.Sobol(1), chunks=(3,)).popcount().compute()
    assert totals_after(client) == {}


def test_held_words_follow_persist_and_release(client):
    dashboard.install(client)
    stream = sc.encode(np.full(64, 0.5), LENGTH, sng=sc.Sobol(1), chunks=(16,)).persist()
    totals_after(client, stream.popcount())
    (report,) = monitor_of(client).reports.values()
    assert report.held == stream.nbytes == 64 * WORDS * 8
    del stream
    deadline = time.monotonic() + 20
    while monitor_of(client).reports[report_address(client)].held:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def report_address(client):
    (address,) = monitor_of(client).reports
    return address


def test_totals_outlive_their_workers():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        dashboard.install(client)
        a = random_words((12, WORDS), (1, WORDS))
        before = totals_after(client, vector_ops.stream_popcount(a))
        cluster.scale(1)
        deadline = time.monotonic() + 30
        while len(monitor_of(client).reports) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        after = monitor_of(client).totals()["popcount", "numpy"]
        assert after.bitops == before["popcount"].bitops == 12 * WORDS * 64


@pytest.mark.component("apps")
def test_the_page_is_linked_from_the_dashboard_and_mounted_once(client):
    address = dashboard.install(client)
    assert address == client.dashboard_link.replace("/status", "/scdask")
    assert dashboard.install(client) == address == dashboard.page_of(client)
    assert fetch(client.dashboard_link).count('href="scdask"') == 1
    assert 'href="scdask"' in fetch(address)


@pytest.mark.component("apps")
def test_metrics_are_valid_exposition_format(client):
    from prometheus_client.parser import text_string_to_metric_families

    address = dashboard.install(client)
    a = random_words((12, WORDS), (5, WORDS))
    totals_after(client, vector_ops.vec_and(a, a), sc.encode(da.full(33, 0.3, chunks=10), 100, sng=sc.Sobol(1)))
    families = {f.name: f for f in text_string_to_metric_families(fetch(address.replace("/scdask", "/metrics")))}
    (worker,) = client.scheduler_info()["workers"]
    counted = {tuple(sorted(s.labels.items())): s.value for s in families["scdask_bitops"].samples}
    assert families["scdask_bitops"].type == "counter"
    assert counted == {
        (("backend", "numpy"), ("op", "gate"), ("worker", worker)): 12 * WORDS * 64,
        (("backend", "numpy"), ("op", "encode"), ("worker", worker)): 3300,
    }
    assert [s.value for s in families["scdask_streams_encoded"].samples] == [33]
    assert families["scdask_words_bytes"].type == "gauge"


def test_a_scheduler_without_bokeh_or_dashboard_is_named(client):
    monitor = client.run_on_scheduler(_set_up) or monitor_of(client)
    monitor.has_page = False
    with pytest.raises(SchedulerError, match="has no dashboard: is bokeh installed there"):
        dashboard.install(client)


@pytest.mark.component("apps")
def test_our_clusters_have_the_page_from_the_start():
    with open_scheduler("local", workers=1, threads=1) as place:
        assert place.page == place.dashboard.replace("/status", "/scdask")
        assert 'href="scdask"' in fetch(place.page)
        assert dask.config.get("distributed.scheduler.preload") == []
        place.wait_until_ready()
        assert totals_after(place.client) == {}, "compiling is no work"


@pytest.mark.component("apps")
def test_a_scheduler_preloads_the_page_that_is_configured():
    with (
        dask.config.set({"distributed.scheduler.preload": ["scdask.dashboard"]}),
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        assert dashboard.page_of(client).endswith("/scdask")


def test_an_asynchronous_client_awaits_the_address():
    async def install():
        async with (
            LocalCluster(n_workers=0, processes=False, asynchronous=True, dashboard_address="127.0.0.1:0") as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            return await dashboard.install(client)

    assert asyncio.run(install()).endswith("/scdask")


def test_compute_gives_what_dask_gives(client):
    a = sc.encode(np.linspace(0, 1, 20), LENGTH, sng=sc.Sobol(1), chunks=(6,))
    for scheduler in (None, "threads"):
        options = {"scheduler": scheduler} if scheduler else {}
        stream, (number, mean) = sc.compute(a, [3, a.decode().mean()], **options)
        assert isinstance(stream, sc.Bitstream)
        assert isinstance(stream.words, np.ndarray)
        assert number == 3
        assert mean == pytest.approx(0.5, abs=1e-3)


def test_compute_names_a_span_and_groups_by_operation(client):
    a = sc.encode(np.linspace(0, 1, 20), LENGTH, sng=sc.Sobol(1), chunks=(6,))
    sc.compute(a.popcount())
    sc.compute(a.popcount() + 1, name="my experiment")
    spans = client.cluster.scheduler.extensions["spans"]
    assert ("sc-popcount",) in spans.spans_search_by_name
    assert ("my experiment",) in spans.spans_search_by_name
    (span,) = spans.spans_search_by_name["sc-popcount",]
    deadline = time.monotonic() + 20
    while len(bits := {key[2]: n for key, n in span.cumulative_worker_metrics.items() if key[3:] == ("bitops",)}) < 2:
        assert time.monotonic() < deadline, dict(span.cumulative_worker_metrics)
        time.sleep(0.1)
    assert bits == {"sc-encode-numpy": 20 * LENGTH, "sc-popcount-numpy": 20 * WORDS * 64}


def test_tasks_have_names_that_read_well(client):
    a = sc.encode(np.linspace(0, 1, 20), LENGTH, sng=sc.Sobol(1), chunks=(6,))
    b = sc.encode(np.linspace(0, 1, 20), LENGTH, sng=sc.Sobol(2), chunks=(6,))
    with get_task_stream(client) as stream:
        sc.compute((a & b).popcount())
    names = {dask.utils.key_split(task["key"]) for task in stream.data}
    assert all("sc-popcount" in name for name in names - {"finalize-hlgfinalizecompute"}), names
    assert operation_of(a & b) == "sc-and"


FAILURES = []  # that are left; tasks run in this process


def fail_or(value):
    if FAILURES:
        raise FAILURES.pop()
    return value


@pytest.mark.parametrize("progress", [False, True])
def test_compute_tries_again(client, progress):
    FAILURES[:] = [OSError("not yet")] * 2
    assert sc.compute(dask.delayed(fail_or, pure=False)(7), progress=progress) == (7,)
    FAILURES[:] = [OSError("not yet")]
    with pytest.raises(OSError, match="not yet"):
        sc.compute(dask.delayed(fail_or, pure=False)(7), retries=0, progress=progress)


@pytest.mark.parametrize("retries", [-1, 1.5, True, None])
def test_compute_refuses_retries(retries):
    with pytest.raises(SchedulerError, match="tried again 0 times or more, not"):
        sc.compute(1, retries=retries)


@pytest.mark.component("jax")
def test_a_training_tells_its_epochs(client):
    from scdask import snn

    dashboard.install(client)
    x, y = np.eye(4).repeat(5, axis=0), np.arange(4).repeat(5)
    settings = snn.Settings(hidden=(8,), epochs=2, batch=20, steps=5, shards=1)
    states = list(snn.train(x, y, settings, client, test=(x, y)))
    deadline = time.monotonic() + 10
    while len(epochs := monitor_of(client).epochs()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [(e["epoch"], e["epochs"], e["loss"], e["train_accuracy"], e["test_accuracy"]) for e in epochs] == [
        (i + 1, 2, states[-1].losses[i], states[-1].train_accuracies[i], states[-1].test_accuracies[i])
        for i in range(2)
    ]


def test_chunks_of_an_early_exit_tell_what_they_found(client):
    from scdask.computing import as_place
    from scdask.jobs.infer import early_settings, infer_early, settings

    dashboard.install(client)
    rng = np.random.default_rng(0)
    network = sc.SCMLP([sc.SCDense(rng.normal(size=(3, 4)), np.zeros(3))])
    x, y = rng.random((40, 4)), np.arange(40) % 3
    (setting,) = early_settings(settings(["sobol"], [16, 256], "split"), ["margin=0.9"])
    with dask.config.set({"scdask.task-seconds": "60 ns"}):  # chunks of 9 samples
        result = infer_early(network, x, y, setting, as_place(client))
    deadline = time.monotonic() + 10
    while not (exits := list(monitor_of(client).exits.values())) or exits[0].samples < 40:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (told,) = exits
    assert (told.name, told.length, told.of) == ("sobol split, margin=0.9, seed 0", 256, 40)
    assert told.cycles == list(result.cycles_histogram)
    assert (told.accuracy, told.mean_cycles) == (result.accuracy, result.mean_cycles)
    event = {"run": "a", "name": "b", "length": 64, "of": 9, "start": 0, "samples": 3, "right": None}
    for cycles in ([(32, 3)], [(16, 1), (64, 2)]):  # a task that ran again
        client.log_event("scdask-early-exit", event | {"cycles": cycles})
    for other in ("text", {"run": "b"}):
        client.log_event("scdask-early-exit", other)
    while len(monitor_of(client).exits) < 2 or monitor_of(client).exits["a"].mean_cycles == 32:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    last = monitor_of(client).exits["a"]
    assert (last.samples, last.cycles, last.mean_cycles) == (3, [(16, 1), (64, 2)], 48)
    assert np.isnan(last.accuracy)
    for i in range(20):
        client.log_event("scdask-early-exit", event | {"run": f"c{i}", "cycles": [(16, 3)]})
    while "c19" not in (exits := monitor_of(client).exits):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(exits) == 8


def test_words_that_were_there_are_held_from_the_start(client):
    stream = sc.encode(np.full(64, 0.5), LENGTH, sng=sc.Sobol(1), chunks=(16,)).persist()
    dashboard.install(client)
    totals_after(client, stream.popcount())
    (report,) = monitor_of(client).reports.values()
    assert report.held == stream.nbytes


def test_progress_in_a_task_is_for_nobody(client):
    def task():
        return sc.compute(da.ones(4, chunks=2).sum(), progress=True)

    futures = [client.submit(task, pure=False) for _ in range(2)]  # as many as there are threads
    assert client.gather(futures) == [(4.0,), (4.0,)]


def test_events_of_others_are_no_epochs(client):
    dashboard.install(client)
    for event in ("text", {"epoch": 1}):
        client.log_event("scdask-training", event)
    assert monitor_of(client).epochs() == []


def campaign_cell(gate, length, seed):
    if gate == "or" and seed == 2:
        raise ValueError("no such gate")
    return {"rmse": seed / length}


def test_a_campaign_tells_how_far_it_is_and_its_figure(client):
    dashboard.install(client)
    over = {"seed": range(4), "gate": ["and", "or"], "fault": [0.0], "length": [256, 16]}
    with pytest.warns(sc.ScdaskWarning, match="2 of 16 cells failed"):
        found = sc.sweep(lambda fault, **rest: campaign_cell(**rest), over=over, scheduler=client)
    deadline = time.monotonic() + 10
    while not (campaigns := list(monitor_of(client).campaigns.values())) or not campaigns[0].over:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (told,) = (campaign.event for campaign in campaigns)
    assert [told[key] for key in ("total", "done", "failed", "running", "left")] == [16, 14, 2, 0, 0]
    figure = told["figure"]
    assert (figure["metric"], figure["x"], figure["ticks"]) == ("rmse", "length", ["16", "256"])
    for gate, line in zip(("and", "or"), figure["lines"], strict=True):
        assert (line["label"], line["x"]) == (f"gate={gate}", [4, 8])
        for end in ("mean", "low", "high"):
            expected = found[f"rmse_{end}"].sel(gate=gate, fault=0, length=[16, 256])
            np.testing.assert_allclose(line[end], expected)
    for i in range(20):
        client.log_event("scdask-sweep", told | {"run": f"c{i}", "done": 0})
    for other in ("text", {"run": "b"}):
        client.log_event("scdask-sweep", other)
    while "c19" not in (campaigns := monitor_of(client).campaigns):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(campaigns) == 8
    assert not campaigns["c19"].over


def test_the_figure_of_a_campaign_is_small():
    from scdask.sweeps.grid import Found, Grid
    from scdask.sweeps.live import figure_of
    from scdask.sweeps.plan import Plan

    plan = Plan({"p": [i / 1000 for i in range(1000)], "sng": list("abcdefghi"), "seed": range(2)}, "seed")
    grid = Grid(plan.axes)
    assert figure_of(plan, grid) is None
    grid.put(Found((0, 0, 0), {"image": np.zeros(3), "value": 3.0}, "", 0.1))
    figure = figure_of(plan, grid)
    assert (figure["metric"], figure["x"]) == ("value", "p")
    assert len(figure["lines"]) == 7
    assert {len(line["mean"]) for line in figure["lines"]} == {40}
    assert figure["lines"][0]["mean"][0] == 3
    words = Plan({"sng": ["sobol", "lfsr"]}, None)
    grid = Grid(words.axes)
    grid.put(Found((1,), {"value": 3.0}, "", 0.1))
    (line,) = figure_of(words, grid)["lines"]
    assert (line["label"], line["x"], line["mean"][1]) == ("value", [0, 1], 3)
