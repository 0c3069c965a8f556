"""What the commands' arguments have in common."""

import argparse
import sys

from swins.checked_numbers import ANY


def say(text):
    """What long work is at, on standard error."""
    print(text, file=sys.stderr, flush=True)


def positive(text):
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {value}")
    return value


def share(text):
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1; got {text}")
    return value


def size(text):
    """ "224", "192x320" (height x width) or "any" -> pixels, an integer or a pair, or ANY."""
    if text == "any":
        return ANY
    sides = [positive(side) for side in text.split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"must be PIXELS, HEIGHTxWIDTH or any; got {text}")
    return sides[0] if len(sides) == 1 else tuple(sides)


def add_weights_key(sub):
    sub.add_argument(
        "--weights-key", metavar="KEY", help="which weights, where a file holds several, such as model beside model_ema"
    )


def whole(text):
    """An integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0; got {value}")
    return value


def add_sampling(sub):
    """Arguments of how a diffusion model's samples are drawn."""
    sub.add_argument("--steps", type=positive, help="of DDIM, at most the model's (default: as its run drew grids)")
    sub.add_argument("--guidance", type=float, help="1 for the class as learnt, 2 for more of it (default: the run's)")
    sub.add_argument("--sampler", choices=("ddim", "ddpm"), help="(default: the run's)")
    sub.add_argument("--eta", type=share, help="noise on DDIM's way, from 0 to 1 (default: the run's)")
    sub.add_argument("--seed", type=whole, help="of the noise; the same gives the same images (default 0)")
