"""Detection data sets that tests write."""

import json

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def picture(path, width=64, height=48, seed=0):
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def image(number, name=None, width=64, height=48):
    """An image as COCO's JSON lists it."""
    return {"id": number, "file_name": name or f"{number}.png", "width": width, "height": height}


def annotation(number, image_id, category, box, **others):
    """An object as COCO's JSON lists it."""
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": box, "iscrowd": 0, **others}


def coco(folder, part="train", images=(), annotations=(), categories=CATEGORIES):
    """Write annotations/instances_PART.json and PART/*.png -> the JSON's path."""
    path = folder / "annotations" / f"instances_{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"images": list(images), "annotations": list(annotations), "categories": categories}
    path.write_text(json.dumps(facts))
    for entry in images:
        picture(folder / part / entry["file_name"])
    return path


def xml(name, objects=(), size=(48, 64, 3), filename=None):
    """The text of a VOC XML; objects: (class, (xmin, ymin, xmax, ymax), difficult)."""
    height, width, depth = size
    body = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{r}</xmax><ymax>{b}</ymax></bndbox></object>"
        for label, (x, y, r, b), difficult in objects
    )
    return (
        f"<annotation><filename>{filename or name + '.png'}</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>{depth}</depth></size>{body}</annotation>"
    )


def voc(folder, sets, objects):
    """Write a VOC folder; sets: {list: names}; objects: {name: objects of `xml`}."""
    for name, own in objects.items():
        picture(folder / "JPEGImages" / f"{name}.png")
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / "Annotations" / f"{name}.xml").write_text(xml(name, own))
    for title, names in sets.items():
        path = folder / "ImageSets" / "Main" / f"{title}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))


def yolo(folder, lines, names="names: [cat, dog]\n"):
    """Write Ultralytics' folders; lines: {"train/name": text of labels, None for no file}; names: data.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    if names is not None:
        (folder / "data.yaml").write_text(names)
    for name, text in lines.items():
        picture(folder / "images" / f"{name}.png")
        path = folder / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)


def by_name(split):
    """{name without folder and ending: Objects} of a Split."""
    return {name.rpartition("/")[2].partition(".")[0]: objects for name, _, objects in split.samples}
