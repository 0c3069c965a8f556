"""Execute notebooks top to bottom and keep their outputs: python notebooks/run.py [NOTEBOOK ...] (make notebooks)."""

import os
import pathlib
import sys

import nbformat
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent


def of_tensorflow(output):
    """Whether an output is what TensorFlow says of itself."""
    return output.get("name") == "stderr" or str(output.get("text")).startswith("WARNING:tensorflow")


def execute(path, folder=HERE, **parameters):
    """A notebook, run in `folder` with some of the names of its "parameters" cell set otherwise -> the notebook.

    Raises:
        nbclient's CellExecutionError: for the first cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    if parameters:
        set_them = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(set_them))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "PYTHONWARNINGS": "ignore"}
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        cell.outputs = [output for output in cell.get("outputs", ()) if not of_tensorflow(output)]
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output.data.pop("image/jpeg", None)  # Pillow's images come as both
        if cell.cell_type != "code":
            del cell["outputs"]
    return notebook


if __name__ == "__main__":
    for path in map(pathlib.Path, sys.argv[1:]) if sys.argv[1:] else sorted(HERE.glob("*.ipynb")):
        print(path, flush=True)
        nbformat.write(execute(path), path)
