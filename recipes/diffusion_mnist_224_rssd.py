"""MNIST at 224 pixels, as RuslanGreenhead/swin_transformer trained its SwinUNet (experiment 14).

Source    its configs/diffusion_unet_SwinT.yaml and experiments/experiment_14: eps, a cosine schedule of 500 steps,
          DDPM, learning rates times the root of the batch over 32, no average of the weights, no guidance
Command   swins train recipes/diffusion_mnist_224_rssd.py --data FOLDER, with MNIST's four IDX files
Hardware  2 GPUs, 9.6 hours there
Expected  loss 0.0018 at the end, as its log says
Obtained  not run
"""

from swins.recipes import AdamW, Cosine
from swins.tasks.diffusion import Data, Diffusion, Model, Noise, Sampling, Target

RECIPE = Diffusion(
    model=Model("swin_unet_patch4_window7_224"),
    data=Data(batch=128),
    noise=Noise("cosine", steps=500),
    target=Target("eps", drop_class=0.0),
    sampling=Sampling(every=5, sampler="ddpm", clip=False),
    optim=AdamW(learning_rate=2e-4, per_images=0, weight_decay=1e-4, clip_norm=5.0),
    schedule=Cosine(warmup_epochs=3, warmup_rate=2e-8, min_rate=1e-5),
    epochs=75,
)
