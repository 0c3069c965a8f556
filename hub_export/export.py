"""Door to `swins export`: python hub_export/export.py ARTEFACT [-o DIR].

The model card quotes in1k_eval/results.csv unless --results names another table.
"""

import pathlib
import sys

RESULTS = pathlib.Path(__file__).parents[1] / "in1k_eval" / "results.csv"

if __name__ == "__main__":
    sys.argv[:1] = ["swins", "export", "--results", str(RESULTS)]  # as the shell's `swins` does
    from swins.cli import main

    sys.exit(main())
