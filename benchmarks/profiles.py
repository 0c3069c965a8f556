"""Where the time goes, operation by operation -> benchmarks/profiles.txt: make profile.

Milliseconds that operations of a kind ran for in one batch of 8, by TensorFlow's profiler and OpenVINO's counters;
those that ran at the same time count each. Each of SECTIONS is a process of its own; TensorFlow runs with oneDNN, but
for the section that says it is off.

    python benchmarks/profiles.py                  everything
    python benchmarks/profiles.py FUNCTION PRECISION FILES    one section, to standard output
"""

import collections
import os
import pathlib
import subprocess
import sys
import tempfile

import contenders

HERE = pathlib.Path(__file__).parent
REPORT = HERE / "profiles.txt"
BATCH, CALLS, KINDS = 8, 5, 14
SECTIONS = [
    *[(name, precision) for name in ("tensorflow_plain", "tensorflow_deploy") for precision in contenders.POLICIES],
    ("tensorflow_deploy", "float32", "0"),  # the value of TF_ENABLE_ONEDNN_OPTS
    *[(name, precision) for name in ("openvino_timm", "openvino_swins") for precision in contenders.POLICIES],
]


def tensorflow_times(model):
    """Seconds of every operation that a model's graph ran -> [(kind, seconds)] of CALLS calls."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    run = contenders.on_keras(model, "inference")(BATCH)
    for _ in range(3):
        run()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(CALLS):
                run()
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    (plane,) = (plane for plane in space.planes if plane.name == "/host:CPU")
    for line in plane.lines:
        for event in line.events:
            name = plane.event_metadata[event.metadata_id].name
            if ":" in name and "::" not in name and not name.startswith("$"):  # node:Operation#...
                kind = name.split(":")[-1].split("#")[0]
                if kind[:1].isupper() or kind.startswith(("_Mkl", "_Fused")):
                    yield kind, event.duration_ps / 1e12


def openvino_times(path, precision, channels_first):
    """The same of an OpenVINO model."""
    request, x = contenders.openvino_request(path, precision, BATCH, channels_first, PERF_COUNT=True)
    for call in range(3 + CALLS):
        request.infer({0: x}, share_inputs=True)
        if call >= 3:
            for node in request.profiling_info:
                yield f"{node.node_type} {node.exec_type}", node.real_time.total_seconds()


def tensorflow_plain(precision, files):
    return tensorflow_times(contenders.swins_model(precision))


def tensorflow_deploy(precision, files):
    import swins

    return tensorflow_times(swins.deploy(contenders.swins_model(precision)))


def openvino_timm(precision, files):
    return openvino_times(files / "timm.onnx", precision, channels_first=True)


def openvino_swins(precision, files):
    return openvino_times(files / "swins.xml", precision, channels_first=False)


def section(function, precision, files):
    """One section of the report."""
    seconds, counts = collections.Counter(), collections.Counter()
    for kind, time in globals()[function](precision, pathlib.Path(files)):
        seconds[kind] += time / CALLS
        counts[kind] += 1
    total = sum(seconds.values())
    without = ", oneDNN off" * (os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0")
    lines = [f"{function} {precision}{without}: {total * 1e3:.0f} ms"]
    for kind, time in seconds.most_common(KINDS):
        lines.append(f"  {time * 1e3:7.1f} ms  {time / total:6.1%}  x{counts[kind] / CALLS:<4.0f} {kind}")
    return "\n".join(lines) + "\n"


def main():
    quiet = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}

    def run(*command, onednn="1"):
        environment = {**quiet, "TF_ENABLE_ONEDNN_OPTS": onednn}
        done = subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        return done.stdout

    with tempfile.TemporaryDirectory() as files:
        for export in ("export_timm", "export_swins"):
            run(HERE / "contenders.py", export, files)
        sections = [
            run(HERE / "profiles.py", name, precision, files, onednn=(*onednn, "1")[0])
            for name, precision, *onednn in SECTIONS
        ]
    REPORT.write_text(f"{contenders.MODEL}, batches of {BATCH}, TF_ENABLE_ONEDNN_OPTS=1\n\n" + "\n".join(sections))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(section(*sys.argv[1:]), end="")
