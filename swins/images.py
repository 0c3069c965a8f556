"""From image files to a model's input: the two evaluation protocols, with Pillow's own resampling.

The published tables differ by the protocol, not by the weights:
    timm  shorter side to floor(size / crop), centre crop; crop is 0.9 at 192, 224 and 256 but for one name, else 1.0
    ms    shorter side to 8/7 of the size, centre crop; 384-pixel models squash the whole image to 384x384
As in timm, transparency is dropped (what lies below it shows) and EXIF's rotation is ignored: where they matter, turn
photographs with `PIL.ImageOps.exif_transpose`, and lay transparent images on a colour.
"""

import gzip
import math
import os
import pathlib
import zlib
from dataclasses import dataclass, fields

import keras
import numpy as np

from swins.checked_numbers import ANY, pair, tuples
from swins.errors import SwinsError, unknown_name
from swins.image_files import open_image, pillow, planes, readable_endings
from swins.pillow_resampling import FILTERS, centre, of_tensorflow, operations, scaled_size
from swins.pixel_tensors import recoloured, require_channels, require_pixels
from swins.run_result import kept_facts, saved_facts
from swins.tags import look_up, names_variant, training_run, variant_name

PROTOCOLS = ("timm", "ms")
TIMM_CROP = {192: 0.9, 224: 0.9, 256: 0.9, "swinv2_cr_small_ns_256": 1.0}


def normalized(parts, mean, std):
    """Pixels (H, W, C) float32 of the PIL images that `planes` gives, less mean, over std."""
    arrays = [np.asarray(part, "float32") / np.float32(255) for part in parts]
    pixels = np.concatenate([a[..., None] if a.ndim == 2 else a for a in arrays], -1)
    return (pixels - np.float32(mean)) / np.float32(std)


