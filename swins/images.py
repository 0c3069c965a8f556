"""From image files to a model's input: the two evaluation protocols, with Pillow's own resampling.

The published tables differ by the protocol, not by the weights:
    timm  shorter side to floor(size / crop), centre crop; crop is 0.9 at 192, 224 and 256 but for one name, else 1.0
    ms    shorter side to 8/7 of the size, centre crop; 384-pixel models squash the whole image to 384x384
As in timm, transparency is dropped (what lies below it shows) and EXIF's rotation is ignored: where they matter, turn
photographs with `PIL.ImageOps.exif_transpose`, and lay transparent images on a colour.
"""

import gzip
import io
import math
import os
import pathlib
import zlib
from dataclasses import dataclass

import numpy as np

from swins.checked_numbers import ANY, pair
from swins.errors import SwinsError, first_line, unknown_name
from swins.tags import look_up, training_run

PROTOCOLS = ("timm", "ms")
NPY = b"\x93NUMPY"  # begins a .npy file
SAMPLES_PER_PIXEL = 277  # a tag of TIFF
TIMM_CROP = {192: 0.9, 224: 0.9, 256: 0.9, "swinv2_cr_small_ns_256": 1.0}


@dataclass(frozen=True)
class Preprocess:
    """Prepare images for a model: file path, bytes, PIL image or uint8 array -> (H, W, C) float32; a list -> a batch.

    Pixels have 8 bits a channel, whichever way they come in; others are refused. Transparency is dropped and EXIF's
    rotation ignored, as timm does. A model of other channels than grey or RGB takes what `planes` says.
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
        parts = planes(open_image(image), len(self.mean))
        return normalized([self.crop(self.scale(part)) for part in parts], self.mean, self.std)

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


def normalized(parts, mean, std):
    """Pixels (H, W, C) float32 of the PIL images that `planes` gives, less mean, over std."""
    arrays = [np.asarray(part, "float32") / np.float32(255) for part in parts]
    pixels = np.concatenate([a[..., None] if a.ndim == 2 else a for a in arrays], -1)
    return (pixels - np.float32(mean)) / np.float32(std)


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


def of_array(array):
    """A uint8 array (H, W[, C]) as a PIL image where Pillow has one of so many channels, else the array itself."""
    shape = array.shape[:2] if array.shape[2:] == (1,) else array.shape
    if array.dtype != np.uint8 or len(shape) not in (2, 3) or 0 in shape:
        raise SwinsError(f"an array of pixels must be uint8, (H, W[, C]); got {array.dtype} {array.shape}; scale it")
    return pillow().fromarray(array.reshape(shape)) if len(shape) == 2 or shape[2] in (3, 4) else array


def require_8_bit(image):
    """The PIL image. Raises SwinsError if it has more bits a channel: Pillow would cut off what is above 255."""
    if image.mode in ("I", "F") or ";" in image.mode:
        raise SwinsError(f"its pixels are {image.mode}, not 8-bit; scale them to 0..255 and save it as 8-bit")
    return image


def open_image(image):
    """Decode a path, bytes, PIL image or uint8 array into a PIL image; an array (H, W, C) where Pillow has no such C.

    Files are images that Pillow reads, or NumPy's .npy. Where Pillow makes 8 bits of 16 as it reads a file (16-bit RGB
    and RGBA in PNG and TIFF: the higher byte), that is taken, as timm does.

    Raises:
        SwinsError: if it is no such image, has more than 8 bits a channel, or Pillow is missing.
    """
    Image = pillow()
    if isinstance(image, np.ndarray):
        return of_array(image)
    name = "the bytes" if isinstance(image, bytes) else "the PIL image" if isinstance(image, Image.Image) else image
    try:
        opened = image
        if not isinstance(image, bytes | Image.Image):
            image = pathlib.Path(image)
            if image.exists() and not image.is_file():
                raise ValueError("it is not a regular file")
            image = image.read_bytes()
        if isinstance(image, bytes):
            if image.startswith(NPY):
                return of_array(np.load(io.BytesIO(image), allow_pickle=False))
            opened = Image.open(io.BytesIO(image))
        opened.load()
        return require_8_bit(opened)
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise SwinsError(f"{name}: not a readable image ({first_line(error)})") from error


def planes(image, channels):
    """What `open_image` gives, as PIL images for a model of so many channels, which are scaled and cut alike.

    One L for 1 channel, one RGB for 3; else an L for each channel of an array (H, W, channels), of an RGBA image for 4,
    of an LA image for 2: transparency is a channel then.

    Raises:
        SwinsError: an image of other channels.
    """
    array = isinstance(image, np.ndarray)
    if channels in (1, 3):
        if array:
            raise SwinsError(f"an array of pixels must be uint8, (H, W[, 1, 3 or 4]); got {image.dtype} {image.shape}")
        try:
            return [image.convert("L" if channels == 1 else "RGB")]
        except ValueError as error:
            raise SwinsError(f"an image must become {channels} channel(s); {error}; save it as 8-bit RGB") from error
    alike = {2: ("LA",), 4: ("RGBA", "RGBX")}.get(channels, ())
    if array and image.shape[2] == channels:
        return [pillow().fromarray(image[..., i]) for i in range(channels)]
    tags = getattr(image, "tag_v2", None) or {}  # a TIFF's: Pillow leaves channels out that it has no mode for
    if not array and image.mode in alike and tags.get(SAMPLES_PER_PIXEL, channels) == channels:
        return list(image.split())
    kinds = "".join(f" or an {mode} image" for mode in alike[:1])
    raise SwinsError(
        f"the model has {channels} channels: an image must be a uint8 array (H, W, {channels}), as .npy has it{kinds}; "
        f"got {f'an array {image.shape}' if array else image.mode}"
    )


def preprocess(name, protocol="timm", image_size=None, in_chans=None):
    """The Preprocess that a variant was evaluated with, or a training run validated with.

    Args:
        name: "architecture" or "architecture.tag"; or the folder or .keras file of a run of `swins train`, which has a
            protocol and channels of its own ("./NAME" where it is called as a variant is).
        protocol: "timm" or "ms" (Microsoft's).
        image_size: pixels, when not the variant's; (None, None) means the variant's.
        in_chans: channels, when not the variant's; 1 means grey images, normalised by the mean statistics of RGB.

    Raises:
        SwinsError: an unknown name or protocol, channels for which nothing is published, or another resampling than
            bicubic.

    Example:
    >>> preprocess("swin_tiny_patch4_window7_224")(np.zeros((300, 400, 3), "uint8")).shape
    (224, 224, 3)
    """
    if not isinstance(name, (str, os.PathLike)):
        raise SwinsError(f"preprocess takes a variant's name or a training run's folder; got {type(name).__name__}")
    if run := training_run(name):
        return preparation_of(run, image_size)
    named = look_up(name)
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
    known = pillow().registered_extensions()
    found = [path for path in files_below(folder) if path.suffix.lower() in known and path.is_file()]
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
