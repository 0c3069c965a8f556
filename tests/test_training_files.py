"""Checkpoints as training scripts leave them, and folders as save_pretrained, a Trainer and timm's hub write them."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from shared_fixtures import NAME

import swins
from swins.convert import inspection
from swins.errors import SwinsError
from swins.weights import artefacts, checkpoint_files, hub_folder

REFERENCE = pathlib.Path(__file__).parent / "reference"
READ = [  # file, the keys and prefixes taken off, whether timm's own loader takes it
    ("UPPER.PTH", ("model",), True),
    ("best.pth.tar", ("state_dict", "module."), True),
    ("microsoft.pth", ("model",), True),
    ("old.pth", ("model",), True),
    ("arguments.pth", ("model",), True),
    ("mm.pth", ("state_dict",), True),
    ("folder", (), True),
    ("model_state_dict.pth", ("model_state_dict",), False),
    ("net.pt", ("net.",), False),
    ("network.pth", ("network",), False),
    ("lightning.ckpt", ("state_dict", "model."), False),
    ("compiled.ckpt", ("state_dict", "net._orig_mod."), False),
    ("torchvision_ema.pth", ("model_ema", "module."), False),
    ("lightning_ema.ckpt", ("state_dict", "ema_model.module."), False),
]


def run_script(name, *arguments):
    done = subprocess.run([sys.executable, REFERENCE / name, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def left(checkpoint, tmp_path_factory):
    """A folder of files as training scripts leave them."""
    folder = tmp_path_factory.mktemp("left")
    run_script("training_files.py", checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def folders(checkpoint, tmp_path_factory):
    """Folders that transformers, its Trainer and timm's hub wrote of the embedded checkpoint's model."""
    folder = tmp_path_factory.mktemp("folders")
    run_script("hub_folders.py", checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def digest(checkpoint):
    return checkpoint_files.digest(checkpoint_files.read(checkpoint).state)


@pytest.mark.parametrize(("file", "wrappers", "timm_reads"), READ, ids=[case[0] for case in READ])
def test_files_of_training_scripts_give_their_weights(left, digest, file, wrappers, timm_reads):
    found = checkpoint_files.read(left / file)
    assert checkpoint_files.digest(found.state) == digest
    assert (found.wrappers, found.translated) == (wrappers, not timm_reads)


def test_what_training_keeps_beside_a_network_is_left_out_by_name(left):
    assert set(checkpoint_files.read(left / "lightning.ckpt").left_out) == {"criterion.weight", "train_acc.tp"}
    assert set(checkpoint_files.read(left / "torchvision_ema.pth").left_out) == {"n_averaged"}
    assert "head.last_layer.weight_v" in checkpoint_files.read(left / "dino.pth").left_out


def test_anything_else_beside_it_is_an_error(checkpoint, command, tmp_path):
    state = checkpoint_files.read(checkpoint).state
    more = {"projector.weight": np.zeros((3, 96), "float32")}
    checkpoint_files.write(
        {**{f"net.{name}": value for name, value in state.items()}, **more}, tmp_path / "a.safetensors"
    )
    code, out, _ = command("inspect", tmp_path / "a.safetensors")
    assert code == 1 and "+ projector.weight (3, 96): not used by the model" in out


@pytest.mark.slow
def test_of_several_weights_the_average_is_taken_and_said(left, digest, command, tmp_path):
    file = left / "torchvision_ema.pth"
    code, out, _ = command("inspect", file)
    assert code == 0 and "weights   model_ema; also model (--weights-key)" in out
    code, out, err = command("convert", "--checkpoint", file, "-o", tmp_path / "out")
    assert code == 0, err
    assert "took the weights under model_ema; the file also holds model: choose with --weights-key" in err
    source = artefacts.read_certificate(tmp_path / "out")["source"]
    assert (source["weights"], source["others"]) == ("model_ema", ["model"])
    with pytest.warns(UserWarning, match="took the weights under model_ema; the file also holds model"):
        swins.create(NAME, weights=file)
    assert inspection.inspect(file)["other_weights"] == ["model"]


@pytest.mark.slow
def test_other_weights_are_chosen_by_their_key(left, digest, command, tmp_path):
    file = left / "torchvision_ema.pth"
    worse = checkpoint_files.read(file, "model")
    assert checkpoint_files.digest(worse.state) != digest and worse.others == ("model_ema",)
    model = swins.create(NAME, weights=file, weights_key="model")  # without a warning
    taken = np.asarray(model.get_layer("norm").beta)
    assert np.array_equal(taken, worse.state["norm.bias"])
    code, _, err = command("convert", "--checkpoint", file, "--weights-key", "model", "-o", tmp_path / "out")
    assert code == 0, err
    assert command("verify", tmp_path / "out", "--checkpoint", file)[0] == 0  # which takes the same weights
    assert checkpoint_files.digest(checkpoint_files.read(left / "lightning_ema.ckpt", "state_dict.model").state) == (
        checkpoint_files.digest(worse.state)
    )
    assert checkpoint_files.read(left / "dino.pth").key == "teacher"
    assert checkpoint_files.read(left / "dino.pth", "student").wrappers == ("student", "module.", "backbone.")
    with pytest.raises(SwinsError, match="'modle' must name one network of the file; it holds model_ema, model"):
        checkpoint_files.read(file, "modle")
    with pytest.raises(SwinsError, match="weights_key chooses among the weights of a file"):
        swins.create(NAME, weights_key="model")


def test_where_the_average_does_not_load_the_error_names_the_others(left, command, tmp_path):
    code, _, err = command("convert", "--checkpoint", left / "broken_ema.pth", "-o", tmp_path / "out")
    assert code == 1 and "norm.bias gives (7,)" in err
    assert (
        err.endswith("--weights-key, in Python with weights_key=\n") and "model_ema; the file also holds model" in err
    )
    code, out, _ = command("inspect", left / "broken_ema.pth")
    assert code == 1 and "the file also holds model" in out
    assert command("inspect", left / "broken_ema.pth", "--weights-key", "model")[0] == 0


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("whole.pth", "torch.save(torch.load('whole.pth', weights_only=False).state_dict(), \"weights.pth\")"),
        ("project.pth", 'torch.save(torch.load(\'project.pth\', weights_only=False)["model"], "weights.pth")'),
        ("script.pt", "torch.save(torch.jit.load('script.pt').state_dict(), \"weights.pth\")"),
    ],
)
def test_what_cannot_be_read_safely_says_the_line_that_mends_it(left, command, file, words):
    code, _, err = command("inspect", left / file)
    assert code == 1 and words in err and "nothing of it was executed; if you trust it" in err


@pytest.mark.parametrize("kind", ["numpy", "yacs", "builtin", "project"])
def test_a_function_of_a_harmless_package_is_refused_and_not_called(left, command, kind):
    code, _, err = command("inspect", left / f"hostile_{kind}.pth")
    assert code == 1 and "this pickle asks for more" in err and "nothing of it was executed" in err
    assert not (left / "executed").exists()


NUMBERS = {"image_size": 28, "patch_size": 2, "in_chans": 1, "embed_dim": 48, "depths": (2, 4), "num_heads": (3, 6)}
CLASSES = tuple(f"garment {i}" for i in range(10))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["transformers", "shards", "trainer", "pickled"])
def test_folders_of_transformers(folders, digest, folder):
    found = checkpoint_files.read(folders / folder)
    assert checkpoint_files.digest(found.state) == digest
    assert found.dialect == "Hugging Face" and found.path.parent == folders / folder
    facts = found.facts
    assert facts.numbers == {**NUMBERS, "window_size": 4, "mlp_ratio": 4.0, "size_rule": "huggingface"}
    assert facts.class_names == CLASSES and facts.source == str(folders / folder / "config.json")
    if folder == "trainer":
        half = (0.5,)
        assert facts.preparation == {"image_size": (28, 28), "mean": half, "std": half, "interpolation": "bilinear"}


@pytest.mark.slow
def test_folders_of_timms_hub(folders, digest):
    facts = checkpoint_files.read(folders / "timm").facts
    assert checkpoint_files.digest(checkpoint_files.read(folders / "timm").state) == digest
    told = {"image_size": (28, 28), "window_size": 4, "mlp_ratio": 4.0, "size_rule": "timm"}
    assert facts.numbers == {**NUMBERS, **told} and facts.architecture == NAME.partition(".")[0]
    assert facts.class_names == (*CLASSES[:9], "the last garment")  # by its description
    prepared = {"image_size": (28, 28), "crop": 0.9, "mean": (0.286,), "std": (0.353,), "interpolation": "bicubic"}
    assert facts.preparation == prepared


def test_a_config_settles_v2s_windows(folders):
    numbers = checkpoint_files.read(folders / "v2").facts.numbers
    assert (numbers["window_size"], numbers["pretrained_windows"]) == (4, (6, 6))
    facts = checkpoint_files.read(folders / "v2").facts
    assert facts.class_names == ()  # LABEL_0, LABEL_1, ... name nothing


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["shards", "timm"])
def test_folders_are_inspected_converted_created_and_verified(folders, command, tmp_path, digest, folder):
    source = folders / folder
    code, out, err = command("inspect", source)
    assert code == 0, err
    assert (
        f"config    {source / 'config.json'}" in out
        and "window size 4" in out
        and "classes garment 0, garment 1" in out
    )
    told = json.loads(command("inspect", source, "--json")[1])["facts"]
    assert told["numbers"]["window_size"] == 4 and len(told["class_names"]) == 10
    code, _, err = command("convert", "--checkpoint", source, "-o", tmp_path / "out")
    assert code == 0, err
    assert command("verify", tmp_path / "out", "--checkpoint", source)[0] == 0
    model = swins.create(NAME, weights=source)
    assert np.array_equal(
        model.get_layer("head").bias, swins.create(NAME, weights=tmp_path / "out").get_layer("head").bias
    )


def test_a_file_of_such_a_folder_is_read_with_its_config(folders):
    assert checkpoint_files.read(folders / "transformers" / "model.safetensors").facts.class_names == CLASSES
    shard = folders / "shards" / "model.safetensors.index.json"
    assert len(checkpoint_files.files_of(shard)) == 1 + len(list(shard.parent.glob("model-*-of-*.safetensors"))) > 2


def config_of(folders, tmp_path, **changes):
    """A folder as transformers writes it, with other words in config.json."""
    folder = tmp_path / "changed"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(folders / "transformers" / "model.safetensors")
    config = json.loads((folders / "transformers" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embed_dim": 96}, "the weights have embed_dim 48, not 96"),
        ({"depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}, "depths (2, 4), not (2, 2, 6, 2)"),
        ({"window_size": 7}, "windows (4, 4), not 7"),
        ({"id2label": {"0": "a", "1": "b"}}, "10 classes, not 2 names"),
        ({"hidden_act": "relu"}, "hidden_act must be 'gelu' in this package's models; got 'relu'"),
        ({"layer_norm_eps": 1e-12}, "layer_norm_eps must be 1e-05"),
        ({"depths": ["a"]}, "depths must be a number, or a few"),
        ({"depths": [1] * 10_000}, "depths must be a number, or a few"),
        ({"embed_dim": 1e300}, "embed_dim must be a number"),
        ({"image_size": {"a": 1}}, "image_size must be a number"),
        ({"num_heads": [5, 7]}, "its numbers make no Swin: num_heads must divide"),
        ({"id2label": {"0": "a", "7": "b"}}, "2 classes must be numbered 0 to 1"),
        ({"id2label": {"a": "b"}}, "classes must be numbered 0, 1"),
        ({"id2label": {"0": [1]}}, "the names of classes must be strings"),
    ],
)
def test_a_config_of_another_model_is_refused(folders, tmp_path, changes, words):
    folder = config_of(folders, tmp_path, **changes)
    with pytest.raises(SwinsError) as error:
        checkpoint_files.read(folder)
    assert words in str(error.value) and str(folder / "config.json") in str(error.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"a": NaN', "\xff", "null"])
def test_a_config_that_is_none_is_refused(folders, tmp_path, text):
    folder = config_of(folders, tmp_path)
    (folder / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(SwinsError, match=r"config\.json: must be a JSON object"):
        checkpoint_files.read(folder)


def test_a_huge_config_is_not_read(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_folder, "LARGEST", 100)
    with pytest.raises(SwinsError, match="larger than 100 bytes"):
        checkpoint_files.read(config_of(folders, tmp_path))


def test_the_config_of_another_file_says_nothing(folders, checkpoint, tmp_path):
    """A project's own config.json, or a Swin's beside a file of another name that it does not fit."""
    folder = config_of(folders, tmp_path, embed_dim=96)
    (folder / "mine.safetensors").symlink_to(checkpoint)
    assert checkpoint_files.read(folder / "mine.safetensors").facts.source is None
    (folder / "config.json").write_text("no json")
    assert checkpoint_files.read(folder / "mine.safetensors").facts.source is None
    (folder / "config.json").write_text('{"model_type": "vit", "window_size": 3}')
    assert checkpoint_files.read(folder).facts.source is None


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {"a": "../model.safetensors"}}, "parts must lie beside their index"),
        ({"weight_map": {"a": "/etc/passwd"}}, "parts must lie beside their index"),
        ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "1 of 1 parts are missing"),
        ({"weight_map": {"a": 3}}, "must have a weight_map"),
        ({}, "must have a weight_map"),
    ],
)
def test_a_strange_index_is_refused(tmp_path, index, words):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SwinsError, match=words):
        checkpoint_files.read(tmp_path)


def test_a_folder_of_several_files_asks_which(left, command, tmp_path):
    code, _, err = command("inspect", left)
    assert (
        code == 1
        and "must hold model.safetensors, pytorch_model.bin or one checkpoint" in err
        and "name the file" in err
    )
    code, _, err = command("inspect", tmp_path)
    assert code == 1 and "got none" in err
