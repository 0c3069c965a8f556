"""`swins serve` and `swins benchmark`: exports over HTTP, and how fast they are."""

import signal
import sys
import threading

from swins import notices
from swins.cli.arguments import positive, say, whole


def serve_until_asked(server):
    """Answer until Ctrl-C or SIGTERM, as servers do, for whom these are no failure -> the signal.

    Nothing is raised where the signal comes: what libraries call back would swallow it.
    """
    asked = []

    def end(number, _):
        asked.append(number)
        threading.Thread(target=server.shutdown).start()  # which waits for the answering to end

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.serve_forever()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return asked[0]


def serve_command(args):
    from swins.exports.rest_server import Served, open_server
    from swins.exports.saved_model_writer import require_tensorflow

    require_tensorflow("a server of SavedModels")
    with notices.unless_asked_for():  # of devices and plugins, which loading sets up
        served = Served(args.folder)
    with open_server(served, args.host, args.port) as server:
        address = f"http://{args.host}:{server.server_port}/v1/models/{served.name}"
        print(f"{address}: version {served.version}; POST {address}:predict; Ctrl-C ends", flush=True)
        say("for trying out, on this machine: TF Serving takes the same folder and the same requests")
        by = serve_until_asked(server)
    say("\nswins serve: ended" if by == signal.SIGINT and sys.stderr.isatty() else "swins serve: ended")  # below the ^C


def benchmark_command(args):
    from swins.exports.benchmark import benchmark

    measured, timings = benchmark(args.folder, args.batch, args.rounds)
    print(measured)
    print(
        f"of the rounds the median (fastest to slowest); x: times as fast as {timings[0].file} in the same round, "
        "median (lowest to highest)"
    )
    width = max(len(timing.file) for timing in timings)
    for timing in timings:
        between = f"({min(timing.rounds):.2f} to {max(timing.rounds):.2f})"
        apart = f"({min(timing.ratios):.2f} to {max(timing.ratios):.2f})"
        speed = f"{1000 * args.batch / timing.milliseconds:,.0f} images/s"
        print(
            f"{timing.file:{width}}  {timing.milliseconds:9.2f} ms {between:20}  {speed:>16}  "
            f"{timing.times_keras:5.2f} x {apart}"
        )


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("serve", help="answer TF Serving's REST requests from an export's numbered folder")
    sub.add_argument("folder", help="artefact with 1/, as `swins export --serving` makes it")
    sub.add_argument("--port", type=whole, default=8501, help="(default 8501, TF Serving's; 0 for any that is free)")
    sub.add_argument("--host", default="127.0.0.1", help="(default 127.0.0.1: this machine alone)")
    sub.set_defaults(run=serve_command, loads=lambda args: args.folder)

    sub = commands.add_parser("benchmark", help="time each export of an artefact on this machine, beside Keras")
    sub.add_argument("folder", help="artefact with exports")
    sub.add_argument("--batch", type=positive, default=1, help="images at a time (default 1)")
    sub.add_argument("--rounds", type=positive, default=5, help="turns of half a second that each has (default 5)")
    sub.set_defaults(run=benchmark_command)
