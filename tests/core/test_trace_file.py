from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sglang_fl.trace_file import TraceFile
from sglang_fl.trace_records import BEGINNING, Damage, read_records

START = {"host": "h", "argv": [], "versions": {}}


def trace_file(directory: Path) -> TraceFile:
    return TraceFile(directory, lambda: START)


def lines(directory: Path, pattern: str = "*") -> list[dict[str, Any]]:
    [file] = directory.glob(pattern)
    return [json.loads(line) for line in file.read_text().splitlines()]


def forked(target: Callable[..., object], *args: object, name: str | None = None) -> int | None:
    """Runs ``target`` in a forked child, one that hangs for 30 s at most, and returns the child's pid."""
    child = multiprocessing.get_context("fork").Process(target=target, args=args, name=name)
    child.start()
    child.join(30)
    child.kill()
    child.join()
    assert child.exitcode == 0
    return child.pid


def test_the_file_is_named_by_process_and_pid_and_begins_with_start(tmp_path: Path) -> None:
    trace_file(tmp_path / "made" / "here")
    [file] = (tmp_path / "made" / "here").iterdir()
    assert file.name == f"{multiprocessing.current_process().name}-{os.getpid()}.jsonl"
    assert file.read_bytes().startswith(BEGINNING)


def test_every_record_says_who_wrote_it_and_when(tmp_path: Path) -> None:
    before = time.time()
    trace_file(tmp_path).write("x", {"a": 1})
    _, record = lines(tmp_path)
    assert before - 0.01 <= record["t"] <= time.time() + 0.01
    assert record["ns"] <= time.monotonic_ns()
    assert record["pid"] == os.getpid()
    assert record["process"] == multiprocessing.current_process().name
    assert record["thread"] == threading.get_native_id()
    assert (record["kind"], record["a"]) == ("x", 1)


def test_fields_cannot_pass_for_the_writer(tmp_path: Path) -> None:
    trace_file(tmp_path).write("x", {"kind": "y", "pid": -1})
    _, record = lines(tmp_path)
    assert (record["kind"], record["pid"]) == ("x", os.getpid())


def cycle() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    return loop


@pytest.mark.parametrize("fields", [{"x": float("nan")}, {("a",): 1}, cycle()], ids=["NaN", "tuple key", "cycle"])
def test_what_json_cannot_say_is_still_recorded(tmp_path: Path, fields: Mapping[Any, Any]) -> None:
    trace_file(tmp_path).write("x", fields)
    _, record = lines(tmp_path)
    assert "unreadable" in record


def test_a_foreign_object_is_told_in_brief(tmp_path: Path) -> None:
    trace_file(tmp_path).write("x", {"path": Path("/a"), "text": "é\ud800\n"})
    _, record = lines(tmp_path)
    assert record["path"] == "PosixPath('/a')"
    assert record["text"] == "é?\n"


def test_a_second_tracer_of_the_process_appends(tmp_path: Path) -> None:
    trace_file(tmp_path).write("x", {})
    trace_file(tmp_path).write("y", {})
    assert [record["kind"] for record in lines(tmp_path)] == ["start", "x", "start", "y"]


def test_the_file_stays_the_same_when_the_process_changes_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    file = trace_file(Path("traces"))
    monkeypatch.chdir("elsewhere")
    forked(file.write, "x", {})
    assert len(list((tmp_path / "traces").iterdir())) == 2


def test_records_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    file = trace_file(tmp_path)
    together = threading.Barrier(8)

    def work(worker: int) -> None:
        together.wait()
        for n in range(200):
            file.write("x", {"worker": worker, "n": n, "long": "y" * 5000})

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = lines(tmp_path)[1:]
    for worker in range(8):
        assert [record["n"] for record in records if record["worker"] == worker] == list(range(200))


def test_a_forked_child_writes_a_file_of_its_own_under_its_own_name(tmp_path: Path) -> None:
    file = trace_file(tmp_path)
    file.write("parents", {})
    child = forked(file.write, "childs", {}, name="worker 1/2")
    file.write("parents", {})
    records = lines(tmp_path, f"worker_1_2-{child}.jsonl")
    assert [(record["kind"], record["pid"]) for record in records] == [("start", child), ("childs", child)]
    mine = lines(tmp_path, f"*-{os.getpid()}.jsonl")
    assert [record["kind"] for record in mine] == ["start", "parents", "parents"]


def test_a_forked_child_that_writes_nothing_leaves_no_file(tmp_path: Path) -> None:
    file = trace_file(tmp_path)
    forked(int)
    file.write("x", {})
    assert len(list(tmp_path.iterdir())) == 1


def test_a_child_forked_while_other_threads_write_can_write(tmp_path: Path) -> None:
    file = trace_file(tmp_path)
    done = threading.Event()

    def busy() -> None:
        while not done.is_set():
            file.write("x", {"long": "y" * 10000})

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            forked(file.write, "y", {})
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(list(tmp_path.iterdir())) == 21


KILLED = """
import itertools, os, sys
from pathlib import Path
from sglang_fl.trace_file import TraceFile

file = TraceFile(Path(sys.argv[1]), lambda: {"host": "h", "argv": [], "versions": {}})
for n in itertools.count():
    file.write("x", {"n": n, "long": "y" * (n % 3000)})
    os.write(1, b".")
"""


def test_a_killed_process_loses_at_most_the_line_it_was_writing(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    written = len(child.stdout.read(1000))  # the child is past its 1000th record, and in the middle of writing
    child.send_signal(signal.SIGKILL)
    written += len(child.stdout.read())
    assert child.wait() == -signal.SIGKILL
    [file] = tmp_path.iterdir()
    damage = Damage()
    numbers = [record.fields()["n"] for record in read_records(file, damage) if record.kind == "x"]
    assert numbers == list(range(len(numbers)))
    assert written <= len(numbers) <= written + 1
    assert damage.unreadable == 0


FULL = """
import logging, resource, sys
from pathlib import Path
from sglang_fl.trace_file import TraceFile

logging.basicConfig()
file = TraceFile(Path(sys.argv[1]), lambda: {"host": "h", "argv": [], "versions": {}})
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
for n in range(40):
    file.write("x", {"n": n})
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for n in range(40, 50):
    file.write("x", {"n": n})
"""


def test_a_full_disk_is_reported_once_and_the_loss_is_counted(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert child.stderr.count("cannot write the trace") == 1
    assert str(tmp_path) in child.stderr
    [file] = tmp_path.iterdir()
    damage = Damage()
    records = list(read_records(file, damage))
    numbers = [record.fields()["n"] for record in records if record.kind == "x"]
    [lost] = [record.fields()["records"] for record in records if record.kind == "lost"]
    assert numbers == [*range(40 - lost), *range(40, 50)]
    assert damage in (Damage(cut=False, unreadable=1), Damage())  # the line that the full disk tore, if it tore one


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        trace_file(tmp_path / "file")


def test_a_disk_that_is_full_from_the_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / f"{multiprocessing.current_process().name}-{os.getpid()}.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        trace_file(tmp_path)


def test_a_child_whose_file_cannot_be_opened_serves_on(tmp_path: Path) -> None:
    file = trace_file(tmp_path / "traces")
    shutil.rmtree(tmp_path / "traces")
    (tmp_path / "traces").touch()
    forked(file.write, "x", {})
