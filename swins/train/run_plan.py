"""What a run is going to do, said before anything long, and what became of it, with settings that help."""

import math

from swins.train.phases import phases
from swins.train.schedules import wanted_warm_up, warm_up

# An update of AdamW moves a weight by about the learning rate, whatever the gradient: the distance that a run can go is
# its rates' sum. With the rates that fine-tuning takes, 1e-4, and a cosine's mean of half of them, 200 updates go 0.01,
# half of what fresh weights of a head are (0.02); fewer leave it near guessing. docs/training.md has a measurement.
LEAST_UPDATES = 200
NEAR = 0.95  # of the loss of a guess
RISEN = 1.1  # times the lowest validation loss
FEW = 100  # validation images, of whose scores chance has a large part
RAISED = 10  # times the rate: less is hardly another run, and a rate that is too high shows within an epoch
LEAST_STEPS = 5  # an epoch, so that a validation is not after every other update


def settings_text(settings: dict) -> str:
    """Settings as the command line takes them."""
    return " ".join(f"--set {name}={value}" for name, value in settings.items())


def enough(recipe, images: int) -> dict:
    """{setting: value} with which a recipe's run on so many images has enough updates."""
    optim, batch = recipe.optim, recipe.data.batch
    if recipe.updates_per_epoch and images >= batch:
        return {"epochs": math.ceil(LEAST_UPDATES / recipe.updates_per_epoch)}
    smaller = [2**power for power in range(1, batch.bit_length()) if 2**power < batch]
    fitting = next((b for b in (batch, *smaller[::-1]) if images // b >= LEAST_STEPS), 2)
    changes = {}
    if fitting != batch:
        changes["data.batch"] = fitting
        if optim.accumulate > 1:
            changes["optim.accumulate"] = 1
        if optim.per_images:  # the rate is scaled to the batch, and stays the same
            changes["optim.per_images"] = max(1, round(optim.per_images * fitting / batch))
    steps = recipe.updates_per_epoch or max(images // fitting, 1)
    if recipe.epochs * steps < LEAST_UPDATES:
        changes["epochs"] = math.ceil(LEAST_UPDATES / steps)
    return changes


def plan(recipe, images: int, updates_per_epoch: int) -> list[str]:
    """Lines on what a run on so many images will do."""
    updates = recipe.epochs * updates_per_epoch
    text = f"{images:,} images, {recipe.data.batch} a batch: {counted(updates_per_epoch, 'step')} an epoch, "
    text += f"{counted(updates, 'update')} in all"
    if updates < LEAST_UPDATES:
        text += f": few to learn from; {settings_text(enough(recipe, images))} makes {LEAST_UPDATES}"
    lines = [line for phase in phases(recipe) for line in shortened(phase.recipe, updates_per_epoch)]
    if (recipe.frozen.epochs or 0) > recipe.epochs:
        lines.append(f"frozen.epochs {recipe.frozen.epochs} do not fit {recipe.epochs}: the backbone never learns")
    return [text, *lines]


def near_guessing(recipe, updates: int, loss: float, trained: float, guessed: float | None) -> str:
    """A line on a run that ended near where one that guesses is; "" of others.

    Args:
        updates: of the whole run, as `plan` counts them.
        loss, trained: of the validation and of the training, at the end; guessed: the loss of a guess, where it is
            known.
    """
    if not guessed or loss < NEAR * guessed:
        return ""
    near = f"the validation loss, {loss:.3f}, is near that of guessing, {guessed:.3f}"
    rate = f"{RAISED * recipe.optim.learning_rate:.3g}"
    head_alone = {"frozen.epochs": recipe.epochs, "frozen.learning_rate": rate}
    if trained < NEAR * guessed:
        return (
            f"{near}, and that of the training, {trained:.3f}, is not: what was learnt holds for the images to train "
            "on alone; more of them help, or to train the head alone, the same command with another "
            f"folder (-o) and {settings_text(head_alone)}"
        )
    if updates < LEAST_UPDATES:
        run = f"a run of {counted(updates, 'update')}"
        return f"{near}, in {run}: few to learn from; the line at the beginning says what makes {LEAST_UPDATES}"
    return (
        f"{near}: the run has learnt little; begin "
        f"the same command, in another folder (-o), with a higher rate: {settings_text({'optim.learning_rate': rate})}"
    )


def learnt_by_heart(recipe, rows: list) -> str:
    """A line on a run whose validation loss rose while that of the training fell; "" of others.

    Args:
        recipe: the run's; rows: of log.csv, one an epoch.
    """
    losses = [float(row["val_loss"]) for row in rows]
    lowest = min(range(len(rows)), key=losses.__getitem__)
    if losses[-1] < RISEN * losses[lowest] or float(rows[-1]["loss"]) >= float(rows[lowest]["loss"]):
        return ""
    return (
        f"the validation loss, {losses[-1]:.3f}, was {losses[lowest]:.3f} after epoch {rows[lowest]['epoch']} of "
        f"{len(rows)}: what was learnt since holds for the images to train on alone; more of them help, or fewer "
        f"epochs{'' if recipe.keep else ', or --set keep=best'}"
    )


def chance_in(images: int) -> str:
    """What to know of a best epoch by so many validation images; "" where they are many."""
    return f"; by {counted(images, 'validation image')}: which is best is largely chance" if images < FEW else ""


def shortened(recipe, updates_per_epoch: int) -> list[str]:
    """Lines on the parts of a schedule that do not fit its run."""
    lines, updates = [], recipe.epochs * updates_per_epoch
    wanted, warm = wanted_warm_up(recipe, updates_per_epoch), warm_up(recipe, updates_per_epoch)
    if warm != wanted:
        fits = f"takes all {updates}" if wanted == updates else f"does not fit {updates}"
        instead = f"{warm}, a tenth" if warm else "left out"
        lines.append(f"the warm-up of {counted(wanted, 'update')} {fits}: it is {instead}")
    late = [epoch for epoch in getattr(recipe.schedule, "epochs", ()) if epoch >= recipe.epochs]
    if late:
        lines.append(f"schedule.epochs {late} come after the last epoch, {recipe.epochs}: no step of the rate there")
    return lines


def counted(number: int, noun: str) -> str:
    """A number of things in words."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
