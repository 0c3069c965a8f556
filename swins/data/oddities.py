"""What is odd about the images of a data set: copies on both sides, classes that cannot be judged, several frames."""

import collections
import hashlib
import os
import pathlib

import numpy as np

from swins.data.defects import stored_size
from swins.data.split import Arrays, Split
from swins.image_files import pillow

NAMED = 5  # of what is counted
MOST_FILES = 200_000  # of a data set whose files are looked at
MOST_BYTES = 2**31  # of arrays
FRAMED = (".gif", ".tif", ".tiff", ".webp", ".apng", ".mpo")  # endings of files that may have several frames or pages
TURNABLE = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp")  # of files in whose head EXIF's rotation is
MOST_TURNED = 5_000  # files that are opened to see it
HEAD = 1024  # bytes of a PNG in which an animation's chunk is, before any pixels


def few(names) -> str:
    """Some of many names."""
    return ", ".join([*names[:NAMED], *["..."] * (len(names) > NAMED)])


def rows_of(split: Split) -> list:
    """[(name, path, truth)] of the samples that are files; those of other kinds have none."""
    samples = getattr(split.samples, "samples", split.samples)  # of those that are cached
    if not isinstance(samples, list):
        return []
    return [row for row in samples if isinstance(row[1], str | os.PathLike)]


def size_of(path) -> int:
    """Bytes of a file; -1 for what is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def digest_of(path):
    """The digest of a file's bytes; None for what cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def digests(split: Split, sizes=None) -> dict:
    """{digest: name of a sample} of files, if sizes are given those of such sizes, or of arrays of pixels."""
    samples = getattr(split.samples, "samples", split.samples)
    if isinstance(samples, Arrays) and samples.images.nbytes <= MOST_BYTES:
        return {hashlib.sha256(a.tobytes()).digest(): f"{samples.name}[{i}]" for i, a in enumerate(samples.images)}
    rows = rows_of(split)
    wanted = rows if sizes is None else [row for row in rows if size_of(row[1]) in sizes]
    return {digest: name for name, path, _ in wanted if (digest := digest_of(path))}


def copies(training: Split, validation: Split) -> list[tuple[str, str]]:
    """[(validation image, the same image to train on)] of files that are alike byte for byte, or of equal arrays."""
    sizes = [{size_of(path) for _, path, _ in rows_of(split)} for split in (training, validation)]
    common = (sizes[0] & sizes[1]) - {-1}
    known = digests(training, common)
    samples = getattr(validation.samples, "samples", validation.samples)
    if isinstance(samples, Arrays) and samples.images.nbytes <= MOST_BYTES:
        other = [(f"{samples.name}[{i}]", hashlib.sha256(a.tobytes()).digest()) for i, a in enumerate(samples.images)]
    else:
        other = [(name, digest_of(path)) for name, path, _ in rows_of(validation) if size_of(path) in common]
    return [(name, known[digest]) for name, digest in other if digest in known]


def frames_of(path) -> int:
    """How many frames or pages an image file has, as far as its kind may have several."""
    path = pathlib.Path(path)
    try:
        if path.suffix.lower() == ".png":
            with open(path, "rb") as file:
                if b"acTL" not in file.read(HEAD):
                    return 1
        elif path.suffix.lower() not in FRAMED:
            return 1
        with pillow().open(path) as image:
            return getattr(image, "n_frames", 1)
    except Exception:  # what cannot be read is told when it is; Pillow's decoders raise whatever a file leads them to
        return 1


def notes_on_frames(rows) -> list[str]:
    """A line on files of several frames or pages, of [(name, path, truth)]."""
    if len(rows) > MOST_FILES:
        return []
    counts = [(name, count) for name, path, _ in rows if (count := frames_of(path)) > 1]
    if not counts:
        return []
    names = few([f"{name} ({count})" for name, count in counts])
    files = "1 file has" if len(counts) == 1 else f"{len(counts)} files have"
    return [f"{files} several frames or pages, of which the first is taken: {names}"]


