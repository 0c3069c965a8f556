"""Door to `swins convert`: python convert.py [-m NAME] [--checkpoint FILE] [-o DIR]."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["swins", "convert"]  # as the shell's `swins` does
    from swins.cli import main

    sys.exit(main())
