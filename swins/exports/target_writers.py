"""How files for other runtimes are written: a model, the names of its classes inside.

LiteRT and OpenVINO files are made from a SavedModel with the signature `images` -> named outputs, ONNX files from the
model (to_onnx.py). Names are a JSON list: ONNX' metadata_props and OpenVINO's rt_info, "class_names"; LiteRT's are the
lines of labels.txt, which `unzip` finds in the file.
"""

import functools
import json
import pathlib
import sys
import warnings
import zipfile
from dataclasses import dataclass

from swins.exports import to_onnx

CLASS_NAMES = "class_names"
LABELS = "labels.txt"


@dataclass(frozen=True)
class Source:
    """What files are made of: a model, the name of what it gives, a SavedModel of it in a folder, and one of a fixed
    size: the same, or that of a model of any size for a runtime that needs one; its classes' names, if they are known.
    """

    model: object
    output: str
    saved_model: pathlib.Path
    fixed: pathlib.Path
    class_names: tuple = ()

    @functools.cached_property
    def onnx(self):
        """An ONNX protocol buffer, converted once for the files of all precisions, which change copies."""
        return to_onnx.convert(self.model, self.output)

    @functools.cached_property
    def openvino(self):
        """OpenVINO's model, converted once for the files of all precisions."""
        return import_openvino().convert_model(str(self.saved_model))


def import_openvino():
    """OpenVINO without its telemetry: at its import and conversions it sends lines to Google from forks of ours."""
    sys.modules.setdefault("openvino_telemetry", None)  # as if it were not installed
    import openvino

    return openvino


def write_onnx(source, path, precision, _):
    """A Source as an ONNX file, batch and open sides dynamic."""
    proto = type(source.onnx)()
    proto.CopyFrom(source.onnx)
    if precision == "float16":
        to_onnx.halve(proto)
    if source.class_names:
        proto.metadata_props.add(key=CLASS_NAMES, value=json.dumps(source.class_names))
    path.write_bytes(proto.SerializeToString())


def write_litert(source, path, precision, calibration):
    """A Source as a LiteRT file of built-in operations only, batch dynamic, of the fixed size."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(source.fixed), signature_keys=["serving_default"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ({"images": image[None]} for image in calibration)
    with warnings.catch_warnings():  # the converter calibrates with an interpreter of TensorFlow's that it calls old
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated")
        path.write_bytes(converter.convert())
    if source.class_names:
        lines = "".join(f"{' '.join(name.splitlines())}\n" for name in source.class_names)
        with zipfile.ZipFile(path, "a") as after:  # TensorFlow Lite's place for labels: a zip behind the model
            after.writestr(zipfile.ZipInfo(LABELS), lines.encode("utf-8", "backslashreplace"))


def write_openvino(source, path, precision, _):
    """A Source as OpenVINO's .xml and .bin, batch and open sides dynamic."""
    converted = source.openvino
    if source.class_names:
        converted.set_rt_info(json.dumps(source.class_names), CLASS_NAMES)
    import_openvino().save_model(converted, path, compress_to_fp16=precision == "float16")
