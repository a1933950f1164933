"""Publication: whole or not at all, one writer at a time, nothing left over, standard JSON."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pma import files
from pma.files import publish_folder, write_json
from pma.json_files import read_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def publish(final: Path, text: str, **options) -> None:
    with publish_folder(final, **options) as aside:
        (aside / "text").write_text(text)


def test_a_folder_is_published_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), publish_folder(tmp_path / "out") as aside:
        (aside / "text").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []
    publish(tmp_path / "out", "first")
    publish(tmp_path / "out", "second")  # a run that makes a snapshot again
    assert (tmp_path / "out" / "text").read_text() == "second"
    assert names(tmp_path) == ["out"]


def test_files_of_a_folder_are_readable_as_the_umask_has_it_but_not_those_linked_from_elsewhere(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("")
    theirs.chmod(0o600)
    before = os.umask(0o027)
    try:
        with publish_folder(tmp_path / "final") as aside:
            (aside / "model.safetensors").touch(0o600)
            (aside / "config.json").touch()
            os.link(theirs, aside / "linked")
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "final").iterdir()}
    assert modes == {"model.safetensors": "0o640", "config.json": "0o640", "linked": "0o600"}


def test_what_must_be_new_never_replaces_a_result(tmp_path):
    publish(tmp_path / "out", "first")
    with pytest.raises(ValueError, match="out: exists already"):
        publish(tmp_path / "out", "second", replace=False)
    with pytest.raises(ValueError, match="came into being meanwhile"):
        with publish_folder(tmp_path / "other", replace=False):
            (tmp_path / "other").mkdir()  # by a program that knows no locks
    assert (tmp_path / "out" / "text").read_text() == "first"
    assert names(tmp_path) == ["other", "out"]


def test_a_second_writer_is_refused_or_waits(tmp_path):
    final, order = tmp_path / "out", []
    with publish_folder(final) as aside:
        (aside / "text").write_text("first")
        with pytest.raises(ValueError, match="another process is writing it"):
            publish(final, "second", replace=False)
        waiting = threading.Thread(target=lambda: (publish(final, "third"), order.append("third")))
        waiting.start()
        time.sleep(0.1)
        order.append("first")
        assert aside.is_dir()  # not swept by the others
    waiting.join(10)
    assert order == ["first", "third"] and (final / "text").read_text() == "third"
    assert names(tmp_path) == ["out"]


WRITER = """
import sys
from pathlib import Path
from pma.files import publish_folder
won = 0
for i in range(40):
    try:
        with publish_folder(Path(sys.argv[1]) / str(i), replace=False) as aside:
            for k in range(5):
                (aside / str(k)).write_text(sys.argv[2])
        won += 1
    except ValueError:
        pass
print(won)
"""


def test_of_many_writers_one_wins_each_name(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, env=env) for i in range(4)]
    won = sum(int(writer.communicate()[0]) for writer in writers)
    assert won == 40 and names(tmp_path) == sorted(map(str, range(40)))
    for folder in tmp_path.iterdir():
        assert len({path.read_text() for path in folder.iterdir()}) == 1 and len(names(folder)) == 5


def test_only_what_a_dead_process_left_is_swept(tmp_path):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    host = socket.gethostname()
    dead = [f"{host}-{done.pid}", f"{host}-{done.pid}-old", "elsewhere-1"]  # nobody elsewhere can hold our lock
    alive = f".out.partial-{host}-{os.getppid()}"
    for name in dead:
        (tmp_path / f".out.partial-{name}").mkdir()
    for name in (alive, ".out.partial", ".out-2.partial-elsewhere-1"):  # the last two are of other names
        (tmp_path / name).mkdir()
    publish(tmp_path / "out", "text")
    assert names(tmp_path) == sorted([alive, ".out.partial", ".out-2.partial-elsewhere-1", "out"])


def test_without_locks_what_other_machines_write_is_left_alone(tmp_path, monkeypatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / ".out.partial-elsewhere-1").mkdir()
    monkeypatch.setattr(fcntl, "flock", refuse)
    publish(tmp_path / "out", "text", replace=False)
    assert names(tmp_path) == [".out.partial-elsewhere-1", "out"]


def test_json_is_standard_or_not_written(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1.5, None]}
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="b.json: .*JSON"):
            write_json(tmp_path / "b.json", {"x": value})
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    "text,message",
    [
        ('{"tokens": "7"}', "tokens is '7', no whole number"),
        ('{"tokens": true}', "tokens is 'True', no whole number"),
        ('{"tokens": 7.5}', "tokens is '7.5', no whole number"),
        ("{}", "has no tokens"),
        ("[" * 10000, "not readable as JSON"),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path, text, message):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"state.json: .*{message}"):
        read_json(path, tokens=int)
    path.write_text('{"tokens": 7}')
    assert read_json(path, tokens=int) == {"tokens": 7}


def _dead() -> int:
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_killed_processes_left_aside_goes_under_whatever_name(tmp_path):
    host, dead = socket.gethostname(), _dead()
    (tmp_path / f".gone.partial-{host}-{dead}").mkdir()  # of a checkpoint that nobody publishes again
    (tmp_path / f".out.json.partial-{host}-{dead}").touch()
    (tmp_path / f".mine.partial-{host}-{os.getpid()}").mkdir()  # another thread
    (tmp_path / ".gone.publishing").touch()
    with publish_folder(tmp_path / "other"):  # whose lock is held meanwhile
        write_json(tmp_path / "out.json", {})
        assert (tmp_path / ".other.publishing").exists()
    assert names(tmp_path) == [f".mine.partial-{host}-{os.getpid()}", "other", "out.json"]


def test_a_folder_that_is_removed_has_no_half_under_its_name(tmp_path, monkeypatch):
    publish(tmp_path / "out", "text")
    monkeypatch.setattr(files, "_remove", lambda path: None)  # a kill comes
    files.remove_folder(tmp_path / "out")
    assert [name for name in names(tmp_path) if not name.startswith(".out.partial-")] == []


def test_without_a_descriptor_left_nothing_is_left_over(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(RuntimeError), publish_folder(tmp_path / "out") as aside:
        (aside / "below").mkdir()
        (aside / "below/text").write_text("half")
        free = os.open(tmp_path, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        raise RuntimeError
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_an_error_of_a_full_disk_names_what_was_written(tmp_path, number):
    for publishing in (publish_folder, files.publish_file):
        with pytest.raises(OSError, match=r"out\.json"), publishing(tmp_path / "out.json"):
            raise OSError(number, os.strerror(number))  # as of os.pwrite
        with pytest.raises(OSError, match=r"out\.json.*Error while serializing"), publishing(tmp_path / "out.json"):
            raise files.SafetensorError("Error while serializing: No space left on device (os error 28)")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_flushed_after_its_renaming_is_named(tmp_path, monkeypatch):
    flush = os.fsync

    def full(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=str(tmp_path)), publish_folder(tmp_path / "out"):
        pass


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "rows.jsonl"
    files.append_line(path, "first")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, before[1]))
    try:
        with pytest.raises(OSError, match=r"rows\.jsonl"):
            files.append_line(path, "second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    files.append_line(path, "third")
    assert path.read_text() == "first\nthird\n"
