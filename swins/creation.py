"""Every network by its name: `create`."""

from swins import build
from swins.denoiser_configs import DENOISERS
from swins.denoisers import create_denoiser
from swins.detector_configs import DETECTORS
from swins.detectors import create_detector
from swins.errors import SwinsError
from swins.segmenter_configs import SEGMENTERS
from swins.segmenters import create_segmenter
from swins.tags import look_up
from swins.weights import load, pretrained


def create(variant=None, /, *, weights=None, weights_key=None, name=None, **overrides):
    """A network by the name of its variant: a Swin, a ResNet, a detector, a segmenter or a SwinUNet.

    Args:
        variant: "architecture" or "architecture.tag", as in timm; `swins list` prints all.
        weights: None for fresh weights; "pretrained" for timm's published ones, through the Hugging Face Hub; or a
            path: a PyTorch checkpoint, a folder that save_pretrained or timm's hub wrote, a .keras file or an artefact
            folder; or "hf:OWNER/NAME" or "timm/NAME" for such a folder of the hub. With a path, an untagged variant
            takes the classes and channels that are not given from the file.
            Of a detector: a run, an artefact or a .keras file of the same detector, whose classes, size and default
            boxes hold where others are not given: heads of other shapes are fresh, and a warning names them; of a
            Mask R-CNN also a checkpoint of Swin-Transformer-Object-Detection or mmdet, whose classes hold likewise; or
            whatever its backbone's variant takes, "pretrained" too, which fills the backbone alone, as the .keras file
            of another kind of detector or of a segmenter does, which a warning says. Of a segmenter likewise, with
            UPerNet's checkpoints of mmsegmentation, Swin-Transformer-Semantic-Segmentation, Hugging Face and
            segmentation-models-pytorch. Of a SwinUNet likewise a run, an artefact or a .keras file of one; or a Swin's
            file, which fills the encoder.
        weights_key: which weights, where a checkpoint holds several, such as "model" beside "model_ema"; by default
            the averaged ones, and a warning says so.
        name: of the Keras model; by default the architecture. Two in one model need two, as in keras.applications.
        **overrides: num_classes, image_size, in_chans, drop_path_rate, dtype, ... as SwinTransformer takes them. With
            other classes than the weights have, the head is fresh; the first layer of RGB weights is summed or
            repeated for other channels, as in timm. What a file says of its model (a .keras file, a config.json, a file
            of `--to-torch`) holds over the variant's numbers; with another window_size, V2 records the windows that the
            weights know as pretrained_windows. Of a detector: what SSD or MaskRCNN takes, image_size, in_chans, and
            what its backbone takes; of a segmenter what UPerNet takes, and the same; of
            a SwinUNet what the class takes.

    Returns:
        A SwinTransformer, images (B, H, W, in_chans) -> logits (B, num_classes); of a detector's name an SSD, images ->
        {"boxes": (B, P, 4), "scores": (B, P, num_classes + 1)}, or a MaskRCNN, whose `detect` gives boxes and masks;
        of a segmenter's a UPerNet, images -> {"logits": (B, H / 4, W / 4, num_classes)}; or a SwinUNet, which says
        what of noisy images is noise.

    Raises:
        SwinsError: an unknown name, sizes that cannot work, or weights that do not fit; every difference is listed.

    Example:
    >>> create("swin_tiny_patch4_window7_224", num_classes=5).output.shape
    (None, 5)
    >>> create("ssd336_swin_tiny_b_fpn", num_classes=5).output["scores"].shape
    (None, 10684, 6)
    >>> create("upernet_swin_mini", num_classes=5).output["logits"].shape
    (None, None, None, 5)
    """
    if variant is None:  # create(name="swin_...") too
        variant, name = name, None
    if not isinstance(variant, str):
        raise SwinsError(f"create takes a variant's name, such as swin_tiny_patch4_window7_224; got {variant!r}")
    weights = pretrained.local(weights)
    if variant in DETECTORS:
        return create_detector(variant, weights=weights, weights_key=weights_key, name=name, **overrides)
    if variant in SEGMENTERS:
        return create_segmenter(variant, weights=weights, weights_key=weights_key, name=name, **overrides)
    if variant in DENOISERS:
        return create_denoiser(variant, weights=weights, weights_key=weights_key, name=name, **overrides)
    name = build.model_name(name) or look_up(variant).architecture
    if weights is None and weights_key is None:
        return build.build(variant, name=name, **overrides)
    checkpoint = load.open_weights(weights, weights_key, variant, stacklevel=3)
    return load.with_weights(variant, checkpoint, overrides, name)
