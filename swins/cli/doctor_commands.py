"""`swins doctor`: what this installation has, whether it works, and what is missing for what."""

import itertools
import json

from swins.cli.arguments import say


def doctor_command(args):
    from swins.doctor import examine

    say("importing every package that is there, each beside those that bear it; this takes seconds")
    report = examine()
    print(json.dumps(report, indent=1) if args.json else "\n".join(lines(report)))
    return 0 if report["works"] else 1


def lines(report) -> list[str]:
    """A report of `swins.doctor.examine`, for people."""
    swins, python, machine, keras = (report[name] for name in ("swins", "python", "machine", "keras"))
    memory = machine["memory"]
    sizes = [
        f"{memory[name]:g} GiB {words}" for name, words in (("total", "of memory"), ("free", "free")) if memory[name]
    ]
    parts = [machine["system"], f"{machine['cores']} cores", *sizes, *machine["nvidia"]]
    rows = [
        f"swins    {swins['version']}  {swins['folder']}",
        f"Python   {python['version']}  {python['executable']}",
        f"machine  {', '.join(parts)}",
        f"Keras    {keras['version'] or 'missing'}  on {keras['backend']}, chosen by {keras['chosen_by']}",
        *table("backends", [(name, backend_line(facts)) for name, facts in report["backends"].items()]),
        *table("caches", [(name, cache_line(facts)) for name, facts in report["caches"].items()]),
        *table("extras", [(name, line) for name, facts in report["extras"].items() for line in extra_lines(facts)]),
        *table("there, but not as needed", problems(report["extras"])),
        *(f"hint: {text}" for text in report["hints"]),
    ]
    if report["works"]:
        return [*rows, "", f"doctor: ok, a small Swin computes on {keras['backend']}"]
    return [*rows, "", f"doctor: swins does not work: {'; '.join(report['reasons'])}"]


def table(title, pairs) -> list[str]:
    """A title above a line a pair, or nothing of no pairs; a name is not said twice in turn."""
    wide = max((len(name) for name, _ in pairs), default=0)
    names = ["", *(name for name, _ in pairs)]
    shown = ["" if name == above else name for above, name in itertools.pairwise(names)]
    return (
        ["", title, *(f"  {name:{wide}}  {text}" for name, (_, text) in zip(shown, pairs, strict=True))]
        if pairs
        else []
    )


def backend_line(facts) -> str:
    return facts["problem"] or f"{facts['version']}  computes on {counted(facts['devices'])}"


def counted(devices) -> str:
    """Devices, those alike together: "CPU, 2 x NVIDIA H200"."""
    names = dict.fromkeys(devices)
    return ", ".join(name if devices.count(name) == 1 else f"{devices.count(name)} x {name}" for name in names)


def cache_line(facts) -> str:
    state = "can be written" if facts["writable"] else "cannot be written"
    made = [] if facts["exists"] else ["is made when needed"]
    free = [] if facts["free"] is None else [f"{facts['free']:g} GiB free"]
    return f"{facts['folder']}: {', '.join([state, *made, *free])}"


def extra_lines(facts) -> list[str]:
    if not facts["lacks"]:
        return [f"ready: {facts['purpose']}"]
    return [f"lacks {', '.join(facts['lacks'])}: {facts['purpose']}", facts["install"]]


def problems(extras) -> list[tuple[str, str]]:
    """What is wrong with packages that are there, and what they are needed for."""
    wrong = {}
    for extra, facts in extras.items():
        for name, problem in facts["lacks"].items():
            if problem != "is not installed":
                wrong.setdefault((name, problem), []).append(extra)
    return [(name, f"{problem}, for {', '.join(needed)}") for (name, problem), needed in wrong.items()]


def add(commands):
    """Add this command to the parser's."""
    sub = commands.add_parser("doctor", help="say what this installation has, what is missing for what, how to get it")
    sub.add_argument("--json", action="store_true", help="the same as JSON")
    sub.set_defaults(run=doctor_command)
