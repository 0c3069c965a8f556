"""The head of a region proposal network (arXiv:1506.01497, section 3.1): where objects may be, whatever they are.

Letters: B images, (H, W) cells of a map, C channels, A anchors of a map: row, column, then the anchors of a cell.
"""

import keras
from keras import ops

from swins.changes import Composite
from swins.convolutions import Conv2D
from swins.fresh_weights import Normal


@keras.saving.register_keras_serializable("swins")
class ProposalHead(Composite):
    """[(B, H, W, C)] -> logits of objectness [(B, A)] and deltas of boxes [(B, A, 4)] of each map, in float32.

    All maps share a 3x3 convolution, and a 1x1 convolution for each of the two.

    Args:
        anchors: of a cell.
    """

    def __init__(self, anchors=3, **kwargs):
        super().__init__(**kwargs)
        self.anchors = anchors

    def build(self, shapes):
        width = shapes[0][-1]

        def conv(channels, side, name, **options):
            options = {"kernel_initializer": Normal(stddev=0.01), "data_format": "channels_last", **options}
            return Conv2D(channels, side, name=name, **options)

        self.rpn_conv = conv(width, 3, "rpn_conv", padding="same", activation="relu", dtype=self.dtype_policy)
        self.rpn_cls = conv(self.anchors, 1, "rpn_cls", dtype="float32")
        self.rpn_reg = conv(4 * self.anchors, 1, "rpn_reg", dtype="float32")
        for part in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            part.build((None, None, None, width))

    def call(self, maps):
        features = [self.rpn_conv(x) for x in maps]
        logits = [ops.reshape(self.rpn_cls(x), (ops.shape(x)[0], -1)) for x in features]
        return logits, [ops.reshape(self.rpn_reg(x), (ops.shape(x)[0], -1, 4)) for x in features]
