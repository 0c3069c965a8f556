"""What test_backends.py has done in a process of another backend; run as `elsewhere.py FOLDER CHECKPOINT`."""

import json
import pathlib
import sys

import keras
import numpy as np
from test_models import SMALL, moved

import swins
from swins.cli import main
from swins.convert.certificate import seeded_images
from swins.weights import checkpoint_files, swin_rules

NAME = "swin_mini_patch2_window4_28.fashion_mnist"
MODELS = {  # maps of 10x14 and 5x7 tokens: windows of 4 are padded and shifted
    "v1": (swins.SwinTransformer, "float32"),
    "v2": (swins.SwinTransformerV2, "float32"),
    "v2_cr": (swins.SwinTransformerV2CR, "float32"),
    "half": (swins.SwinTransformerV2, "mixed_bfloat16"),
}


def outputs(model):
    return model.predict(seeded_images(model.variant), verbose=0)


def facts_of(model):
    """(outputs, digest of the weights, dtype policy)."""
    return outputs(model), checkpoint_files.digest(swin_rules.state_dict(model)), model.policy


def write(folder, kind):
    """A model with moved weights, as FOLDER/KIND.keras -> what `read` gives of it."""
    family, policy = MODELS[kind]
    model = moved(family(**{**SMALL, "image_size": (20, 28)}, num_classes=5, dtype=policy))
    model.save(folder / f"{kind}.keras")
    return facts_of(model)


def read(folder, kind):
    """FOLDER/KIND.keras -> its outputs, digest of its weights, dtype policy."""
    return facts_of(keras.saving.load_model(folder / f"{kind}.keras"))


if __name__ == "__main__":
    theirs, checkpoint = map(pathlib.Path, sys.argv[1:])
    ours = theirs / keras.backend.backend()
    ours.mkdir()
    swins.SwinTransformer(**SMALL)(np.zeros((1, 32, 32, 3), "float32"))
    facts = {"tensorflow": "tensorflow" in sys.modules}
    sys.modules["tensorflow"] = None  # from here as where it is not installed
    arrays = {}
    for kind in MODELS:
        arrays[f"read_{kind}"], *facts[f"read_{kind}"] = read(theirs, kind)
        arrays[f"wrote_{kind}"], *facts[f"wrote_{kind}"] = write(ours, kind)
    arrays["created"] = outputs(swins.create(NAME, weights=checkpoint))
    facts["list"] = main(["list"])
    facts["convert"] = main(["convert", "-m", NAME, "--checkpoint", str(checkpoint), "-o", str(ours / "artefact")])
    np.savez(ours / "arrays.npz", **arrays)
    print(json.dumps(facts))
