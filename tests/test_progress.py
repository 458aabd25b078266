import io
import os
import pty
import re
import subprocess
import sys

import pyte
import pytest

import scdask as sc
from scdask import progress

LOOP = """
import sys, time
from scdask.progress import track
assert list(track(range(3), description="counting", unit="things", quiet={quiet})) == [0, 1, 2]
"""


def test_a_log_has_lines_without_control_characters():
    done = subprocess.run(
        [sys.executable, "-c", LOOP.format(quiet=False)],
        capture_output=True,
        check=True,
        env=os.environ | {"TERM": "xterm-256color", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"},
    )
    assert done.stdout == b""
    text = done.stderr.decode()
    assert re.fullmatch(r"counting: 3/3 things, [\d.,]+ things/s, [\d.]+ s elapsed\n", text)


def test_quiet_shows_nothing():
    done = subprocess.run([sys.executable, "-c", LOOP.format(quiet=True)], capture_output=True, check=True)
    assert done.stdout == done.stderr == b""


def screens(code):
    """What a terminal of 100 columns shows while a program runs, each time as the lines that are not empty."""
    screen = pyte.Screen(100, 20)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    terminal = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    job = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=terminal)
    os.close(theirs)
    seen = []
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        stream.feed(part)
        seen.append([line.rstrip() for line in screen.display if line.strip()])
    os.close(ours)
    assert job.wait() == 0
    return seen


def test_a_terminal_has_a_bar_with_rate_and_time_left():
    (line,) = screens(LOOP.format(quiet=False))[-1]
    assert re.fullmatch(r"counting \S+ 3/3 [\d.,]+ things/s 0:00:00", line)


NESTED = """
import time
from concurrent.futures import ThreadPoolExecutor
from scdask.progress import track
for _ in track(range(2), description="outer"):
    for _ in track(range(3), description="inner"):
        time.sleep(0.2)
def wait(name):
    for _ in track(range(3), description=name):
        time.sleep(0.2)
with ThreadPoolExecutor() as pool:
    list(pool.map(wait, ["left", "right"]))
"""


def test_bars_in_bars_and_in_threads_have_lines_of_their_own():
    seen = screens(NESTED)
    names = {tuple(line.split()[0] for line in lines) for lines in seen}
    assert ("outer", "inner") in names
    assert {("outer", "left", "right"), ("outer", "right", "left")} & names
    outer, first = seen[-1]
    assert "2/2" in outer
    assert "3/3" in first


def test_a_line_tells_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = []
    line = progress._Line(shown.append, 5, 2, 12, "epochs", "")
    for now[0], done, description in [(1, 3, None), (10, 4, None), (70, 9, "loss 0.5"), (3700, 12, None)]:
        line.update(done, description)
    assert shown == [
        "epochs: 4/12, 0.2/s, 40 s left, 10 s elapsed",
        "loss 0.5: 9/12, 0.1/s, 30 s left, 1:10 min elapsed",
        "loss 0.5: 12/12, 0.0027/s, 1:01:40 h elapsed",
    ]


def test_an_iterator_without_length():
    assert list(progress.track(iter("ab"), quiet=True)) == ["a", "b"]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "distributed"])
def test_compute_shows_its_tasks(cluster, monkeypatch, scheduler):
    lines = io.StringIO()
    monkeypatch.setattr(sys, "stderr", lines)
    stream = sc.encode([0.25, 0.5, 0.75], 64, sng=sc.Sobol(1), chunks=(1, 1))
    counts = stream.popcount()
    with cluster.as_current():
        options = {"scheduler": cluster} if scheduler == "distributed" else {"scheduler": scheduler}
        computed, five = sc.compute(counts, 5, progress=True, **options)
    assert computed.tolist() == [16, 32, 48]
    assert five == 5
    assert re.fullmatch(r"sc-popcount: (\d+)/\1 tasks, .*\n", lines.getvalue())


@pytest.mark.slow
@pytest.mark.component("notebooks")
def test_a_notebook_keeps_the_last_line(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LOOP.format(quiet=False))])
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert re.fullmatch(r"counting: 3/3 things, [\d.,]+ things/s, [\d.]+ s elapsed", output.data["text/plain"])


ENDS = ["os.close(2)", "sys.stderr.close()", "sys.stderr = None"]
NOBODY = f"""
import os, sys
from scdask.progress import track
for end in {ENDS}:
    if not os.fork():
        exec(end)
        assert list(track(range(3), description="counting")) == [0, 1, 2]
        os.write(1, (end + chr(10)).encode())  # in one piece, as several write at once
        break
else:
    sys.exit(any([os.wait()[1] for _ in {ENDS}]))
"""


def test_the_work_goes_on_when_nobody_can_see_it():
    done = subprocess.run([sys.executable, "-c", NOBODY], stdout=subprocess.PIPE, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == sorted(ENDS)


def test_the_work_goes_on_when_the_reader_is_gone():
    ours, theirs = os.pipe()
    os.close(ours)
    code = f"{LOOP.format(quiet=False)}\nprint('done')"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    assert done.stdout == "done\n"
