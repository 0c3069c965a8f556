"""TensorFlow's lines on standard error: the settings that end most of them, and the holding back of the rest."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import warnings

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
SETTINGS = {  # of TensorFlow, made before it is imported unless the user has
    LOG_LEVEL: "3",  # no lines of its own on standard error, once it is there
    "TF_ENABLE_ONEDNN_OPTS": "1",  # which it leaves off on processors without AVX-512: a third slower
}
NOTICE = re.compile(rb"[IW]\d{4} |WARNING: All log messages before absl|To enable the following instructions")


@contextlib.contextmanager
def warnings_as_lines():
    """Warnings are lines on standard error like all that a command says, without the code that gave them."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(f"note: {message}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def without_notices():
    """Hold back what is written to standard error, also by C++, and then write it but for TensorFlow's notices."""
    try:
        stderr = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not NOTICE.match(line):
                    os.write(2, line)


@contextlib.contextmanager
def without_retracing():
    """Hold back TensorFlow's warning of a function that is traced anew, which takes several models for one."""

    def kept(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(kept)
    try:
        yield
    finally:
        logger.removeFilter(kept)


def unless_asked_for():
    """`without_notices`, or nothing where the user has set TensorFlow's log level to see its lines."""
    quiet = os.environ.get(LOG_LEVEL) == SETTINGS[LOG_LEVEL]
    return without_notices() if quiet else contextlib.nullcontext()