def notes_on_turned(rows) -> list[str]:
    """A line on files, [(name, path, truth)], that EXIF says are shown turned, which nothing here heeds.

    Of many, evenly spread ones are looked at. TIFF and AVIF are not: Pillow turns these itself.
    """
    known = [row for row in rows if pathlib.Path(row[1]).suffix.lower() in TURNABLE]
    looked = known[:: -(-len(known) // MOST_TURNED) or 1]
    turned = [name for name, path, _ in looked if (stored_size(path) or (None, False))[1]]
    if not turned:
        return []
    files = "1 file is" if len(turned) == 1 else f"{len(turned)} files are"
    among = f", of {len(looked):,} looked at" if len(looked) < len(known) else ""
    return [
        f"{files} shown turned by EXIF{among}, and taken as stored, as everywhere here: {few(turned)}; where that "
        "matters turn the pixels (PIL.ImageOps.exif_transpose)"
    ]


def notes_on_files(rows) -> list[str]:
    """Lines on what is odd about files, [(name, path, truth)], each alone."""
    return [*notes_on_frames(rows), *notes_on_turned(rows)]


def notes_on_classes(training: Split, validation: Split) -> list[str]:
    """Lines on classes that cannot be judged, where the classes of samples are known without reading them."""
    counts = []
    for split in (training, validation):
        samples = getattr(split.samples, "samples", split.samples)
        labels = samples.labels if isinstance(samples, Arrays) else [truth for _, _, truth in rows_of(split)]
        if len(labels) != len(split) or not all(isinstance(label, int | np.integer) for label in labels):
            return []
        counts.append(collections.Counter(map(int, labels)))
    lines, classes = [], training.classes
    single = [name for k, name in enumerate(classes) if counts[0][k] + counts[1][k] == 1]
    if single:
        classes_have = "1 class has" if len(single) == 1 else f"{len(single)} classes have"
        lines.append(f"{classes_have} one picture, which is trained on and never judged: {few(single)}")
    there = [name for k, name in enumerate(classes) if counts[1][k]]
    if len(there) == 1:
        lines.append(f"all validation images are of one class, {there[0]}: a score says nothing of the {len(classes)}")
    elif bare := [name for name in classes if name not in there and name not in single]:
        have = "has" if len(bare) == 1 else "have"
        lines.append(f"{len(bare)} of {len(classes)} classes {have} no validation images: {few(bare)}")
    return lines


def notes_on_labels(rows) -> list[str]:
    """A line on files, [(name, path, class number)], that are the same, byte for byte, and of several classes."""
    if not all(isinstance(label, int | np.integer) for _, _, label in rows):
        return []
    sizes = collections.defaultdict(list)
    for row in rows:
        sizes[size_of(row[1])].append(row)
    first, pairs = {}, []
    for size, alike in sizes.items():
        if size < 0 or len({label for _, _, label in alike}) < 2:
            continue
        for name, path, label in alike:
            digest = digest_of(path)
            other, label_of_other = first.setdefault(digest, (name, label))
            if digest and label_of_other != label:
                pairs.append(f"{name} is {other}")
    if not pairs:
        return []
    pictures = "1 picture is" if len(pairs) == 1 else f"{len(pairs)} pictures are"
    which = "it" if len(pairs) == 1 else "each"
    return [f"{pictures} in two classes, byte for byte: {few(pairs)}; remove {which} from one"]


def notes_on(training: Split, validation: Split) -> list[str]:
    """Lines on what is odd about the images to train on and to validate on, each counted and named."""
    rows = [*rows_of(training), *rows_of(validation)]
    lines = notes_on_classes(training, validation)
    if len(rows) > MOST_FILES:
        return [*lines, f"{len(rows):,} files: copies among them, and files of several frames, are not looked for"]
    if pairs := copies(training, validation):
        names = few([f"{name} is the training image {other}" for name, other in pairs])
        images = "1 validation image is" if len(pairs) == 1 else f"{len(pairs)} validation images are"
        lines.append(
            f"{images} among those to train on, byte for byte: the score is too good; "
            f"{names}; remove them from one side"
        )
    return [*lines, *notes_on_labels(rows), *notes_on_files(rows)]
