"""What a classifier takes for what: the table of its classes, the confusion matrix, and its worst mistakes."""

import numpy as np

from swins.task import Report

MOST_NUMBERS = 30  # classes, up to which the drawn matrix has its numbers written in
MOST_NAMES = 60  # and their names


def class_names(records, facts) -> list[str]:
    """The names of all classes; those that are not known are their numbers."""
    names = list(facts.get("classes") or ())
    highest = max((max(row["label"], *row["top"]) for row in records), default=-1)
    return names + [f"class {k}" for k in range(len(names), highest + 1)]


def confusion(records, count: int) -> np.ndarray:
    """How many images of each class (rows) are taken for which (columns), (K, K) integers."""
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, ([row["label"] for row in records], [row["top"][0] for row in records]), 1)
    return matrix


def over(part, whole):
    """A share as tables have it; None of nothing."""
    return round(float(part / whole), 5) if whole else None


def class_table(records, facts) -> tuple:
    """(header, rows) of the classes: images, how many of them are right, and what they are mostly taken for."""
    names = class_names(records, facts)
    matrix = confusion(records, len(names))
    rows = []
    for k, name in enumerate(names):
        images, said, right = matrix[k].sum(), matrix[:, k].sum(), matrix[k, k]
        wrong = np.where(np.arange(len(names)) == k, 0, matrix[k])
        other = int(wrong.argmax()) if wrong.any() else None
        mistaken = ("", 0) if other is None else (names[other], int(wrong[other]))
        both = over(2 * right, images + said)
        rows.append(
            [k, name, int(images), int(said), int(right), over(right, images), over(right, said), both, *mistaken]
        )
    header = ["label", "name", "images", "said", "right", "recall", "precision", "f1", "mostly_taken_for", "times"]
    return header, rows


def confusion_table(records, facts) -> tuple:
    """(header, rows) of the confusion matrix: a row a class of images, a column one that they are taken for."""
    names = class_names(records, facts)
    matrix = confusion(records, len(names))
    return ["is", *names], [[name, *row.tolist()] for name, row in zip(names, matrix, strict=True)]


def draw_confusion(records, facts):
    """The confusion matrix as a figure of matplotlib, coloured by the share of each class's images."""
    from matplotlib.figure import Figure

    names = class_names(records, facts)
    matrix, count = confusion(records, len(names)), len(names)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(3.5 + 0.42 * count, 20)
    figure = Figure((side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axis, label="share of the images that are of the class", shrink=0.8)
    if count <= MOST_NUMBERS:
        for i, j in np.argwhere(matrix):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axis.text(j, i, str(matrix[i, j]), ha="center", va="center", color=colour, fontsize=8)
    if count <= MOST_NAMES:
        short = [name.partition(",")[0] for name in names]
        axis.set_xticks(range(count), short, rotation=90, parse_math=False)
        axis.set_yticks(range(count), short, parse_math=False)
    axis.set(xlabel="taken for", ylabel="is", title=f"{np.trace(matrix):,} of {len(records):,} images are right")
    return figure


def probability(record, label) -> float | None:
    """That of a class in a record; None where it is not among the classes that the record has, or has no numbers."""
    return dict(zip(record["top"], record.get("probabilities") or (), strict=False)).get(label)


def sureness(record) -> float:
    """The probability of a record's first class; 0 of a journal of before, which has none."""
    return probability(record, record["top"][0]) or 0.0


def mistaken(rows) -> list:
    """Those of [(name of an image, record)] that are wrong, the surest first."""
    wrong = [(name, record) for name, record in rows if record["top"][0] != record["label"]]
    return sorted(wrong, key=lambda pair: -sureness(pair[1]))


def worst(rows, facts) -> list:
    """[(name of an image, lines)] of those that are wrong, the surest first."""
    names = class_names([record for _, record in rows], facts)
    short = [name.partition(",")[0] for name in names]
    return [(n, (f"is {short[r['label']]}", f"said {short[r['top'][0]]} {sureness(r):.0%}")) for n, r in mistaken(rows)]


def mistake_table(rows, facts) -> tuple:
    """(header, rows) of the images that are wrong, the surest first: which, what they are, what was said, how surely.

    Beside these the probability of what they are, None where it is not among the classes that a record has.
    """
    names = class_names([record for _, record in rows], facts)

    lines = []
    for name, record in mistaken(rows):
        pair = record["label"], record["top"][0]
        lines.append([name, *(names[label] for label in pair), *(probability(record, label) for label in pair[::-1])])
    return ["file", "is", "said", "probability", "probability_of_is"], lines


def report(rows, facts) -> Report:
    """The Report of an evaluation's records."""
    records = [record for _, record in rows]
    tables = {"confusion": confusion_table(records, facts), "mistakes": mistake_table(rows, facts)}
    return Report(tables, {"confusion": draw_confusion}, worst(rows, facts))


FUNCTIONS = {"tables": lambda records, facts: {"classes": class_table(records, facts)}, "report": report}
