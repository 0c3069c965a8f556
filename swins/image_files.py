"""Image files and arrays of pixels as Pillow's images: 8 bits a channel, whichever way they come in."""

import io
import pathlib

import numpy as np

from swins.errors import SwinsError, first_line, missing_package

NPY = b"\x93NUMPY"  # begins a .npy file
SAMPLES_PER_PIXEL = 277  # a tag of TIFF


def pillow():
    """The module PIL.Image. Raises SwinsError if Pillow is missing."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing_package("reading images", "Pillow", "eval") from error
    return Image


def readable_endings():
    """Endings of names that Pillow reads files of, such as ".png"; those that it writes alone, as ".pdf", are none."""
    Image = pillow()
    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}


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
