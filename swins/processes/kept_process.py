"""A script in a process that stays between requests, so that what it imports is imported once (forked_answers.py)."""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

FORKS = hasattr(os, "fork")
IDLE = 60  # seconds without a request, after which the process leaves
SETTINGS = ("CUDA_", "HF_", "MKL_", "OMP_", "ONEDNN_", "PYTHONPATH", "TF_", "XLA_")  # that packages read as they begin


def settings() -> dict:
    """Our variables of SETTINGS."""
    return {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}


class KeptProcess:
    """A process of a script that answers requests, started when it is asked; it leaves when we are gone, where there is
    fork also when it is idle, and for a new one where SETTINGS were changed in our environment.

    Args:
        script: its path; run as `python -P SCRIPT SECONDS`, where it calls `forked_answers.serve`.
        environment: variables that it has besides ours.
    """

    def __init__(self, script, **environment):
        self.script, self.environment, self.started_with = script, environment, {}
        self.process, self.owner, self.said, self.lock = None, None, None, threading.Lock()
        atexit.register(self.stop)

    def start(self):
        self.owner, self.started_with = os.getpid(), settings()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (`stop` closes it)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(self.script), str(IDLE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env={**os.environ, **self.environment},
            start_new_session=True,  # so that its children can be stopped with it
        )

    def stop(self):
        """End the process and its children, whatever they are at; a fork of ours leaves it to us."""
        if self.process is not None and self.owner == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it is gone, as macOS says it
                os.killpg(self.process.pid, signal.SIGKILL) if FORKS else self.process.kill()
            self.process.communicate()
            self.said.close()
        self.process = None

    def ending(self) -> dict:
        """The answer of a process that gave none: how it ended, and the last that it said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        self.said.seek(0)
        last = self.said.read()[-2000:].decode(errors="replace")
        return {"crash": last or "it ended without an answer", "code": self.process.poll() or 1}

    def ask(self, request: dict) -> dict:
        """The answer to a request, as `forked_answers` describes both; paths in it are from our folder of now."""
        request = {**request, "out": os.path.abspath(request["out"]), "cwd": os.getcwd()}
        with self.lock:
            try:
                if self.process is not None and self.started_with != settings():
                    self.stop()
                for _ in range(2):  # the second to a new process, if the first left in the meantime
                    if self.process is None or self.owner != os.getpid():
                        self.start()
                    with contextlib.suppress(BrokenPipeError, json.JSONDecodeError):
                        self.process.stdin.write(json.dumps(request) + "\n")
                        self.process.stdin.flush()
                        if line := self.process.stdout.readline():
                            return json.loads(line)
                    ending = self.ending()
                    self.stop()
            except BaseException:  # interrupted: this answer must not be taken for the next one
                self.stop()
                raise
        return ending
