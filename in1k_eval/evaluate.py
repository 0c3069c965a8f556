"""Door to `swins eval`: python in1k_eval/evaluate.py ARTEFACT --data FOLDER [--protocol timm|ms]."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["swins", "eval"]  # as the shell's `swins` does
    from swins.cli import main

    sys.exit(main())
