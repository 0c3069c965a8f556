"""swins: the Swin Transformer family for Keras 3, converted from PyTorch and proven equal to it.

`import swins` imports all of it, and Keras, which then loads `.keras` files. The command line alone waits until a
command needs them: TensorFlow takes seconds to import, and its settings must be made before.
"""
# ruff: noqa: F405

import os
import sys
from typing import TYPE_CHECKING

from swins import notices

if TYPE_CHECKING:
    from swins.public import *  # noqa: F403 (names of __all__, for type checkers)

__version__ = "0.1.0"
__all__ = [
    "SSD",
    "CascadeMaskRCNN",
    "HubLayer",
    "MaskRCNN",
    "PixelClassifier",
    "Predictor",
    "Preprocess",
    "RCNNVariant",
    "ResNet",
    "SSDVariant",
    "SwinTransformer",
    "SwinTransformerV2",
    "SwinTransformerV2CR",
    "SwinUNet",
    "SwinUNetVariant",
    "SwinsError",
    "UPerNet",
    "UPerNetVariant",
    "Variant",
    "VariantResNet",
    "VariantV2",
    "VariantV2CR",
    "attention_maps",
    "attention_rollout",
    "backbone",
    "class_names",
    "create",
    "deploy",
    "export",
    "grad_cam",
    "list_variants",
    "load",
    "plan_stages",
    "preprocess",
    "register_variant",
    "resize",
    "select_classes",
    "stitched_attention",
]


def import_all():
    """Import everything public into this module, which registers its classes with Keras.

    Raises:
        ModuleNotFoundError: if Keras' backend is not installed; the message says what to do.
    """
    try:
        from swins import public
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "jax", "torch"):
            raise
        from swins.errors import install

        raise ModuleNotFoundError(
            f"Keras needs a backend, and {error.name} is not installed: {install('tensorflow')}; or set "
            "KERAS_BACKEND=jax or KERAS_BACKEND=torch where that is installed",
            name=error.name,
        ) from error
    globals().update({name: getattr(public, name) for name in __all__})


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'swins' has no attribute {name!r}")
    import_all()
    return globals()[name]


def __dir__():
    return sorted({*globals(), *__all__})


def is_command_line():
    """Whether this process is the shell's `swins` or `python -m swins.cli`."""
    program = sys.argv[0] if getattr(sys, "argv", None) else ""
    return os.path.splitext(os.path.basename(program))[0] == "swins" or (
        program == "-m" and "swins.cli" in getattr(sys, "orig_argv", ())
    )


if not is_command_line():
    with notices.unless_asked_for():
        import_all()
