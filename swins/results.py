"""What predictions are: small frozen dataclasses in the terms of the image, which draw and become JSON."""

from dataclasses import dataclass

import numpy as np

MOST = 5  # classes that a result keeps
BAR = (213, 94, 0)  # vermilion, and what lies behind it: told apart by everybody
BEHIND = (230, 230, 230)


@dataclass(frozen=True)
class Classes:
    """What classes an image is of, the most probable first.

    labels: numbers of classes; names: theirs; probabilities: theirs, from 0 to 1.
    """

    labels: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_json(self) -> dict:
        """The same as plain values."""
        rows = zip(self.labels, self.names, self.probabilities, strict=True)
        return {"classes": [{"label": n, "name": name, "probability": p} for n, name, p in rows]}

    def __str__(self):
        pairs = zip(self.names, self.probabilities, strict=True)
        return ", ".join(f"{name.partition(',')[0]} {probability:.1%}" for name, probability in pairs)

    def draw(self, image, width: int = 480):
        """The image above a bar for each class -> a PIL image of so many pixels' width.

        Args:
            image: a path, bytes, a PIL image or a uint8 array.
        """
        from PIL import Image, ImageDraw

        picture = as_picture(image)
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
        row = 26
        page = Image.new("RGB", (width, picture.height + row * len(self.labels) + 6), "white")
        page.paste(picture, (0, 0))
        pen = ImageDraw.Draw(page)
        for i, (name, probability) in enumerate(zip(self.names, self.probabilities, strict=True)):
            top = picture.height + 4 + row * i
            pen.rectangle((4, top + 17, width - 4, top + 22), BEHIND)
            pen.rectangle((4, top + 17, 4 + round((width - 8) * probability), top + 22), BAR)
            pen.text((5, top + 2), shortened(pen, name.partition(",")[0], width - 70), "black")
            pen.text((width - 48, top + 2), f"{probability:.1%}", "black")
        return page


def shortened(pen, text: str, width: int) -> str:
    """A text in printable Latin letters that is at most so many pixels wide; what a font lacks is a question mark."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    while pen.textlength(text) > width and len(text) > 4:
        text = f"{text[:-4]}..."
    return text


def as_picture(image):
    """What `open_image` takes, as a PIL image in RGB to draw on; of other channels than Pillow has, the first."""
    from PIL import Image

    from swins.images import open_image

    opened = open_image(image)
    if isinstance(opened, np.ndarray):
        opened = Image.fromarray(opened[..., 0])
    return opened.convert("RGB")


def classes_of(logits: np.ndarray, names: tuple[str, ...] = (), most: int = MOST) -> Classes:
    """The Classes of one row of logits (classes,); without names they are "class 0", "class 1"."""
    best = np.argsort(-logits, kind="stable")[:most]
    shifted = np.exp(np.float64(logits) - np.max(logits))
    probabilities = shifted[best] / shifted.sum()
    known = [names[i] if names else f"class {i}" for i in best]
    return Classes(tuple(map(int, best)), tuple(known), tuple(map(float, probabilities)))
