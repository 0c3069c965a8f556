"""The loop of a script that `KeptProcess` keeps: requests from standard input, each answered in a fork.

Imports nothing of swins. A request is a line of JSON, {"out": a folder for its results, "cwd": where it comes from,
...}. Its answer is one too: {} done; {"missing": a module}; {"crash": the last that was said, "code": exit code,
negative for a signal's number}; or what the script's own function returns, such as {"error": a refusal}. Where there is
fork, one import of large packages serves all, and nothing that a request did to a process stays.
"""

import contextlib
import json
import os
import pathlib
import select
import sys
import traceback

FORKS = hasattr(os, "fork")
MOST = 2000  # characters of what is said


def answered(answer, request) -> dict:
    """What a function answers to a request, in the folder that it comes from."""
    try:
        os.chdir(request["cwd"])
        return answer(request) or {}
    except ModuleNotFoundError as missing:
        return {"missing": missing.name}
    except Exception:  # said to the caller, whoever is to blame
        return {"crash": traceback.format_exc()[-MOST:], "code": 1}


def in_a_fork(answer, request) -> dict:
    """`answered` by a forked process."""
    place, said = (pathlib.Path(request["out"], name) for name in ("answer.json", "said.txt"))
    place.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
            os.dup2(2, 1)
            place.write_text(json.dumps(answered(answer, request)))
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if place.exists():
        return json.loads(place.read_text())
    last = said.read_text(errors="replace")[-MOST:] if said.exists() else ""
    return {"crash": last, "code": code}


def requests(seconds):
    """Requests from standard input, until it ends or there is none for so many seconds."""
    while not FORKS or select.select([sys.stdin], [], [], seconds)[0]:  # select takes no pipes where there is no fork
        line = sys.stdin.readline()
        if not line:
            return
        yield json.loads(line)


def serve(answer, *modules: str):
    """Answer the requests of standard input until none came for as many seconds as the command line says.

    Args:
        answer: a function of a request, which returns its answer or None.
        modules: imported before the first request, once for all forks; what is missing, each request will say.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for module in modules if FORKS else ():
        with contextlib.suppress(Exception):
            __import__(module)
    run = in_a_fork if FORKS else answered
    for request in requests(float(sys.argv[1])):
        print(json.dumps(run(answer, request)), file=answers, flush=True)
