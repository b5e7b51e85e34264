"""What every test starts from: quiet TensorFlow, pictures without a screen, gin without a memory."""

import os

# Read when TensorFlow and Matplotlib are first imported, so they are set before any test module is.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same numbers on every CPU
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("ASR_TF_COMPILE_CACHE", "")  # commands leave nothing in the user's
# Tests compile much and compute little.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

import sys

import pytest


@pytest.fixture(autouse=True)
def _clean_gin():
    """Bindings and macros of one test must not reach the next; what is registered stays."""
    yield
    gin = sys.modules.get("gin")
    if gin is not None:
        gin.clear_config(clear_constants=False)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The work folder of a tiny run."""
    import testing_export

    return testing_export.write_run(tmp_path_factory.mktemp("tiny_run"))


@pytest.fixture(scope="session")
def tiny_export(tiny_run, tmp_path_factory):
    """An export folder with one version of the tiny run; not to be changed."""
    import testing_export

    return testing_export.export_tiny(tiny_run, tmp_path_factory.mktemp("tiny_export"))
