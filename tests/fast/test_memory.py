"""Freed memory stays with the process, unless its user has other ideas."""

import platform
import subprocess
import sys

import pytest

from asr_tf.fast import memory

# Page faults of 20 large arrays that come and go, after the first: 8 MiB are 2048 pages.
_FAULTS = """
import resource, sys
from asr_tf.fast.memory import tune_process
if sys.argv[1] == "keep":
    assert tune_process()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = bytearray(b"x") * (8 * 2**20)
        bytes(block)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def _faults(what):
    process = subprocess.run(
        [sys.executable, "-c", _FAULTS, what], capture_output=True, text=True, check=True, env={"PYTHONPATH": "."}
    )
    return int(process.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_arrays_that_come_and_go_cause_no_page_faults():
    assert _faults("keep") < 1000
    assert _faults("leave") >= _faults("keep")


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_variables_of_the_library_come_first(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert not memory.tune_process()


@pytest.mark.parametrize("missing", [AttributeError, OSError, TypeError])
def test_other_libraries_are_left_alone(monkeypatch, missing):
    for name in memory._VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def load(_):
        raise missing

    monkeypatch.setattr(memory.ctypes, "CDLL", load)
    assert not memory.tune_process()
