"""Headless Chromium, where it is installed, and folders that it looks at."""

import contextlib
import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


@contextlib.contextmanager
def served(folder, handler=http.server.SimpleHTTPRequestHandler):
    """The address of a folder on this machine, as long as the context lasts."""
    handler = functools.partial(handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def page_of(address, profile):
    """A page as it is after its scripts have run -> HTML."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def reported(folder, page, profile, seconds=400):
    """What a page of a folder posts to /report, and what was written to the console until then -> (value, lines)."""
    reports = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self):
            reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            """Nothing: requests are not told."""

    log = profile.with_suffix(".log")
    with served(folder, Handler) as address, open(log, "w") as errors:
        command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", f"{address}/{page}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            value = reports.get(timeout=seconds)
        finally:
            process.terminate()
            process.wait(30)
    return value, [line for line in log.read_text(errors="replace").splitlines() if ":CONSOLE" in line]
