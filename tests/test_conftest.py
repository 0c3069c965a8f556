"""The tests' own rules: slow tests stop when their time is over, and only who runs tests imports Keras."""

import os
import pathlib
import subprocess
import sys

import pytest

CONFTEST = pathlib.Path(__file__).with_name("conftest.py")
TESTS = """
import pytest

def test_quick():
    pass

@pytest.mark.slow
def test_slow():
    pass

@pytest.mark.backends
def test_of_every_backend():
    pass

@pytest.mark.backends
@pytest.mark.core
def test_of_the_core():
    pass
"""


@pytest.fixture
def small_suite(tmp_path):
    """A function: backend, until -> what pytest prints of four tests that one process runs for another."""
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "shared_fixtures.py").write_text("import keras\n")
    (tmp_path / "tensorflow.py").write_text("from unittest import mock\nconfig = mock.Mock()\n")
    (tmp_path / "test_small.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n  backends\n  core\n")

    def run(backend, until):
        stub = f"import os, pathlib\npathlib.Path(f'{tmp_path}/{{os.getpid()}}.imported').touch()\n"
        stub += f"class backend:\n    backend = staticmethod(lambda: {backend!r})\n"
        (tmp_path / "keras.py").write_text(stub)
        line = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", "."]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        environment |= {"SWINS_SLOW_UNTIL": str(until)}
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_slow_tests_begin_until_their_time_is_over_and_are_counted(small_suite, tmp_path):
    assert "4 passed" in (printed := small_suite("jax", 4e9)) and "NOT RUN" not in printed
    assert len(list(tmp_path.glob("*.imported"))) == 1  # not by the process that hands out tests
    printed = small_suite("jax", 1)  # under JAX and PyTorch `make test` runs what is core
    assert "1 passed, 3 skipped" in printed and "NOT RUN: 3 slow tests" in printed and "test_small.py" in printed
    assert "3 passed, 1 skipped" in small_suite("tensorflow", 1)
