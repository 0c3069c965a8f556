"""UPerNet on Swin-T in the benchmark: ours, and transformers' in eager PyTorch, compiled by it, and as OpenVINO's.

From prepared images of 512 pixels to logits of 150 classes at a quarter of the side, on the host: where the programs go
on differs. OpenVINO's files are made by each contender before it is timed, with its own program's exporter.
"""
# pylint: disable=unexpected-keyword-arg  # transformers' configurations take more than their code shows

import functools

from contenders import POLICIES, THREADS

NAME, SIDE, CLASSES = "upernet_swin_tiny", 512, 150


def pixels(batch):
    import numpy as np

    return np.random.default_rng(0).standard_normal((batch, SIDE, SIDE, 3), "float32")


def in_torch(batch):
    """The images as PyTorch has them."""
    import torch

    torch.set_num_threads(THREADS)
    return torch.from_numpy(pixels(batch)).permute(0, 3, 1, 2).contiguous()


def torch_network():
    """transformers' network without what resizes its logits: images (B, 3, H, W) -> (B, CLASSES, H / 4, W / 4)."""
    import torch
    from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation

    backbone = SwinConfig(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        image_size=SIDE,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = UperNetForSemanticSegmentation(
                UperNetConfig(backbone_config=backbone, num_labels=CLASSES, use_auxiliary_head=False)
            ).eval()

        def forward(self, images):
            maps = self.network.backbone.forward_with_filtered_kwargs(images).feature_maps
            return self.network.decode_head(maps)

    return Head().eval()


def transformers(precision, task, files, compiled=False):
    import torch

    model = torch_network()
    model = torch.compile(model) if compiled else model

    def inference(batch):
        x = in_torch(batch)

        def run():
            with torch.inference_mode():
                return model(x).numpy()

        return run

    return inference


def openvino_request(model, batch, channels_first):
    """A function that runs an openvino.Model for batches of a size."""
    import numpy as np
    import openvino as ov

    x = pixels(batch)
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if channels_first else x
    model.reshape(x.shape)
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": THREADS,
    }
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer({0: x}, share_inputs=True)[0]


def transformers_openvino(precision, task, files):
    import openvino as ov

    model = (
        torch_network()
    )  # which PyTorch exports to no ONNX file: its adaptive pooling is of sides that do not divide

    def inference(batch):
        return openvino_request(ov.convert_model(model, example_input=in_torch(batch)), batch, channels_first=True)

    return inference


def network(precision, deployed):
    """Our network of any size, without the auxiliary head."""
    import swins

    model = swins.create(NAME, num_classes=CLASSES, auxiliary=0, drop_path_rate=0.0, dtype=POLICIES[precision])
    return swins.deploy(model, portable=deployed == "portable") if deployed else model


def ours(precision, task, files, jit=False, deployed=""):
    import tensorflow as tf

    model = network(precision, deployed)
    function = tf.function(lambda images: model(images, training=False), jit_compile=jit, autograph=False)

    def inference(batch):
        x = tf.constant(pixels(batch))
        return lambda: function(x)["logits"].numpy()

    return inference


def swins_openvino(precision, task, files):
    import openvino as ov

    from swins.exports import saved_model_writer, target_writers

    model, place = network(precision, "portable"), files / "upernet"
    saved_model_writer.save(model, None, place, "logits")
    target_writers.write_openvino(target_writers.Source(model, "logits", place, place), f"{place}.xml", precision, None)
    return lambda batch: openvino_request(ov.Core().read_model(f"{place}.xml"), batch, channels_first=False)


transformers_compiled = functools.partial(transformers, compiled=True)
swins_graph, swins_xla = ours, functools.partial(ours, jit=True)
swins_deployed = functools.partial(ours, deployed="fast")
