"""A py_test that runs one file of tests with pytest, as `make test` does."""

def pytest_test(name, srcs, deps = [], data = [], **kwargs):
    """Runs the tests of `srcs[0]`.

    Args:
        name: of the target; the path of the file without `.py`.
        srcs: the one file of tests.
        deps: what the file imports.
        data: files that it reads.
        **kwargs: passed on to py_test.
    """
    native.py_test(
        name = name,
        srcs = srcs + ["tests/bazel_main.py"],
        main = "tests/bazel_main.py",
        args = srcs,
        data = data + ["pyproject.toml"],
        deps = deps + [":conftest"],
        **kwargs
    )
