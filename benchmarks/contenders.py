"""One contender of the benchmark, in a process of its own: python -P contenders.py NAME PRECISION TASK FILES.

Reads lines of JSON, writes lines of JSON. {"size": 8, "seconds": 1.0} is answered by the seconds of each call of a
batch of that size, timed after one that is not. A task is "inference" (images to logits on the host) or "training"
(one step of AdamW). FILES is a folder of exported models, made by NAME = "export_timm" or "export_swins".
"""

import importlib
import json
import os
import pathlib
import resource
import sys
import time

MODEL = "swin_tiny_patch4_window7_224"
CLASSES = 1000
THREADS = os.cpu_count()
sys.modules.setdefault("openvino_telemetry", None)  # or OpenVINO would send lines to Google
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def pixels(batch, side=224):
    import numpy as np

    return np.random.default_rng(0).standard_normal((batch, side, side, 3), "float32")


def torch_update(model, optimizer, loss_of, clip=None):
    """A training step in eager PyTorch: forward, backward, gradients' norm if it is cut, one update: -> the loss."""
    import torch

    def run():
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        return loss.item()

    return run


# --- peers


def timm_model(precision):
    import timm
    import torch

    torch.set_num_threads(THREADS)
    model = timm.create_model(MODEL, drop_path_rate=0.0)
    return model.to(
        getattr(torch, precision)
    ), lambda batch: torch.from_numpy(pixels(batch)).permute(0, 3, 1, 2).contiguous().to(getattr(torch, precision))


def timm(precision, task, files, compiled=False):
    import torch

    if task == "training":  # autocast over float32 weights, as timm's own script trains
        model, images = timm_model("float32")
        model = torch.compile(model.train(), dynamic=False) if compiled else model.train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

        def step(batch):
            x, y = images(batch), torch.arange(batch) % CLASSES

            def loss_of():
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    return torch.nn.functional.cross_entropy(model(x), y)

            return torch_update(model, optimizer, loss_of)

        return step
    model, images = timm_model(precision)
    model = torch.compile(model.eval(), dynamic=False) if compiled else model.eval()

    def inference(batch):
        x = images(batch)

        def run():
            with torch.inference_mode():
                return model(x).float().numpy()

        return run

    return inference


def timm_compile(precision, task, files):
    return timm(precision, task, files, compiled=True)


def keras_hub(precision, task, files, jit=False):
    import keras_hub

    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(224, 224, 3),
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        drop_path=0.0,
        dtype=POLICIES[precision],
    )
    model = keras_hub.models.SwinTransformerImageClassifier(
        backbone=backbone, num_classes=CLASSES, preprocessor=None, dtype=POLICIES[precision]
    )
    return on_keras(model, task, jit)


def keras_hub_xla(precision, task, files):
    return keras_hub(precision, task, files, jit=True)


def tfswin(precision, task, files):
    import numpy as np
    import tensorflow as tf
    import tfswin as peer

    model = peer.SwinTransformerTiny224(
        weights=None, classes=CLASSES, include_preprocessing=False, classifier_activation=None
    )
    function = tf.function(lambda images: model(images, training=False))

    def inference(batch):
        x = tf.constant(pixels(batch))
        return lambda: np.asarray(function(x))

    return inference


def onnxruntime(precision, task, files, file="timm.onnx", channels_first=True):
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS

    def inference(batch):
        session = ort.InferenceSession(str(files / file), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        x = pixels(batch)
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if channels_first else x
        return lambda: session.run(None, {name: x})[0]

    return inference


def openvino_request(path, precision, batch, channels_first, **more):
    """A model compiled for a batch, and the batch."""
    import numpy as np
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    x = pixels(batch)
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if channels_first else x
    model.reshape(x.shape)
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
    return core.compile_model(model, "CPU", {**options, **more}).create_infer_request(), x


def openvino(precision, task, files, file="timm.onnx", channels_first=True):
    def inference(batch):
        request, x = openvino_request(files / file, precision, batch, channels_first)
        return lambda: request.infer({0: x}, share_inputs=True)[0]

    return inference


def openvino_torch(precision, task, files):
    return openvino(precision, task, files, "timm.xml")


# --- ours


def on_keras(model, task, jit=False):
    """A Keras model on the backend of this process."""
    import keras
    import numpy as np

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_num_threads(THREADS)
    if task == "training":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=jit or backend == "jax")

        def step(batch):
            x, y = pixels(batch), np.arange(batch) % CLASSES
            return lambda: model.train_on_batch(x, y)

        return step
    if backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(lambda images: model(images, training=False), jit_compile=jit)
        convert = tf.constant
    elif backend == "jax":
        import jax

        trained, other = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
        stateless = jax.jit(lambda t, o, images: model.stateless_call(t, o, images, training=False)[0])
        function, convert = lambda images: stateless(trained, other, images), jax.numpy.asarray
    else:
        function, convert = torch.inference_mode()(lambda images: model(images, training=False)), torch.from_numpy

    def inference(batch):
        x = convert(pixels(batch))
        return lambda: keras.ops.convert_to_numpy(function(x))

    return inference


