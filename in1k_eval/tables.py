"""Write the generated tables of docs/ and of other pages from the files that hold their numbers: make tables.

A table lies between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import csv
import json
import pathlib
import re
import statistics

import swins
from swins.doctor import PURPOSES
from swins.tags import list_variants

ROOT = pathlib.Path(__file__).parents[1]


def read(path):
    with open(ROOT / path, newline="") as file:
        return list(csv.DictReader(file))


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def variants():
    """Published accuracies of this package's names, under both protocols."""
    published = {row["variant"]: row for row in read("swins/published.csv")}
    rows = []
    for name in list_variants("swin*", pretrained=True):
        row = published.get(name)
        if row:
            microsoft = row["published_top1_top5"].replace(" (Cream)", "")
            rows.append((f"`{name}`", row["params_M"], row["gmacs"], row["timm_top1"], row["timm_top5"], microsoft))
    return markdown(("name", "M parameters", "GMACs", "timm top-1", "timm top-5", "authors' top-1/5"), rows)


def parity():
    """The parity of every architecture, from `make parity`."""
    rows = [
        (
            f"`{r['name']}`",
            r["depths"],
            f"{int(r['parameters_keras']):,}",
            r["logits_relative"],
            r["worst_block_relative"],
        )
        for r in read("in1k_eval/parity.csv")
    ]
    return markdown(("name", "depths", "parameters", "logits", "worst block"), rows)


def sizes():
    """Open and fixed sizes against torchvision and timm, from `make sizes`."""
    rows = [
        (f"`{r['name']}`", r["size"], r["open_torchvision"], r["fixed_timm"], r["torchvision_timm"])
        for r in read("in1k_eval/sizes.csv")
    ]
    return markdown(
        ("name", "pixels", "open size and torchvision", "fixed size and timm", "torchvision and timm"), rows
    )


def size_rules():
    """Every size rule beside its program, from `make size-rules`: the worst of all sizes."""
    models = {}
    for r in read("in1k_eval/size_rules.csv"):
        models.setdefault((r["model"], r["size_rule"]), []).append(r)
    rows = []
    for (model, rule), sizes in models.items():
        worst = [max((float(r[column]) for r in sizes if r[column]), default=None) for column in ("fixed", "open")]
        cells = ["" if value is None else f"{value:.1e}" for value in worst]
        name = model.replace("made_for", "hugging_face_v2_made_for").replace("_", " ")
        rows.append((name, f"`{rule}`", len(sizes), *cells))
    return markdown(("model of", "rule", "sizes", "fixed size", "open size"), rows)


def memory():
    """Peak memory, from `make memory`."""
    rows = [
        (r["model"], r["case"], r["images"], r["forward_MiB"], r["training_step_MiB"])
        for r in read("in1k_eval/memory.csv")
    ]
    return markdown(("model", "options", "images", "forward", "training step"), rows)


def preprocessing():
    """Our preprocessing against timm's and Microsoft's, from `make preprocessing`."""
    rows = [
        (r["protocol"], r["size"], r["images"], r["mean"], r["largest"]) for r in read("in1k_eval/preprocessing.csv")
    ]
    return markdown(("protocol", "pixels", "photographs", "mean difference /255", "largest /255"), rows)


def preprocess_layer():
    """Preprocess as a layer, from `make preprocessing`."""
    columns = ("where", "backend", "images", "mean", "largest", "timm_mean", "timm_largest")
    rows = [[r[c] for c in columns] for r in read("in1k_eval/preprocess_layer.csv")]
    header = ("where", "backend", "photographs", "mean from Pillow /255", "largest", "mean from timm /255", "largest")
    return markdown(header, rows)


def targets():
    """Files for other runtimes beside Keras, from `make targets`."""
    rows = []
    for r in read("in1k_eval/targets.csv"):
        difference = max(r["batch_1"], r["batch_3"], key=lambda text: float(text or 0)) or "-"
        top1 = f"{float(r['top1']):.2%} ({float(r['keras_top1']):.2%})" if r["images"] else ""
        same = f"{float(r['same_top1']):.2%}" if r["images"] else ""
        size = f"{int(r['bytes']) / 2**20:.1f}"
        rows.append((f"`{r['name']}`", r["target"], r["precision"], size, difference, top1, same))
    return markdown(("name", "target", "precision", "MiB", "difference", "top-1 (Keras)", "same top-1"), rows)


def speed_of(group, precision, size):
    """The rows of `make bench` for one batch, in the order of their speed."""
    rows = [
        r
        for r in read("benchmarks/results.csv")
        if (r["group"], r["precision"], r["size"]) == (group, precision, str(size))
    ]
    return sorted(rows, key=lambda r: -float(r["images_per_second"]))


