"""The converter: a checkpoint file becomes a certified artefact folder; a folder is verified again."""

import pathlib

from swins.convert import certificate, detector_certificate, programs, segmenter_certificate
from swins.detection.mask_rcnn import MaskRCNN
from swins.detector_configs import DETECTORS
from swins.errors import SwinsError
from swins.segmentation.upernet import UPerNet
from swins.segmenter_configs import SEGMENTERS
from swins.tags import look_up
from swins.task import task_named
from swins.weights import artefacts, checkpoint_files, identify, load, networks, pretrained

WHOLE = ((DETECTORS, detector_certificate), (SEGMENTERS, segmenter_certificate))  # rows, and who proves their models


def convert(
    name=None,
    checkpoint=None,
    output=None,
    *,
    overwrite=False,
    image_size=None,
    size_rule=None,
    weights_key=None,
    say=lambda text: None,
):
    """Convert a PyTorch checkpoint and prove it -> (artefact folder, certificate).

    Args:
        name: "architecture" or "architecture.tag", as in timm, or a Mask R-CNN's or UPerNet's. An untagged name takes
            the number of classes and of channels from the file; a tagged one insists on the tag's. None: the one that
            the file fits.
        checkpoint: .pth, .pt, .bin, .ckpt or .safetensors, in any dialect of `dialects.py`; a folder that
            save_pretrained, a Trainer or timm's hub wrote; "hf:OWNER/NAME" or "timm/NAME" for such a one of the hub;
            None fetches timm's published file of that name through the Hugging Face Hub.
        output: the artefact folder; by default artefacts/NAME.
        overwrite: replace an existing artefact, at the moment the new one is complete.
        image_size: pixels, when not the variant's; (None, None) for any, compared with timm at the variant's.
        size_rule: what is done about sizes that windows do not tile, when not as the program that wrote the file does.
        weights_key: which weights, where a file holds several; by default the averaged ones, or the first.
        say: called with a line of text before each step that takes long.

    Raises:
        SwinsError: whatever is wrong, before anything is written.
    """
    checkpoint = pretrained.local(checkpoint)
    if name is None and checkpoint is None:
        raise SwinsError("-m NAME says which variant; `swins list` prints all")

    def read():
        say(f"reading {checkpoint}")
        content = checkpoint_files.read(checkpoint, weights_key)
        if content.choice:
            say(content.choice)
        return content

    source = read() if name is None else None
    if name is None:
        name = identify.the_variant(source)
        say(f"it fits {name}")
    whole = next((proofs for rows, proofs in WHOLE if name in rows), None)
    if whole is not None:
        if checkpoint is None or image_size or size_rule:
            raise SwinsError(f"{name} is converted from a --checkpoint, for images of any size; leave the rest out")
        target = pathlib.Path(output or pathlib.Path("artefacts", name))
        artefacts.begin(target, overwrite, say)
        source = source or read()
        say("comparing with PyTorch, step by step")
        model, proof = whole.converted(name, source)
        return target, write(target, model, proof, source, overwrite, say)
    named = look_up(name)
    architecture, name = named.architecture, named.full_name if checkpoint is None else name
    target = pathlib.Path(output or pathlib.Path("artefacts", name))
    artefacts.begin(target, overwrite, say)
    if checkpoint is None:
        say(f"fetching {name}")
        checkpoint = pretrained.fetch(name)
    source = (source or read()).backbone()
    model = load.model_for(name, source, image_size, size_rule)
    taken = list(load.taken(source, model.variant))
    for text in taken:
        say(text)
    say("comparing with the program that runs such files, block by block")
    proof = certificate.certify(model, name, architecture, source)
    proof["taken"] = taken
    return target, write(target, model, proof, source, overwrite, say)


def write(target, model, proof, source, overwrite, say):
    """Write the artefact of a model that a Checkpoint gave, if its certificate proves it -> certificate."""
    if source.others:
        proof["source"] |= {"weights": source.key, "others": list(source.others)}
    certificate.require_pass(proof, proof["name"])
    with artefacts.writing(target, overwrite, say) as partial:
        model.save(partial / artefacts.MODEL)
        if artefacts.weights_digest(artefacts.read_model(partial)) != proof["weights_sha256"]:
            raise SwinsError(f"{target}: the saved file does not give back its weights; check the disk")
        proof["model"] = {"file": artefacts.MODEL, "sha256": checkpoint_files.sha256(partial / artefacts.MODEL)}
        artefacts.write_json(partial / artefacts.CERTIFICATE, proof)
    return proof


