"""A script in a process that stays between requests, so that what it imports is imported once (forked_answers.py)."""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

FORKS = hasattr(os, "fork")
IDLE = 60  # seconds without a request, after which the process leaves


class KeptProcess:
    """A process of a script that answers requests, started when it is asked; it leaves when it is idle or we are gone.

    Args:
        script: its path; run as `python -P SCRIPT SECONDS`, where it calls `forked_answers.serve`.
        environment: variables that it has besides ours.
    """

    def __init__(self, script, **environment):
        self.script, self.environment = script, environment
        self.process, self.owner, self.lock = None, None, threading.Lock()
        atexit.register(self.stop)

    def start(self):
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(self.script), str(IDLE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
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
        self.process = None

    def ask(self, request: dict) -> dict:
        """The answer to a request, as `forked_answers` describes both; paths in it are from our folder of now."""
        request = {**request, "cwd": os.getcwd()}
        with self.lock:
            try:
                for _ in range(2):  # the second to a new process, if the first left in the meantime
                    if self.process is None or self.owner != os.getpid():
                        self.start()
                    with contextlib.suppress(BrokenPipeError, json.JSONDecodeError):
                        self.process.stdin.write(json.dumps(request) + "\n")
                        self.process.stdin.flush()
                        if line := self.process.stdout.readline():
                            return json.loads(line)
                    self.stop()
            except BaseException:  # interrupted: this answer must not be taken for the next one
                self.stop()
                raise
        return {"crash": "it ended without an answer", "code": 1}
