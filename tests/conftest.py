"""How the tests are run: environment, order, time and memory. What they share is in shared_fixtures.py."""

import contextlib
import ctypes
import gc
import os
import pathlib
import shutil
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the command line does; without it `deploy` warns
# there are as many test processes as cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
# XLA: the tests compile much and compute little, and often the same; other processes inherit the first one's folder
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_max_isa=AVX",  # AVX: no fused multiply-add, whose rounding differs
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/swins-compiled-{os.getpid()}")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import pytest

# after all others: files of much that is slow, for where time is over the quick ones have been run; not at the very end
# notebooks, long in one process, for which the other processes would wait
LATER = (
    *("readme", "targets", "export", "embedded_detector", "segmentation", "instances", "train", "rcnn_weights"),
    *("sizes", "convert", "deploy", "programs", "inspect", "evaluate", "detection", "adopt", "upernet_weights"),
    *("diffusion", "models", "v2_cr", "backends", "archives", "mask_rcnn", "notebooks", "bad_input", "files"),
    *("originals", "serving", "train_devices", "hub", "benchmark_exports"),
)
TOO_LATE = "the time for slow tests was over (SWINS_SLOW_UNTIL)"


def under_tensorflow():
    import keras

    return keras.backend.backend() == "tensorflow"


def pytest_configure(config):
    """The process that only hands out tests needs nothing of what they share, and importing Keras takes seconds."""
    hands_out = config.getoption("numprocesses", 0) and not config.getoption("showfixtures")
    if hasattr(config, "workerinput") or not hands_out:
        pytest.register_assert_rewrite("shared_fixtures")
        config.pluginmanager.import_plugin("shared_fixtures")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Where SWINS_SLOW_UNTIL, in seconds since 1970, is past, tests that `make test` does not run are skipped."""
    if time.time() > float(os.environ.get("SWINS_SLOW_UNTIL", "inf")) and (
        item.get_closest_marker("slow") if under_tensorflow() else not item.get_closest_marker("core")
    ):
        pytest.skip(TOO_LATE)


def pytest_terminal_summary(terminalreporter):
    late = [report for report in terminalreporter.stats.get("skipped", ()) if TOO_LATE in str(report.longrepr)]
    if late:
        files = sorted({report.nodeid.partition("::")[0] for report in late})
        terminalreporter.write_line(f"NOT RUN: {len(late)} slow tests, {TOO_LATE}; they are in {', '.join(files)}")


def anonymous_memory():
    """Bytes of this process that belong to no file; 0 where the system does not say."""
    try:
        resident, shared = pathlib.Path("/proc/self/statm").read_text().split()[1:3]
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def drop_gradients() -> int:
    """Take from TensorFlow the gradients of graphs that were traced: it keeps them, and with each its graph, for ever.

    Returns how many there were. The models of a file may still need theirs.
    """
    ops = sys.modules.get("tensorflow.python.framework.ops")
    names = [name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")] if ops else []
    for name in names:
        del ops.gradient_registry._registry[name]
    return len(names)


kept_memory = 0  # bytes after the last collection


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Models and traced graphs are cycles, which Python seldom looks for here (see below): it does where a test process
    has grown. Three of them filled 24 GiB."""
    global kept_memory
    result = yield
    file_ends = nextitem is None or nextitem.path != item.path
    if (file_ends and drop_gradients()) or anonymous_memory() > kept_memory + 300e6:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # glibc's alone
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        kept_memory = anonymous_memory()
    return result


def pytest_unconfigure():
    if (compiled := os.environ["JAX_COMPILATION_CACHE_DIR"]).endswith(f"swins-compiled-{os.getpid()}"):
        shutil.rmtree(compiled, ignore_errors=True)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("core") and not item.get_closest_marker("backends"):
            raise pytest.UsageError(f"{item.nodeid}: `core` is for tests marked `backends`")
    gc.freeze()  # what is imported stays; looking through it again and again takes a tenth of tracing
    gc.set_threshold(100_000, 20, 100)
    if under_tensorflow():  # as of XLA: to optimise a graph takes longer than its few steps
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    places = {f"test_{name}": place for place, name in enumerate(LATER)}
    items.sort(key=lambda item: places.get(item.path.stem, -1))