def verify(folder, checkpoint=None):
    """Recompute an artefact's certificate -> (recorded certificate, recomputed part).

    The model's weights are turned back into a timm state dict, unless the checkpoint they came from is given.

    Raises:
        SwinsError: a file that is not the one certified, or numbers out of tolerance.
    """
    recorded = artefacts.read_certificate(folder)
    model = artefacts.read_model(folder)
    if artefacts.weights_digest(model) != recorded["weights_sha256"]:
        raise SwinsError(f"{folder}: {artefacts.MODEL} does not hold the weights that were certified; convert again")
    if checkpoint_files.sha256(pathlib.Path(folder, artefacts.MODEL)) != recorded["model"]["sha256"]:
        raise SwinsError(f"{folder}: {artefacts.MODEL} is not the file that was certified (its sha256 differs)")
    if "blocks" not in recorded:
        return verify_trained(folder, checkpoint, recorded), {}
    if checkpoint is not None and checkpoint_files.sha256(checkpoint) != recorded["source"]["sha256"]:
        raise SwinsError(f"{checkpoint} is not the file that {folder} was made from (its sha256 differs)")
    if isinstance(model, MaskRCNN | UPerNet):
        proofs = detector_certificate if isinstance(model, MaskRCNN) else segmenter_certificate
        result = proofs.compare_again(model, recorded, checkpoint)
        certificate.require_pass(result, str(folder))
        return recorded, result
    if checkpoint is None:  # in timm's names, which prove no translation, and no other rule than its own
        state = networks.state_dict(model)
        own_rule = getattr(model.variant, "size_rule", None)
        translated = certificate.comparison(recorded)["unproven"] or own_rule != "timm"
        program = None if translated else "timm"
        source = checkpoint_files.Checkpoint(
            pathlib.Path(folder),
            state,
            recorded["source"]["dialect"],
            (),
            translated=True,
            program=program,
            original=state,
            network=networks.network_of(model.variant),
        )
    else:
        source = checkpoint_files.read(pretrained.local(checkpoint), recorded["source"].get("weights"))
    with programs.subject(source, model.variant) as subject:
        result = certificate.compare(model, subject, recorded["architecture"], recorded["seed"])
    certificate.require_pass(result, str(folder))
    return recorded, result


def verify_trained(folder, checkpoint, recorded):
    """The certificate of a model that no PyTorch stands behind; its exports alone can be run again.

    Raises:
        SwinsError: if a checkpoint is given, or a run's result.json is another one.
    """
    if checkpoint is not None:
        raise SwinsError(f"{folder} was made of {recorded['source']['file']}, of no PyTorch checkpoint; give none")
    if "training" in recorded:
        result = pathlib.Path(folder, artefacts.RESULT)
        if not artefacts.same(result, recorded["training"]["sha256"]):
            raise SwinsError(f"{result} is not the file that was certified (its sha256 differs); export the run again")
    return recorded


def scores_text(proof):
    """The headline of the run that a certificate tells of, in words."""
    headline = task_named(proof.get("task")).headline
    value = proof["training"].get(headline.name)
    return f"{headline.words} {'unknown' if value is None else f'{value:.4f}'}"


def summary(proof):
    """A certificate in a few lines, for people."""
    if "blocks" in proof:
        return certificate.summary(proof)
    origin = proof["source"]
    lines = [
        f"{proof['title']}: {proof['verdict']}; {proof['parameters']['keras']:,} parameters",
        f"  source        {origin['file']}, sha256 {origin['sha256'][:16]}",
    ]
    if training := proof.get("training"):
        lines.append(
            f"  training      run {training['run']}, begun as {training['begun_as']}, {scores_text(proof)} of "
            f"{training['images']} validation images"
        )
    return "\n".join(lines)
