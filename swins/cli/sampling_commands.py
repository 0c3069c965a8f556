"""`swins sample`: images that a diffusion model makes."""

import contextlib
import json
import pathlib

from swins.cli.arguments import add_sampling, positive, say
from swins.errors import SwinsError


def sample_command(args):
    from swins import files, predictor
    from swins.evaluate.records import bar
    from swins.samples import Samples, denoising
    from swins.tasks.diffusion_sampling import ImageSampler

    targets = [pathlib.Path(path) for path in (args.output, args.denoising, args.json) if path]
    for path in filter(None, (args.output, args.denoising)):
        if pathlib.Path(path).suffix.lower() != ".png":
            raise SwinsError(f"-o and --denoising must name a .png; got {path}")
    for path in targets:
        if path.exists() and not args.overwrite:
            raise SwinsError(f"{path} exists and would be replaced; pass --overwrite, or choose another")
        path.parent.mkdir(parents=True, exist_ok=True)
    sampler = predictor.load(args.model)
    if not isinstance(sampler, ImageSampler):
        raise SwinsError(f"{args.model}: a diffusion model makes images; this is one of {sampler.task.name}")
    options = {name: getattr(args, name) for name in ("steps", "guidance", "sampler", "eta")}
    classes = args.classes.split(",") if args.classes else None
    states, drawn, bars = [], -1, []
    with contextlib.ExitStack() as stack:

        def progress(step, steps):
            if not bars:  # what cannot be is told before
                bars.append(stack.enter_context(bar(steps, not args.quiet, "step")))
            bars[0].update(step - bars[0].n)

        watch = (lambda i, steps, x: states.append((i, x))) if args.denoising else None
        samples: Samples = sampler(classes, args.count, seed=args.seed or 0, progress=progress, watch=watch, **options)
    pictures = {args.output: samples.draw(args.columns)}
    if args.denoising:
        pictures[args.denoising] = denoising(states, samples.names)
    for path, picture in pictures.items():
        with files.replacing(path) as partial:
            picture.save(partial, "PNG")
        say(f"wrote {path}")
    if args.images:
        folder = pathlib.Path(args.images)
        folder.mkdir(parents=True, exist_ok=True)
        for drawn, picture in enumerate(samples.pictures()):
            with files.replacing(folder / f"{drawn:05d}.png") as partial:
                picture.save(partial, "PNG")
        say(f"wrote {drawn + 1} images into {folder}")
    if args.json:
        files.write(args.json, json.dumps(samples.to_json(), indent=1) + "\n")
        say(f"wrote {args.json}")
    print(samples)


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("sample", help="make images with a diffusion model, of the classes that are asked for")
    sub.add_argument("-m", "--model", required=True, metavar="MODEL", help="training run, artefact or SavedModel")
    sub.add_argument("--classes", metavar="A,B", help="numbers or names (default: all)")
    sub.add_argument("--count", type=positive, help="of images in all, as many of each class (default: one a class)")
    add_sampling(sub)
    sub.add_argument("-o", "--output", required=True, metavar="PNG", help="the grid")
    sub.add_argument("--columns", type=positive, help="of the grid (default: a row a class)")
    sub.add_argument("--denoising", metavar="PNG", help="draw the way of the first images from noise, too")
    sub.add_argument("--images", metavar="DIR", help="write each image there, too")
    sub.add_argument("--json", metavar="FILE", help="write what was asked for")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    sub.add_argument("--overwrite", action="store_true", help="replace existing files")
    sub.set_defaults(run=sample_command)
