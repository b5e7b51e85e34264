"""Compiled programs are found again where they are intact, and nothing else is."""

import errno
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from asr_tf.fast import compile_cache

# Compiles, and says where TensorFlow looked for programs and what lay there at the end.
_PROCESS = """
import json, os, pathlib
from asr_tf.fast.compile_cache import kept_programs
with kept_programs() as kept:
    import tensorflow as tf
    double = tf.function(lambda x: tf.sin(2.0 * x) + 1.0, jit_compile=True)
    value = float(double(tf.constant(0.5)))
    private = pathlib.Path(os.environ["TF_XLA_FLAGS"].split("=", 1)[1])
    links = [path.stat().st_nlink for path in private.glob("*.pb")]
print(json.dumps([kept, value, links, private.exists()]))
"""


@pytest.fixture(name="folder")
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    return tmp_path / "cache"


def _store(folder):
    store = folder / compile_cache._kind()
    store.mkdir(parents=True, exist_ok=True)
    return store


def _keep(store, name, contents):
    path = store / f"{hashlib.sha256(contents).hexdigest()}-{name}"
    path.write_bytes(contents)
    return path


def _private():
    return pathlib.Path(os.environ["TF_XLA_FLAGS"].rpartition("=")[2])


def test_the_next_process_finds_what_was_compiled(folder):
    answers = []
    for _ in range(2):
        process = subprocess.run([sys.executable, "-c", _PROCESS], capture_output=True, text=True, check=True)
        answers.append(json.loads(process.stdout))
    # A program that isn't found is written anew, in the place of the link.
    assert answers[0][2] == [1] and answers[1][2] == [2]
    for kept, value, _, private_exists in answers:
        assert kept and not private_exists
        assert value == pytest.approx(1.8414709848)
    (program,) = folder.glob("*/*.pb")
    assert program.name.startswith(hashlib.sha256(program.read_bytes()).hexdigest())


def test_only_intact_programs_are_shown_and_others_deleted(folder):
    store = _store(folder)
    _keep(store, "a.pb", b"whole")
    cut = _keep(store, "b.pb", b"cut short")
    cut.write_bytes(b"cut")
    with compile_cache.kept_programs() as kept:
        assert kept
        assert {path.name: path.read_bytes() for path in _private().iterdir()} == {"a.pb": b"whole"}
    assert not cut.exists()


def test_new_programs_are_taken_over_even_after_an_error(folder):
    store = _store(folder)
    old = _keep(store, "a.pb", b"old")
    with pytest.raises(KeyError), compile_cache.kept_programs():
        (_private() / "b.pb").write_bytes(b"new")
        raise KeyError
    assert sorted(path.read_bytes() for path in store.iterdir()) == [b"new", b"old"]
    assert old.exists()


def test_the_oldest_programs_go_where_the_folder_grows_too_large(folder, monkeypatch):
    monkeypatch.setattr(compile_cache, "MAX_BYTES", 10)
    store = _store(folder)
    for age, name in ((300, "oldest.pb"), (200, "older.pb")):
        path = _keep(store, name, name[:4].encode())
        os.utime(path, (time.time() - age,) * 2)
    with compile_cache.kept_programs():
        (_private() / "new.pb").write_bytes(b"123456")
    assert sorted(path.name.partition("-")[2] for path in store.iterdir()) == ["new.pb", "older.pb"]


def _aged(path, seconds):
    path.mkdir(parents=True)
    (path / "a.pb").write_bytes(b"program")
    os.utime(path, (time.time() - seconds,) * 2)


def test_folders_of_killed_processes_go_at_the_next_start(folder):
    store = _store(folder)
    with compile_cache.kept_programs():
        at_work = _private()
        os.utime(at_work, (time.time() - 1000 * 86_400.0,) * 2)
        _aged(store / ".running-killed", 3600.0)
        _aged(folder / "of-another-kind" / ".running-killed", 3600.0)
        _aged(store / ".running-not-locked-yet", 1.0)
        compile_cache._sweep(store)  # as another process does that starts
        assert {path.name for path in store.iterdir()} == {at_work.name, ".running-not-locked-yet"}
    assert not list(folder.glob("*/.running-killed"))


def test_where_there_are_no_locks_folders_go_after_a_while(folder, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(compile_cache.fcntl, "flock", no_locks)
    store = _store(folder)
    _aged(store / ".running-killed", 100 * 86_400.0)
    _aged(store / ".running-at-work", 3600.0)
    with compile_cache.kept_programs():
        pass
    assert [path.name for path in store.iterdir()] == [".running-at-work"]


@pytest.mark.parametrize("name", ["XLA_FLAGS", "TF_XLA_FLAGS"])
def test_other_options_of_the_compiler_have_a_folder_of_their_own(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    plain = compile_cache._kind()
    monkeypatch.setenv(name, "--xla_cpu_enable_fast_math=true")
    assert compile_cache._kind() != plain


def test_other_flags_of_tensorflow_stay(folder, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_clustering_debug")
    with compile_cache.kept_programs():
        assert os.environ["TF_XLA_FLAGS"].startswith("--tf_xla_clustering_debug --tf_xla_persistent_cache_directory=")


@pytest.mark.parametrize("case", ["empty variable", "folder of the user's", "a file in the way", "a space"])
def test_without_a_folder_nothing_happens(folder, monkeypatch, case):
    if case == "empty variable":
        monkeypatch.setenv(compile_cache.VARIABLE, "")
    elif case == "folder of the user's":
        monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/theirs")
    elif case == "a space":
        monkeypatch.setenv(compile_cache.VARIABLE, str(folder / "two words"))
    else:
        folder.write_text("a file")
    before = os.environ.get("TF_XLA_FLAGS")
    with compile_cache.kept_programs() as kept:
        assert not kept
        assert os.environ.get("TF_XLA_FLAGS") == before
    assert folder.is_file() or not folder.exists()