def speed(group, sizes):
    """Images per second of us and the peers, and how many times timm eager that is for the middle size."""
    contenders = {}
    for precision in ("float32", "bfloat16"):
        for size in sizes:
            for r in speed_of(group, precision, size):
                contenders.setdefault(r["contender"], {})[precision, size] = r
    precisions = [
        p for p in ("float32", "bfloat16") if any(p == key[0] for cells in contenders.values() for key in cells)
    ]
    columns = [(precision, size) for precision in precisions for size in sizes]
    main = sizes[len(sizes) // 2]
    rows = []
    for contender, cells in sorted(contenders.items(), key=lambda item: -order(item[1], main)):
        line = [contender]
        for precision, size in columns:
            r = cells.get((precision, size))
            line.append(f"{float(r['images_per_second']):.1f}" if r else "")
        for precision in precisions:
            r = cells.get((precision, main))
            line.append(f"{float(r['over_reference']):.2f}" if r else "")
        rows.append(line)
    header = ["", *(f"{precision}, batch {size}" for precision, size in columns)]
    header += [f"over timm eager, {precision}, batch {main}" for precision in precisions]
    return markdown(header, rows)


def order(cells, size):
    r = cells.get(("float32", size)) or next(iter(cells.values()))
    return float(r["images_per_second"])


def inference():
    """Inference, from `make bench`."""
    return speed("inference", (1, 8, 32))


def onednn():
    """Images per second with TensorFlow's oneDNN and without, from `make bench`."""
    rates = {r["contender"]: float(r["images_per_second"]) for r in speed_of("onednn", "float32", 8)}
    pairs = {name: (rate, rates[f"{name}, oneDNN off"]) for name, rate in rates.items() if not name.endswith(" off")}
    rows = [(name, f"{on:.1f}", f"{off:.1f}", f"{on / off:.2f}") for name, (on, off) in sorted(pairs.items())]
    return markdown(("float32, batch 8", "oneDNN on", "off", "on over off"), rows)


def training():
    """Training steps, from `make bench`."""
    return speed("training", (8,))


def growth():
    """Time and memory by image side and by window, from `make bench`."""
    rows = [r for r in read("benchmarks/results.csv") if r["group"] == "growth"]
    first = {}
    lines = []
    for r in rows:
        seconds, side = 1 / float(r["images_per_second"]), int(r["size"])
        base, least = first.setdefault(r["contender"], (seconds, side))
        linear = ""
        if "side" in r["contender"]:
            linear = f"{seconds / base / (side / least) ** 2:.2f}"
        lines.append((r["contender"], side, f"{seconds * 1e3:.0f}", linear, f"{float(r['peak_MiB']):.0f}"))
    return markdown(("what grows", "to", "ms", "over linear in pixels", "peak MiB of the process"), lines)


def detectors():
    """SSD beside the program that it is of: forward passes, training steps, and the choice of boxes by itself."""
    return compared("ssd_")


def instances():
    """Mask R-CNN beside mmdetection's and torchvision's."""
    return compared("mask_rcnn_")


def segmenters():
    """UPerNet beside transformers'."""
    return compared("upernet_")


def denoisers():
    """SwinUNet beside the program that it is of: a step of sampling, and one of training."""
    return compared("swin_unet")


def compared(kind):
    """Contenders of the benchmark's groups whose names begin so."""
    rows = []
    for r in read("benchmarks/results.csv"):
        if r["group"].startswith(kind):
            ratio = f"{float(r['over_reference']):.2f}" if r["over_reference"] else ""
            rates = (f"{float(r[c]):.2f}" for c in ("images_per_second", "slowest_round", "fastest_round"))
            rows.append((f"`{r['group']}`", r["size"], r["contender"], *rates, ratio, f"{float(r['peak_MiB']):.0f}"))
    return markdown(("group", "batch", "", "images/s", "slowest", "fastest", "over the reference", "peak MiB"), rows)


def machine():
    """What `make bench` ran on."""
    return "".join(f"> {line}\n" for line in (ROOT / "benchmarks/machine.txt").read_text().splitlines()).rstrip()


def results():
    """What was evaluated here, from in1k_eval/results.csv."""
    rows = [
        (f"`{r['model']}`", r["dataset"], r["images"], r["top1"], r["top5"], r["date"][:10])
        for r in read("in1k_eval/results.csv")
    ]
    return markdown(("model", "data", "images", "top-1", "top-5", "date"), rows)


def runs():
    """What recipes gave here, from recipes/results/."""
    rows = []
    for path in sorted((ROOT / "recipes/results").glob("*/result.json")):
        r, name = json.loads(path.read_text()), path.parent.name
        of = f"{r['images']:,} images"
        hours = f"{r['hours']:.2f}"
        scores = {"top-1": r.get("top1"), "AP": r.get("AP"), "AP50": r.get("AP50"), "mIoU": r.get("mIoU")}
        score = ", ".join(f"{title} {100 * value:.2f}" for title, value in scores.items() if value is not None)
        score = score or f"mean squared error {r['error']:.4g}"
        rows.append((f"[`{name}`](results/{name}/)", score, of, hours, r["machine"], r["versions"]))
    header = ("recipe, log and curves", "score", "of", "hours", "machine", "versions")
    return markdown(header, rows) if rows else "Nothing yet."


def necks():
    """Short runs of one detector with each neck, from recipes/results/necks.csv."""
    rows = read("recipes/results/necks.csv")
    return markdown([*rows[0]], [(f"`{r['neck']}`", f"{int(r['parameters']):,}", *list(r.values())[2:]) for r in rows])


def phases():
    """Fine-tuning in one phase and in two, the head alone beside them, from benchmarks/phases.csv."""
    names = {"one": "one phase", "two": "two phases", "head": "the head alone"}
    table, rows = read("benchmarks/phases.csv"), []
    for phases, name in names.items():
        runs = [r for r in table if r["phases"] == phases and r["test_top1"]]
        scores, seconds = ([float(r[column]) for r in runs] for column in ("test_top1", "cpu_s"))
        first, mean = runs[0], statistics.mean(scores)
        each = ", ".join(r["test_top1"] for r in runs)
        rates = (f"{float(first['learning_rate']):g}", first["layer_decay"])
        rows.append((name, *rates, f"{mean:.2f}", each, f"{statistics.mean(seconds):.0f}"))
    header = ("15 epochs", "rate", "layer decay", "test top-1, mean", "of each seed", "CPU seconds, mean")
    return markdown(header, rows)


def reading():
    """Reading images beside training on them, from benchmarks/input_pipeline.py."""
    header = (
        "recipe",
        "batch",
        "reading",
        "timm's loader",
        "the step",
        "fit",
        "fit over the step",
        "over both in turn",
    )
    columns = ("batch", "reading", "reading_timm", "step", "fit", "fit_over_step", "fit_over_sum")
    rows = [(f"`{r['recipe']}`", *(r[c] for c in columns)) for r in read("benchmarks/input_pipeline.csv")]
    return markdown(header, rows)


def names():
    """Every public name with the first line of its docstring, in the order of the reference's pages."""
    rows = []
    for page in ("making", "networks", "variants", "looking"):
        text = (ROOT / f"docs/reference/{page}.md").read_text()
        for path, name in re.findall(r"^::: swins\.((?:\w+\.)?(\w+))$", text, re.MULTILINE):
            line = getattr(swins, name).__doc__.strip().partition("\n")[0]
            line = line if line.endswith((".", ":")) else f"{line} ..."
            rows.append((f"[`{name}`]({page}.md#swins.{path})", re.sub(r"([*|<])", r"\\\1", line)))
    return markdown(("name", "what it is"), rows)


def extras():
    """Size and time of each extra, from `make extras`, and what it is for."""
    rows = []
    for r in read("benchmarks/extras.csv"):
        name = f"`{r['extra']}`" if r["extra"] else "swins alone"
        purpose = PURPOSES.get(
            r["extra"], "Keras, NumPy and h5py; no backend" if not r["extra"] else "TensorFlow for the CPU alone"
        )
        rows.append((name, purpose, r["beside"] and f"`{r['beside']}`", r["packages"], r["MB"], r["seconds"]))
    return markdown(("extra", "for", "beside", "packages", "MB", "seconds"), rows)


def ray_cluster():
    """A Ray cluster of two nodes beside one process, from benchmarks/ray_cluster.py."""
    header = ("run", "images", "of these once", "the same table", "done before", "images/s", "over one process")
    columns = ("run", "images", "distinct", "table_equal", "done_before", "images_per_second", "over_one_process")
    told = {"True": "yes", "False": "no"}
    return markdown(header, [[told.get(r[c], r[c]) for c in columns] for r in read("benchmarks/ray_cluster.csv")])


def spark_beam():
    """The programs of docs/many-machines.md, as benchmarks/spark_beam.py ran them."""
    header = ("program", "version", "images", "answers", "of images once", "as one process")
    return markdown(header, [tuple(row.values()) for row in read("benchmarks/spark_beam.csv")])


TABLES = {f.__name__: f for f in (variants, parity, sizes, size_rules, memory, preprocessing, results, targets)}
TABLES |= {f.__name__: f for f in (preprocess_layer, inference, onednn, training, reading, growth)}
TABLES |= {f.__name__: f for f in (detectors, instances, segmenters, denoisers, machine, runs, necks, phases, extras)}
TABLES |= {"names": names, "ray_cluster": ray_cluster, "spark_beam": spark_beam}
PAGES = (
    "install",
    "many-machines",
    "keras",
    "runtimes",
    "sizes",
    "memory",
    "speed",
    "parity",
    "accuracy",
    "reference/README",
)
PAGES = (*(f"docs/{name}.md" for name in PAGES), "benchmarks/README.md", "recipes/README.md")


def regenerate(text):
    """The text with every table between its markers made anew."""
    pattern = r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in (ROOT / name for name in PAGES):
        page.write_text(regenerate(page.read_text()))