@keras.saving.register_keras_serializable("swins")
@dataclass(init=False, repr=False, eq=False)
class Preprocess(keras.layers.Layer):
    """Prepare images for a model: file path, bytes, PIL image or uint8 array -> (H, W, C) float32; a list -> a batch.

    It is also a Keras layer, with the same numbers: a tensor of uint8 pixels (h, w, c) or (B, h, w, c) of whatever size
    gives a tensor, in a model, in `tf.data.Dataset.map` under every backend, and in what is exported. Arrays are of
    files' kind: (h, w[, c]) or (B, h, w, c) gives an array, as grain's `map` wants.

    Pixels have 8 bits a channel, whichever way they come in; others are refused. Transparency is dropped and EXIF's
    rotation ignored, as timm does. A model of other channels than grey or RGB takes what `planes` says.
    resize is the (height, width) in pixels to which the image is scaled: its shorter side relative to that if
    keep_ratio, else both sides; image_size what is then cut from the centre. mean and std are per channel, 0..1.
    interpolation: "bicubic" or "bilinear", antialiased.

    Example:
    >>> prepare = preprocess("swin_tiny_patch4_window7_224")
    >>> photo = np.arange(90000, dtype="uint8").reshape(100, 300, 3)
    >>> float(keras.ops.max(prepare(keras.ops.convert_to_tensor(photo)) - prepare(photo))) < 1e-6
    True
    """

    image_size: tuple
    resize: tuple
    keep_ratio: bool
    mean: tuple
    std: tuple
    interpolation: str = "bicubic"

    def __init__(self, image_size, resize, keep_ratio, mean, std, interpolation="bicubic", **kwargs):
        super().__init__(**{**kwargs, "trainable": False, "dtype": "float32"})
        if interpolation not in FILTERS:
            raise unknown_name("interpolation", interpolation, FILTERS)
        self.image_size, self.resize, self.keep_ratio = tuple(image_size), tuple(resize), bool(keep_ratio)
        self.mean, self.std, self.interpolation = tuple(mean), tuple(std), interpolation
        self.built = True

    def __call__(self, image, *args, **kwargs):
        if keras.utils.is_keras_tensor(image) or keras.ops.is_tensor(image):
            require_pixels(image)
            require_channels(image.shape[-1], len(self.mean))
            return super().__call__(image, *args, **kwargs)
        if of_tensorflow(image):  # of tf.data, under another backend
            return self.call(image)
        if isinstance(image, np.ndarray) and image.ndim == 4:
            image = list(image)
        if isinstance(image, list | tuple):
            if not image:
                raise SwinsError("a list of images must hold at least one; got none")
            return np.stack([self(one) for one in image])
        parts = planes(open_image(image), len(self.mean))
        return normalized([self.crop(self.scale(part)) for part in parts], self.mean, self.std)

    def call(self, images):
        """Tensors of uint8 pixels (h, w, c) or (B, h, w, c) -> (H, W, C) or (B, H, W, C) float32."""
        do = operations(images)
        pixels = do.divide(do.cast(self.levels(images), "float32"), np.float32(255))
        return do.divide(do.subtract(pixels, np.float32(self.mean)), np.float32(self.std))

    def levels(self, images):
        """Tensors of uint8 pixels, scaled and cut, of the model's channels, not yet normalised."""
        require_pixels(images)
        pixels = recoloured(images, len(self.mean))
        return centre(pixels, self.resize, self.keep_ratio, self.image_size, self.interpolation)

    def compute_output_spec(self, images):
        """(B, H, W, C) float32."""
        require_pixels(images)
        require_channels(images.shape[-1], len(self.mean))
        return keras.KerasTensor((*images.shape[:-3], *self.image_size, len(self.mean)), "float32")

    def scale(self, image):
        """Resize of a PIL image."""
        from PIL import Image

        size = scaled_size((image.height, image.width), self.resize, self.keep_ratio)
        way = Image.Resampling[self.interpolation.upper()]
        return image.resize(size[::-1], way) if size != (image.height, image.width) else image

    def crop(self, image):
        """Cut the centre of a PIL image."""
        height, width = self.image_size
        top, left = round((image.height - height) / 2), round((image.width - width) / 2)
        return image.crop((left, top, left + width, top + height))

    def numbers(self):
        """What the preparation is: {name: value} of its fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def get_config(self):
        return {**self.numbers(), "name": self.name}

    def __eq__(self, other):
        return self.numbers() == other.numbers() if type(other) is type(self) else NotImplemented

    def __hash__(self):
        return hash(tuple(self.numbers().values()))

    def __repr__(self):
        return f"Preprocess({', '.join(f'{name}={value}' for name, value in self.numbers().items())})"

    def __reduce__(self):  # not Keras' own, which goes through a file
        return Preprocess.from_config, (self.get_config(),)


def preprocess(source, protocol="timm", image_size=None, in_chans=None):
    """The Preprocess of a model: what its weights were evaluated with, or its training run validated with.

    Args:
        source: "architecture" or "architecture.tag"; a classifier that `create` or Keras loaded, which remembers its
            weights; or a path ("./NAME" where it is called as a variant is): the folder or .keras file of a run of
            `swins train`, another .keras file of such a model, an artefact, a SavedModel of one.
        protocol: "timm" or "ms" (Microsoft's), for weights of which no run and no file tells another.
        image_size: pixels, when not the model's; (None, None) means the variant's.
        in_chans: channels, when not the variant's; 1 means grey images, normalised by the mean statistics of RGB.

    Raises:
        SwinsError: an unknown name or protocol, a model that does not tell, channels for which nothing is published, or
            another resampling than bicubic.

    Example:
    >>> preprocess("swin_tiny_patch4_window7_224")(np.zeros((300, 400, 3), "uint8")).shape
    (224, 224, 3)
    """
    if isinstance(source, keras.Model) and hasattr(source, "variant"):
        size, channels = (getattr(source.variant, name) for name in ("image_size", "in_chans"))
        remembered = {"name": variant_name(source), **getattr(source, "origin", {})}
        return of_weights(remembered, protocol, image_size or size, in_chans or channels)
    if not isinstance(source, (str, os.PathLike)):
        raise SwinsError(
            f"preprocess takes a variant's name, a classifier of this package or a path; got {type(source).__name__}"
        )
    if run := training_run(source):
        return preparation_of(run, image_size)
    if not names_variant(source) and (numbers := saved_facts(source).get("preparation")):
        if set(numbers) | {"interpolation"} != {field.name for field in fields(Preprocess)}:  # bicubic, if it is old
            raise SwinsError(f"{source}: states another preparation than a classifier's; load it: swins.load")
        return Preprocess(**{name: tuples(value) for name, value in numbers.items()})
    if not names_variant(source) and (remembered := kept_facts(source)):
        size, channels = image_size or remembered["image_size"], in_chans or remembered["in_chans"]
        return of_weights(remembered, protocol, size, channels)
    return published(source, protocol, image_size, in_chans)


def of_weights(remembered, protocol, image_size, in_chans):
    """The Preprocess of weights of which is known {"name", "preparation"}, the second where their file stated it."""
    stated = stated_preparation(remembered.get("preparation") or {}, image_size)
    if stated and len(stated.mean) == in_chans:
        return stated
    return published(remembered["name"], protocol, image_size, in_chans)


def published(name, protocol, image_size, in_chans):
    """`preprocess` of a variant's name."""
    named = look_up(os.fspath(name))
    architecture, variant, weights = named.architecture, named.variant, named.weights
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    if weights.interpolation != "bicubic":
        raise SwinsError(
            f"images are prepared by bicubic resizing here; those of {named.full_name} are {weights.interpolation} "
            f"ones; prepare your own, with mean {weights.mean} and std {weights.std} of pixels from 0 to 1"
        )
    native = variant.image_size[0]
    size = pair(image_size or native)
    size = pair(native) if size == ANY else size
    if protocol == "timm":
        crop, keep_ratio = TIMM_CROP.get(architecture, TIMM_CROP.get(native, 1.0)), True
        resize = tuple(math.floor(side / crop) for side in size)
    else:
        keep_ratio = native != 384
        resize = tuple(side * 8 // 7 for side in size) if keep_ratio else size
    mean, std = weights.mean, weights.std
    if in_chans not in (None, len(mean)):
        if in_chans != 1:
            raise SwinsError(f"{name}: images of {in_chans} channels have no published preprocessing; prepare your own")
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return Preprocess(size, resize, keep_ratio, mean, std)


def preparation_of(training, image_size=None):
    """The Preprocess that a training run validated with, of its result.json; for other pixels, if they are given."""
    return stated_preparation(training["preprocess"], image_size)


def stated_preparation(facts, image_size=None):
    """The Preprocess that a file states; None where it states none.

    Args:
        facts: mean and std per channel; image_size in pixels; crop, the side of the centre over that to which the image
            is scaled; without it the whole image is squashed to the size, as transformers does.
        image_size: pixels, if other than stated.

    Raises:
        SwinsError: for a preparation that this package has not: another interpolation than bicubic, or no size.
    """
    if not (facts.get("mean") and facts.get("std")):
        return None
    if facts.get("interpolation") not in (None, "bicubic") or not facts.get("image_size"):
        told = ", ".join(f"{name} {value}" for name, value in facts.items())
        raise SwinsError(
            f"images can be prepared by bicubic resizing to a size that is stated; the weights' file states {told}; "
            "choose another preparation: --protocol timm or ms of `swins eval`, or prepare your own"
        )
    size = pair(tuple(facts["image_size"]) if image_size in (None, ANY) else image_size)
    resize = tuple(int(side / facts["crop"]) for side in size) if facts.get("crop") else size
    return Preprocess(size, resize, bool(facts.get("crop")), tuple(facts["mean"]), tuple(facts["std"]))


def read_idx(path):
    """The uint8 array in a gzipped IDX file. Raises SwinsError if it is not one."""
    try:
        data = gzip.decompress(pathlib.Path(path).read_bytes())
        if data[:3] != b"\x00\x00\x08":
            raise ValueError("it does not start with the IDX magic of bytes")
        shape = np.frombuffer(data, ">u4", data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, ValueError, EOFError, IndexError, zlib.error) as error:
        raise SwinsError(f"{path}: not a gzipped IDX file ({error}); take the data set's original file") from error


def files_below(folder, above=None):
    """Files in a folder and its sub-folders, sorted, hidden ones left out. Links are followed, but to folders above.

    above: real paths of these, by default its parents.

    Raises:
        OSError: a folder that cannot be read.
    """
    place, found = os.path.realpath(folder), []
    above = tuple(map(str, pathlib.Path(place).parents)) if above is None else above
    if place in above:
        return []
    for path in pathlib.Path(folder).iterdir():
        if not path.name.startswith("."):
            found += files_below(path, (*above, place)) if path.is_dir() else [path]
    return sorted(found)


def find_images(source):
    """Images without labels: a folder, searched through, or one with IDX test images -> list for Preprocess.

    Raises:
        SwinsError: if there are none.
    """
    folder = pathlib.Path(source)
    if not folder.is_dir():
        raise SwinsError(f"{source}: no such folder of images")
    idx = sorted(folder.glob("*images-idx3-ubyte.gz"))
    if idx:
        return list(read_idx(idx[0]))
    known = readable_endings()
    found = [path for path in files_below(folder) if path.suffix.lower() in known and path.is_file()]
    if not found:
        raise SwinsError(f"{source}: holds no images, as their names' endings tell")
    return found


def readable(images):
    """Split images into those that can be read and what is said of the others -> (images, texts).

    Raises:
        SwinsError: if Pillow is missing.
    """
    pillow()
    good, said = [], []
    for image in images:
        try:
            open_image(image)
            good.append(image)
        except SwinsError as error:
            said.append(str(error))
    return good, said


def prepared(prepare, image):
    """An image prepared, and its own size -> (array (H, W, C), (height, width) in pixels)."""
    opened = open_image(image)
    return prepare(opened), size_of(opened)


def size_of(opened):
    """(height, width) in pixels of what `open_image` gives."""
    return opened.shape[:2] if isinstance(opened, np.ndarray) else (opened.height, opened.width)


def prepare_all(prepare, images):
    """Prepare many images -> (n, H, W, C) float32. Raises SwinsError if some cannot be read, naming up to five."""
    good, said = readable(images)
    if said:
        raise SwinsError(f"{len(said)} of {len(images)} images cannot be read: {'; '.join(said[:5])}")
    return prepare(good)
