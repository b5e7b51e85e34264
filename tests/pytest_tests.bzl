"""Tests by pattern: each file of tests is a py_test that runs it with pytest, as `make test` does."""

def pytest_tests(srcs, deps = [], data = [], **kwargs):
    """Declares a target for each file, called by its path without `.py`.

    Args:
        srcs: files of tests.
        deps: what they import.
        data: files that they read.
        **kwargs: passed on to each py_test.
    """
    for src in srcs:
        native.py_test(
            name = src[:-len(".py")],
            srcs = [
                src,
                "tests/bazel_main.py",
            ],
            main = "tests/bazel_main.py",
            args = [src],
            data = data,
            deps = deps,
            **kwargs
        )
