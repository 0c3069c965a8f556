"""The command line: arguments in, exit code out (0 done, 1 could not, 2 not understood)."""

import argparse
import contextlib
import os
import re
import signal
import sys
import tempfile

import swins
from swins.cli import export_commands, picture_commands, training_commands, variant_commands, weight_commands
from swins.errors import SwinsError

GROUPS = (variant_commands, weight_commands, training_commands, export_commands, picture_commands)
LIGHT = ("list", "describe")  # commands that need no Keras
SETTINGS = {  # of TensorFlow, made before it is imported unless the user has
    "TF_CPP_MIN_LOG_LEVEL": "3",  # no lines of its own on standard error, once it is there
    "TF_ENABLE_ONEDNN_OPTS": "1",  # which it leaves off on processors without AVX-512: a third slower
}
NOTICE = re.compile(rb"[IW]\d{4} |WARNING: All log messages before absl|To enable the following instructions")


def start():
    """Make TensorFlow's settings and import what commands need; a user who sets its log level sees its lines."""
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ and "tensorflow" not in sys.modules
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with without_notices() if quiet else contextlib.nullcontext():
        swins.import_all()


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


def parser():
    """The parser of all commands."""
    top = argparse.ArgumentParser(prog="swins", description="Swin Transformers for Keras 3.")
    top.add_argument("--version", action="version", version=f"swins {swins.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return top


def stop(signum, _):
    """Leave through the clean-up of every `with` and `finally`."""
    raise SystemExit(128 + signum)


def main(arguments=None):
    """Run one command -> exit code."""
    args = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # names of files may be no UTF-8
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")
    signal.signal(signal.SIGTERM, stop)
    try:
        if args.command not in LIGHT:
            start()
        return args.run(args) or 0
    except (SwinsError, OSError, ModuleNotFoundError) as error:
        print(f"swins {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        more = "; the same command, without --overwrite, goes on" if args.command == "train" else ""
        print(f"swins {args.command}: interrupted; no file was left half written{more}", file=sys.stderr)
        return 130
