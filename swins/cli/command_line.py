"""The command line: arguments in, exit code out (0 done, 1 could not, 2 not understood)."""

import argparse
import contextlib
import os
import select
import signal
import sys

import swins
from swins.cli import (
    doctor_commands,
    export_commands,
    picture_commands,
    sampling_commands,
    serving_commands,
    training_commands,
    variant_commands,
    weight_commands,
)
from swins.cli.arguments import say
from swins.doctor import chosen_backend
from swins.errors import SwinsError
from swins.notices import LOG_LEVEL, SETTINGS, warnings_as_lines, without_notices

GROUPS = (
    *(variant_commands, weight_commands, training_commands, export_commands, serving_commands, picture_commands),
    *(sampling_commands, doctor_commands),
)
LIGHT = ("list", "describe", "doctor")  # commands that import no Keras: doctor has it imported elsewhere
UNREAD = 128 + 13  # exit code of what SIGPIPE ends


@contextlib.contextmanager
def hidden(*names):
    """Imports find none of these modules, unless they are imported already; afterwards they do."""
    names = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            if sys.modules.get(name, name) is None:
                del sys.modules[name]


def start():
    """Make TensorFlow's settings and import what commands need; a user who sets its log level sees its lines.

    TensorFlow imports JAX where it is installed, and Keras matplotlib, for what no command does.
    """
    quiet = LOG_LEVEL not in os.environ and "tensorflow" not in sys.modules
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    unneeded = ["matplotlib", *(["jax"] if chosen_backend()[0] == "tensorflow" else [])]
    with without_notices() if quiet else contextlib.nullcontext(), hidden(*unneeded):
        swins.import_all()


def parser():
    """The parser of all commands."""
    top = argparse.ArgumentParser(prog="swins", description="Swin Transformers for Keras 3.")
    top.add_argument("--version", action="version", version=f"swins {swins.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return top


def is_light(args):
    """Whether a command needs no Keras; `train --list` is one too."""
    return args.command in LIGHT or getattr(args, "list", False)


def unread(stream):
    """Whether a stream is a pipe that nobody reads any more."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except OSError:  # it is no file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def stop(signum, _):
    """Leave through the clean-up of every `with` and `finally`."""
    raise SystemExit(128 + signum)


def run(arguments):
    """Run one command -> exit code."""
    args = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # names of files may be no UTF-8
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")
    signal.signal(signal.SIGTERM, stop)
    try:
        if not is_light(args):
            if hasattr(args, "loads"):  # for seconds, TensorFlow's import among them
                say(f"loading {args.loads(args)}")
            start()
        with warnings_as_lines():
            return args.run(args) or 0
    except BrokenPipeError:
        raise
    except (SwinsError, OSError, ModuleNotFoundError) as error:
        print(f"swins {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        train = args.command == "train"
        more = "the same command, without --overwrite, goes on" if train else "no file was left half written"
        print(f"swins {args.command}: interrupted; {more}", file=sys.stderr)
        return 130


def main(arguments=None):
    """Run one command -> exit code; it ends without a word where nobody reads it any more, as after `| head`."""
    try:
        try:
            return run(arguments)
        finally:
            if sys.stdout:
                sys.stdout.flush()  # here, where it is caught
    except BrokenPipeError as error:
        closed = [stream for stream in (sys.stdout, sys.stderr) if stream and unread(stream)]
        if not closed:
            print(f"swins: {error}", file=sys.stderr)
            return 1
        for stream in closed:  # or Python's last flush would raise again
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return UNREAD
