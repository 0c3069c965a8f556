"""Door to `swins eval`: python in1k_eval/evaluate.py ARTEFACT --data FOLDER [--protocol timm|ms]."""

import sys

from swins.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
