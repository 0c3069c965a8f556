"""The command line's small commands."""

import csv
import math
import pathlib

import pytest

from swins.describe import stage_costs
from swins.plans import VariantV2CR, plan_stages
from swins.tags import PRETRAINED, find

PUBLISHED = pathlib.Path(__file__).parents[1] / "swins" / "published.csv"


def test_list(command):
    code, out, _ = command("list", "swin_s3_*")
    assert code == 0 and out.split() == ["swin_s3_tiny_224", "swin_s3_small_224", "swin_s3_base_224"]
    code, out, _ = command("list", "--pretrained")
    assert len(out.split()) == sum(map(len, PRETRAINED.values()))


def test_describe_prints_the_plan(command):
    code, out, _ = command("describe", "swin_s3_tiny_224")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert rows["2"][1:6] == ["14x14", "14x14", "0x0", "384", "12"]
    assert rows["all"][-2] == "28,328,674"
    code, out, _ = command("describe", "swin_tiny_patch4_window7_224", "--image-size", "64", "--num-classes", "0")
    assert code == 0 and "2x2" in out
    code, _, err = command("describe", "swin_tiny_patch4_window7")
    assert code == 1 and "swin_tiny_patch4_window7_224" in err


def pairs_of_timm(variant):
    """Multiply-adds that timm's V2-CR spends and ours does not: its network sees every pair of positions."""
    if not isinstance(variant, VariantV2CR):
        return 0
    total = 0
    for plan in plan_stages(variant):
        pairs = math.prod(plan.window_size) ** 2 - math.prod(2 * side - 1 for side in plan.window_size)
        total += len(plan.drop_path) * pairs * variant.meta_dim * (2 + plan.num_heads)
    return total


def test_costs_are_the_published_ones():
    with open(PUBLISHED, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["variant"].partition(".")[0] in PRETRAINED]
    assert len(rows) == 26
    for row in rows:
        variant = find(row["variant"])[2]
        costs = stage_costs(variant)
        assert sum(p for p, _ in costs) / 1e6 == pytest.approx(float(row["params_M"]), abs=0.006)
        # published counts include norms and softmax, up to 1%
        macs = sum(m for _, m in costs) + pairs_of_timm(variant)
        assert macs / 1e9 == pytest.approx(float(row["gmacs"]), rel=0.012)


def test_version(command):
    code, out, _ = command("--version")
    assert code == 0 and out.startswith("swins 0.")
