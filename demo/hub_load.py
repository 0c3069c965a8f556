"""Load a SavedModel as a TF-Hub user does, where swins is not: hub_load.py FOLDER IMAGES.npy LOGITS.npy."""

import sys

import numpy as np
import tensorflow_hub as hub

folder, images, logits = sys.argv[1:]
model = hub.load(folder)
batches = np.array_split(np.load(images), 40)
np.save(logits, np.concatenate([model(batch).numpy() for batch in batches]))
print(f"hub.load: {len(model.variables)} variables; swins imported: {'swins' in sys.modules}")