def swins_model(precision, **options):
    import swins

    return swins.create(MODEL, drop_path_rate=0.0, dtype=POLICIES[precision], **options)


def swins_plain(precision, task, files, jit=False):
    return on_keras(swins_model(precision), task, jit)


def swins_xla(precision, task, files):
    return swins_plain(precision, task, files, jit=True)


def swins_deploy(precision, task, files):
    import swins

    return on_keras(swins.deploy(swins_model(precision)), task)


def swins_onnxruntime(precision, task, files):
    return onnxruntime(precision, task, files, "swins.onnx", channels_first=False)


def swins_openvino(precision, task, files):
    return openvino(precision, task, files, "swins.xml", channels_first=False)


def growth_side(precision, task, files):
    """The size is the image side, of one image."""
    return one_image(lambda side: swins_model(precision, image_size=side))


def growth_open(precision, task, files):
    """The same in a model of any size."""
    return one_image(lambda side: swins_model(precision, image_size=(None, None)))


def growth_window(precision, task, files):
    """The size is the window, of one image of 448 pixels."""
    return one_image(lambda window: swins_model(precision, image_size=448, window_size=window), 448)


def one_image(model_of, side=None):
    import tensorflow as tf

    import swins

    def inference(size):
        model, x = swins.deploy(model_of(size)), tf.constant(pixels(1, side or size))
        function = tf.function(model, input_signature=[tf.TensorSpec((1, *model.input.shape[1:]))], autograph=False)
        return lambda: function(x).numpy()

    return inference


def floor(precision, task, files):
    """The matrix product alone, over as many operations as `batch` images take."""
    import tensorflow as tf

    from swins.describe import stage_costs

    side = 2048
    operations = 2 * sum(macs for _, macs in stage_costs(swins_model("float32").variant))
    a, b = (tf.cast(tf.random.normal((side, side)), precision) for _ in range(2))
    product = tf.function(lambda a, b: tf.matmul(a, b))

    def inference(batch):
        times = operations * batch / (2 * side**3)

        def run():
            start = time.perf_counter()
            for _ in range(4):
                done = product(a, b)
            done.numpy()
            return (time.perf_counter() - start) / 4 * times

        run.tells = True
        return run

    return inference


# --- files


def export_timm(files):
    import openvino as ov
    import torch

    model, images = timm_model("float32")
    model, x = model.eval(), images(8)
    path = str(files / "timm.onnx")
    dynamic = {"images": {0: "batch"}}
    torch.onnx.export(model, x, path, dynamo=False, opset_version=17, input_names=["images"], dynamic_axes=dynamic)
    ov.save_model(ov.convert_model(model, example_input=x), files / "timm.xml", compress_to_fp16=False)


def export_swins(files):
    import swins
    from swins.exports import saved_model_writer, target_writers

    model, place = swins.deploy(swins_model("float32"), portable=True), files / "swins"
    source = target_writers.Source(model, "logits", place, place)
    saved_model_writer.save(source.model, None, source.saved_model, "logits")
    target_writers.write_openvino(source, files / "swins.xml", "float32", None)
    target_writers.write_onnx(source, files / "swins.onnx", "float32", None)


# --- the process


def timed(run):
    start = time.perf_counter()
    told = run()
    return told if getattr(run, "tells", False) else time.perf_counter() - start


def main(name, precision, task, files):
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")  # the libraries may print
    os.dup2(2, 1)
    module, _, function = name.rpartition(":")  # of this file, or of another beside it
    contender = getattr(importlib.import_module(module), function) if module else globals()[name]
    make, calls, first = contender(precision, task, pathlib.Path(files)), {}, None
    for line in sys.stdin:
        request = json.loads(line)
        size = request["size"]
        if size not in calls:
            start = time.perf_counter()
            calls[size] = make(size)
            calls[size]()
            first = time.perf_counter() - start
        calls[size]()
        seconds, end = [], time.perf_counter() + request["seconds"]
        while not seconds or time.perf_counter() < end:
            seconds.append(timed(calls[size]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "first": first, "peak_MiB": peak}), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1].startswith("export_"):
        globals()[sys.argv[1]](pathlib.Path(sys.argv[2]))
    else:
        main(*sys.argv[1:])
