"""Where recipes had their classes from until 0.1.0: who asks for them here is told where they are."""

from swins.errors import SwinsError


def __getattr__(name):
    if name not in ("Augment", "Data", "Model", "Optim", "Recipe"):
        raise AttributeError(name)
    raise SwinsError(
        f"swins.train.recipe has no {name} any more: import AdamW and Cosine from swins.recipes, Classification, "
        "Model, Data and Augment from swins.tasks.classification, and write Classification(optim=AdamW(...), "
        "schedule=Cosine(warmup_rate=..., min_rate=..., warmup_epochs=...)) for Recipe(optim=Optim(...)); CHANGELOG.md "
        "has a table"
    )
