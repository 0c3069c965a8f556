"""Digits of ten classes, 28 x 28 grey pixels, from noise.

Paper     DDPM, arXiv:2006.11239; DDIM, arXiv:2010.02502; v and its cosine schedule, arXiv:2202.00512 and 2102.09672
Command   swins train recipes/diffusion_mnist.py --data FOLDER, with MNIST's four IDX files
Hardware  2 CPU cores
Expected  no source for this network; the embedded model's settings, for three epochs
Obtained  mean squared error 0.1757, in 46 minutes of one core beside other work: about half of the digits can
          be read by eye; in training the error is at 0.12, of which the average of the weights lagged behind, as
          it had no warm-up then: results/diffusion_mnist/
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.diffusion import Data, Diffusion, Model, Noise, Sampling, Target

RECIPE = Diffusion(
    model=Model("swin_unet_mini_patch2_window7_28", compile=False),
    data=Data(batch=64),
    noise=Noise("cosine", steps=1000),
    target=Target("v"),
    sampling=Sampling(every=1, guidance=2.0),
    optim=AdamW(learning_rate=1e-3, per_images=0, weight_decay=0.01, clip_norm=1.0, ema=0.999),
    schedule=Cosine(warmup_epochs=0.1, warmup_rate=1e-5, min_rate=1e-5),
    epochs=3,
    checkpoint_steps=100,
)
