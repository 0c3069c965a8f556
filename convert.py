"""Door to `swins convert`: python convert.py [-m NAME] [--checkpoint FILE] [-o DIR]."""

import sys

from swins.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
