"""`swins list` and `swins describe`: variants, without Keras."""

from swins.cli.arguments import size
from swins.plans import with_overrides
from swins.tags import list_variants, look_up


def list_command(args):
    for name in list_variants(args.pattern, args.pretrained):
        print(name)


def describe_command(args):
    from swins.describe import describe

    variant = look_up(args.name).variant
    overrides = {"image_size": args.image_size, "num_classes": args.num_classes}
    print(describe(args.name, with_overrides(variant, overrides)))


def add(commands):
    """Add these commands to the parser's."""
    sub = commands.add_parser("list", help="print the names of variants")
    sub.add_argument("pattern", nargs="?", default="*", help="shell pattern, such as 'swin_s3_*'")
    sub.add_argument("--pretrained", action="store_true", help="one name per published set of weights")
    sub.set_defaults(run=list_command)

    sub = commands.add_parser("describe", help="print a variant's stage table")
    sub.add_argument("name")
    sub.add_argument("--image-size", type=size, help="PIXELS or HEIGHTxWIDTH")
    sub.add_argument("--num-classes", type=int)
    sub.set_defaults(run=describe_command)
