"""Runs pytest on the files named on the command line: the main program of each Bazel test."""

from __future__ import annotations

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-p", "no:cacheprovider", "-c", "pyproject.toml", "--rootdir", ".", *sys.argv[1:]]))
