"""From image files to a model's input: the two evaluation protocols, with Pillow's own resampling.

The published tables differ by the protocol, not by the weights:
    timm  shorter side to floor(size / crop), centre crop; crop is 0.9 at 192, 224 and 256 but for one name, else 1.0
    ms    shorter side to 8/7 of the size, centre crop; 384-pixel models squash the whole image to 384x384
"""

import gzip
import io
import math
import os
import pathlib
import zlib
from dataclasses import dataclass

import numpy as np

from swins.errors import SwinsError, first_line, unknown_name
from swins.plans import ANY, pair
from swins.tags import find
from swins.trained import training_of

PROTOCOLS = ("timm", "ms")
TIMM_CROP = {192: 0.9, 224: 0.9, 256: 0.9, "swinv2_cr_small_ns_256": 1.0}


@dataclass(frozen=True)
class Preprocess:
    """Prepare images for a model: file path, bytes, PIL image or uint8 array -> (H, W, C) float32; a list -> a batch.

    resize is the (height, width) in pixels to which the image is scaled: its shorter side relative to that if
    keep_ratio, else both sides; image_size what is then cut from the centre. mean and std are per channel, 0..1.
    """

    image_size: tuple
    resize: tuple
    keep_ratio: bool
    mean: tuple
    std: tuple

    def __call__(self, image):
        if isinstance(image, list | tuple):
            if not image:
                raise SwinsError("a list of images must hold at least one; got none")
            return np.stack([self(one) for one in image])
        image = open_image(image).convert("L" if len(self.mean) == 1 else "RGB")
        pixels = np.asarray(self.crop(self.scale(image)), "float32") / np.float32(255)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return (pixels - np.float32(self.mean)) / np.float32(self.std)

    def scale(self, image):
        """Bicubic resize of a PIL image."""
        from PIL import Image

        size = scaled_size((image.height, image.width), self.resize, self.keep_ratio)
        return image.resize(size[::-1], Image.Resampling.BICUBIC) if size != (image.height, image.width) else image

    def crop(self, image):
        """Cut the centre of a PIL image."""
        height, width = self.image_size
        top, left = round((image.height - height) / 2), round((image.width - width) / 2)
        return image.crop((left, top, left + width, top + height))


def scaled_size(size, target, keep_ratio):
    """(height, width) after resizing: `target`, or with the aspect kept, the smallest that covers it."""
    if not keep_ratio:
        return target
    (h, w), (th, tw) = size, target
    if th == tw:  # torchvision's rounding
        return (th, th * w // h) if h <= w else (th * h // w, th)
    ratio = min(h / th, w / tw)  # timm's
    return round(h / ratio), round(w / ratio)


def pillow():
    """The module PIL.Image. Raises SwinsError if Pillow is missing."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise SwinsError("reading images needs Pillow: pip install 'swins[eval]'") from error
    return Image


def open_image(image):
    """Decode a path, bytes, PIL image or uint8 array (H, W[, 3]) into a PIL image.

    Raises:
        SwinsError: if it is not an image that Pillow reads, or Pillow is missing.
    """
    Image = pillow()
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        shape = image.shape[:2] if image.shape[2:] == (1,) else image.shape
        if image.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
            raise SwinsError(f"an array of pixels must be uint8, (H, W[, 1, 3 or 4]); got {image.dtype} {image.shape}")
        return Image.fromarray(image.reshape(shape))
    try:
        if not isinstance(image, bytes):
            image = pathlib.Path(image)
            if image.exists() and not image.is_file():
                raise ValueError("it is not a regular file")
        opened = Image.open(io.BytesIO(image if isinstance(image, bytes) else image.read_bytes()))
        opened.load()
        if opened.mode in ("I", "F") or ";" in opened.mode:
            raise ValueError(f"its pixels are {opened.mode}, not 8-bit; save it as 8-bit")
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        name = "the bytes" if isinstance(image, bytes) else image
        raise SwinsError(f"{name}: not a readable image ({first_line(error)})") from error
    return opened


def preprocess(name, protocol="timm", image_size=None, in_chans=None):
    """The Preprocess that a variant was evaluated with, or a training run validated with.

    Args:
        name: "architecture" or "architecture.tag"; or the folder or .keras file of a run of `swins train`, which has a
            protocol and channels of its own.
        protocol: "timm" or "ms" (Microsoft's).
        image_size: pixels, when not the variant's; (None, None) means the variant's.
        in_chans: channels, when not the variant's; 1 means grey images, normalised by the mean statistics of RGB.

    Raises:
        SwinsError: an unknown name or protocol, or channels for which nothing is published.

    Example:
    >>> preprocess("swin_tiny_patch4_window7_224")(np.zeros((300, 400, 3), "uint8")).shape
    (224, 224, 3)
    """
    if not isinstance(name, (str, os.PathLike)):
        raise SwinsError(f"preprocess takes a variant's name or a training run's folder; got {type(name).__name__}")
    if run := training_of(name):
        return preparation_of(run, image_size)
    architecture, _, variant, weights = find(name)
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
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
    facts = training["preprocess"]
    size, crop = pair(tuple(facts["image_size"]) if image_size in (None, ANY) else image_size), facts["crop"]
    resize = tuple(int(side / crop) for side in size)
    return Preprocess(size, resize, True, tuple(facts["mean"]), tuple(facts["std"]))


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
    known = pillow().registered_extensions()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in known and path.is_file())
    if not found:
        raise SwinsError(f"{source}: holds no images, as their names' endings tell")
    return found


def readable(images):
    """Split images into those that can be read and what is said of the others -> (images, texts)."""
    good, said = [], []
    for image in images:
        try:
            open_image(image)
            good.append(image)
        except SwinsError as error:
            said.append(str(error))
    return good, said


def prepare_all(prepare, images):
    """Prepare many images -> (n, H, W, C) float32. Raises SwinsError if some cannot be read, naming up to five."""
    good, said = readable(images)
    if said:
        raise SwinsError(f"{len(said)} of {len(images)} images cannot be read: {'; '.join(said[:5])}")
    return prepare(good)
