"""Schedules of noise, targets and samplers, against plain float64 arithmetic, diffusers and the reference."""

import json
import math
from dataclasses import asdict

import keras
import numpy as np
import pytest
from keras import ops
from shared_fixtures import script

from swins.diffusion import samplers
from swins.diffusion.noise_schedule import (
    TARGETS,
    NoiseSchedule,
    add_noise,
    image_of,
    loss_weights,
    noise_of,
    posterior,
    target_of,
)
from swins.diffusion.samplers import DDIM, DDPM, as_denoiser, guided, sample, sample_in_graph, starting_noise
from swins.errors import SwinsError

DIFFUSERS = script("tests/reference/noise_steps.py")
REFERENCE = script("tests/reference/swin_unet_reference.py")
BACKEND = keras.backend.backend()
WIDE, BOUND = ("float32", 2e-4) if BACKEND == "jax" else ("float64", 1e-9)  # JAX has no float64 by default
SCHEDULES = [NoiseSchedule("cosine", 50), NoiseSchedule("linear", 40, 1e-3, 0.2), NoiseSchedule("cosine", 7, 0, 0.999)]


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def plain_betas(schedule):
    """A reading of the schedules' formulas, one number at a time."""
    total, lowest, highest = schedule.steps, schedule.lowest, schedule.highest
    if schedule.kind == "linear":
        return [lowest + (highest - lowest) * t / (total - 1) for t in range(total)]
    bar = [math.cos((t / total + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(total + 1)]
    return [min(max(1 - bar[t + 1] / bar[t], lowest), highest) for t in range(total)]


def plain_bars(schedule):
    bars = [1.0]
    for beta in plain_betas(schedule):
        bars.append(bars[-1] * (1 - beta))
    return bars  # of the time before the first, of time 0, ...


def plain_image(target, output, x, bar):
    """x0 of an output, clipped by nobody."""
    if target == "x0":
        return output
    if target == "v":
        return math.sqrt(bar) * x - math.sqrt(1 - bar) * output
    return (x - math.sqrt(1 - bar) * output) / math.sqrt(bar)


def plain_ddim(schedule, target, output_of, x, times, eta, clip, noises):
    """DDIM's formula as it stands (equations 12 and 16), with eps derived again of a clipped x0."""
    bars = plain_bars(schedule)
    for i, t in enumerate(times):
        bar, then = bars[t + 1], bars[times[i + 1] + 1] if i + 1 < len(times) else 1.0
        image = plain_image(target, output_of(x, t), x, bar)
        image = np.clip(image, -1, 1) if clip else image
        eps = (x - math.sqrt(bar) * image) / math.sqrt(1 - bar)
        sigma = eta * math.sqrt((1 - then) / (1 - bar)) * math.sqrt(1 - bar / then)
        x = math.sqrt(then) * image + math.sqrt(max(1 - then - sigma**2, 0)) * eps + sigma * noises[i]
    return x


def plain_ddpm(schedule, target, output_of, x, clip, noises):
    """Ancestral sampling as DDPM's algorithm 2 has it where nothing is clipped, else by equation 7."""
    bars, betas = plain_bars(schedule), plain_betas(schedule)
    for i, t in enumerate(reversed(range(schedule.steps))):
        beta, bar, before = betas[t], bars[t + 1], bars[t]
        image = plain_image(target, output_of(x, t), x, bar)
        if clip:
            image = np.clip(image, -1, 1)
            mean = math.sqrt(before) * beta / (1 - bar) * image + math.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
        else:
            eps = (x - math.sqrt(bar) * image) / math.sqrt(1 - bar)
            mean = (x - beta / math.sqrt(1 - bar) * eps) / math.sqrt(1 - beta)
        x = mean + (math.sqrt(beta * (1 - before) / (1 - bar)) * noises[i] if t else 0)
    return x


def curved(x, time):
    """A denoiser of one line, of arrays and of tensors: x (B, ...), a time or times (B,)."""
    return x * 0.3 + 0.2 * (time - 3) / 50


def curved_tensor(x, time):
    return curved(x, ops.cast(ops.reshape(time, (-1, 1, 1, 1)), x.dtype))


def run(function, noise, noises, **options):
    """A sampler's images as NumPy, with the noise of its steps given."""
    x = ops.convert_to_tensor(noise, dtype=WIDE)
    return ops.convert_to_numpy(function(x=x, draw=lambda i, shape: ops.take(noises, i, axis=0), **options))


# schedules


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_betas_are_those_of_their_formulas(schedule):
    assert schedule.betas.dtype == np.float64
    np.testing.assert_allclose(schedule.betas, plain_betas(schedule), rtol=0, atol=1e-14)
    np.testing.assert_allclose(schedule.alpha_bars, plain_bars(schedule)[1:], rtol=1e-12)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_betas_are_the_references(kind):
    with np.load(REFERENCE.FILE) as file:
        for steps in (300, 500):
            np.testing.assert_allclose(NoiseSchedule(kind, steps).betas, file[f"{kind}_{steps}"], atol=2e-5, rtol=0)


def test_the_cosines_clip_acts_where_it_is_known_to():
    """The lower clip from 500 steps on: 1 step, and 13 of 1000; the upper at the last step alone."""
    counts = [(NoiseSchedule(steps=t).betas == 1e-4).sum() for t in (300, 500, 1000)]
    assert counts == [0, 1, 13]
    assert all((NoiseSchedule(steps=t).betas == 0.9999).nonzero()[0].tolist() == [t - 1] for t in (300, 500, 1000))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_posterior_is_that_of_two_gaussians(schedule):
    """q(x_{t-1} | x_t, x0) is proportional to q(x_t | x_{t-1}) q(x_{t-1} | x0): precisions add up."""
    images, noisy, bars = drawn(0, schedule.steps, 3), drawn(1, schedule.steps, 3), plain_bars(schedule)
    time = np.arange(schedule.steps)
    mean, variance = posterior(schedule, images, noisy, time)
    np.testing.assert_allclose(mean[0], images[0], atol=1e-9)
    assert variance[0] == 0
    for t in time[1:]:
        beta, before = plain_betas(schedule)[t], bars[t]
        precision = (1 - beta) / beta + 1 / (1 - before)
        centre = (math.sqrt(1 - beta) / beta * noisy[t] + math.sqrt(before) / (1 - before) * images[t]) / precision
        np.testing.assert_allclose(mean[t], centre, atol=1e-9, rtol=0)
        np.testing.assert_allclose(variance[t], 1 / precision, rtol=1e-9)


@pytest.mark.backends
@pytest.mark.core
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_means_its_image_and_noise(target):
    schedule, time = NoiseSchedule("cosine", 50), np.array([0, 1, 20, 48])
    arrays = drawn(0, 4, 2, 3, 1), drawn(1, 4, 2, 3, 1)
    bars = np.array(plain_bars(schedule))[time + 1].reshape(-1, 1, 1, 1)
    for images, noise in (arrays, tuple(ops.convert_to_tensor(x, dtype=WIDE) for x in arrays)):
        noisy = add_noise(schedule, images, noise, time)
        output = target_of(schedule, target, images, noise, time)
        kind = np.ndarray if isinstance(images, np.ndarray) else type(images)
        assert isinstance(noisy, kind) and isinstance(output, kind)
        image = image_of(schedule, target, output, noisy, time)
        eps = noise_of(schedule, image, noisy, time)
        bound = 1e-9 if isinstance(images, np.ndarray) else max(BOUND, 1e-9)
        wanted = np.sqrt(bars) * arrays[0] + np.sqrt(1 - bars) * arrays[1]
        for got, array in ((noisy, wanted), (image, arrays[0]), (eps, arrays[1])):
            np.testing.assert_allclose(ops.convert_to_numpy(got), array, atol=bound * 10, rtol=0)


@pytest.mark.parametrize("target", TARGETS)
def test_min_snr_weighs_the_error_of_the_image(target):
    """Whatever the target, the weighted error is min(snr, gamma) times the error of x0 (arXiv:2303.09556)."""
    schedule, time = NoiseSchedule("linear", 30), np.arange(30)
    images, noise = drawn(0, 30, 5), drawn(1, 30, 5)
    noisy = add_noise(schedule, images, noise, time)
    output = target_of(schedule, target, images, noise, time)
    wrong = output + 0.01 * drawn(2, 30, 5)
    snr = np.array([bar / (1 - bar) for bar in plain_bars(schedule)[1:]])
    of_image = ((image_of(schedule, target, wrong, noisy, time) - images) ** 2).mean(1) * np.minimum(snr, 5)
    np.testing.assert_allclose(((wrong - output) ** 2).mean(1) * loss_weights(schedule, target), of_image, rtol=1e-6)


def test_schedules_and_samplers_become_json_and_come_back():
    for thing in (*SCHEDULES, DDPM(clip=False), DDIM(7, 0.5, "leading", False)):
        assert type(thing)(**json.loads(json.dumps(asdict(thing)))) == thing


# samplers


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_ddim_with_all_noise_and_steps_is_ddpm(schedule):
    """The same mean, of any image and x, and the same variance."""
    ddpm, ddim = DDPM().trajectory(schedule), DDIM(schedule.steps, 1.0).trajectory(schedule)
    assert ddpm.times.tolist() == ddim.times.tolist()
    for part in ("of_image", "of_noisy", "of_noise"):
        np.testing.assert_allclose(getattr(ddim, part), getattr(ddpm, part), atol=1e-9, rtol=0, err_msg=part)


@pytest.mark.backends
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("clip", [True, False])
def test_samplers_follow_the_papers(target, clip):
    if BACKEND == "jax" and not clip:
        pytest.skip("float32, in which unclipped steps from noise alone lose digits")
    schedule = SCHEDULES[0]
    noise, noises = drawn(0, 2, 3, 4, 1), drawn(1, 50, 2, 3, 4, 1)
    options = {"output_of": curved_tensor, "schedule": schedule, "target": target}
    ours = run(sample, noise, noises, sampler=DDPM(clip=clip), **options)
    theirs = plain_ddpm(schedule, target, curved, noise, clip, noises)
    np.testing.assert_allclose(ours, theirs, atol=BOUND * max(1, np.abs(theirs).max()), rtol=0)
    for steps, eta, spacing in (
        (10, 0.0, "trailing"),
        (7, 0.4, "linspace"),
        (12, 1.0, "leading"),
        (1, 0.0, "trailing"),
    ):
        sampler = DDIM(steps, eta, spacing, clip)
        ours = run(sample, noise, noises, sampler=sampler, **options)
        times = sampler.times(50).tolist()
        theirs = plain_ddim(schedule, target, curved, noise, times, eta, clip, noises)
        np.testing.assert_allclose(ours, theirs, atol=BOUND * max(1, np.abs(theirs).max()), rtol=0)


def test_spacings_are_diffusers():
    assert DDIM(5).times(50).tolist() == [49, 39, 29, 19, 9]
    assert DDIM(5, spacing="leading").times(50).tolist() == [40, 30, 20, 10, 0]
    assert DDIM(5, spacing="linspace").times(50).tolist() == [49, 37, 24, 12, 0]
    assert DDIM(50).times(50).tolist() == list(range(49, -1, -1))
    for spacing in samplers.SPACINGS:
        for steps in range(1, 31):
            times = DDIM(steps, spacing=spacing).times(30)
            assert len(set(times.tolist())) == steps and times.min() >= 0 and times.max() < 30


def test_steps_are_those_of_diffusers():
    """Which computes in float32: noisy images to 1e-6, steps to 5e-4."""
    schedule = NoiseSchedule("cosine", DIFFUSERS.STEPS, highest=0.999)
    with np.load(DIFFUSERS.FILE) as file:
        images, noise = DIFFUSERS.drawn(0)[0], DIFFUSERS.drawn(1)[0]
        variance = schedule.posterior_variance
        np.testing.assert_allclose(variance[1:], file["variance"][1:], rtol=1e-4)
        for k, t in enumerate(DIFFUSERS.TIMES):
            time = np.full(3, t)
            noisy = add_noise(schedule, images, noise, time)
            np.testing.assert_allclose(noisy, file["noisy"][k], atol=1e-6, rtol=0)
            for target in TARGETS:
                for clip in (True, False):
                    image = image_of(schedule, target, DIFFUSERS.output_of(noisy, t), noisy, time)
                    image = np.clip(image, -1, 1) if clip else image
                    mean, _ = posterior(schedule, image, noisy, time)
                    np.testing.assert_allclose(mean, file[f"ddpm_{target}_{clip}"][k], atol=5e-4, rtol=1e-5)
        for i, (target, clip, steps, eta, spacing) in enumerate(DIFFUSERS.RUNS):
            x, noises = DIFFUSERS.drawn(2)[0].astype("float64"), DIFFUSERS.drawn(3, steps)
            ours = run(
                sample,
                x,
                noises,
                output_of=lambda x, time: DIFFUSERS.output_of(x, np.array(time)[0]),
                schedule=schedule,
                target=target,
                sampler=DDIM(steps, eta, spacing, clip),
            )
            np.testing.assert_allclose(ours, file[f"ddim_{i}"], atol=5e-4, rtol=5e-4, err_msg=str(DIFFUSERS.RUNS[i]))


@pytest.mark.backends
@pytest.mark.core
@pytest.mark.parametrize("sampler", [DDIM(9), DDIM(9, 0.7), DDPM()], ids=str)
def test_a_graphs_loop_does_what_python_does(sampler):
    noise, noises = drawn(0, 2, 3, 4, 1).astype("float32"), drawn(1, 40, 2, 3, 4, 1).astype("float32")
    options = {"output_of": curved_tensor, "schedule": SCHEDULES[1], "target": "v", "sampler": sampler}
    np.testing.assert_allclose(
        run(sample_in_graph, noise, noises, **options), run(sample, noise, noises, **options), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="a TensorFlow graph")
def test_a_graph_samples_as_many_images_as_it_is_given():
    import tensorflow as tf

    options = {"output_of": curved_tensor, "schedule": SCHEDULES[1], "sampler": DDPM()}

    @tf.function(input_signature=[tf.TensorSpec((None, 3, 4, 1)), tf.TensorSpec((), "int32")])
    def images(x, seed):
        return sample_in_graph(
            x=x, draw=lambda i, shape: tf.random.stateless_normal(shape, tf.stack([seed, i])), **options
        )

    for count in (1, 5):
        x = tf.constant(drawn(0, count, 3, 4, 1), "float32")
        theirs = sample(x=x, draw=lambda i, shape: tf.random.stateless_normal(shape, [4, i]), **options)
        np.testing.assert_allclose(images(x, 4), theirs, atol=1e-5)


@pytest.mark.backends
def test_a_seed_gives_the_same_images_again():
    def images(seed):
        noise = starting_noise((2, 3, 4, 1), seed)
        return ops.convert_to_numpy(sample(curved_tensor, SCHEDULES[1], noise, sampler=DDPM(clip=False), seed=seed))

    first, again, other = images(4), images(4), images(5)
    assert (first == again).all() and not np.isclose(first, other).any()
    many = ops.convert_to_numpy(starting_noise((100, 10, 10, 1), 0))
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03


@pytest.mark.backends
def test_progress_is_told_every_step_and_images_stay_in_range():
    steps = []
    x = sample(
        curved_tensor,
        SCHEDULES[1],
        starting_noise((1, 3, 4, 1)),
        progress=lambda *step: steps.append(step),
        sampler=DDIM(6),
    )
    assert [(i, total) for i, total, _ in steps] == [(i, 6) for i in range(6)] and steps[-1][2] is x
    assert np.abs(ops.convert_to_numpy(x)).max() <= 1


@pytest.mark.backends
def test_guidance_is_one_batch_of_both():
    calls = []

    def denoiser(x, time, classes):
        calls.append((tuple(x.shape), ops.convert_to_numpy(classes).tolist()))
        return x * ops.cast(ops.reshape(classes, (-1, 1, 1, 1)), x.dtype)

    x, time = ops.ones((2, 1, 1, 1)), ops.convert_to_tensor([3, 3])
    output = guided(denoiser, [1, 4], 2.5, null_class=10)(x, time)
    assert calls == [((4, 1, 1, 1), [1, 4, 10, 10])]
    np.testing.assert_allclose(ops.convert_to_numpy(output).ravel(), [10 + 2.5 * (1 - 10), 10 + 2.5 * (4 - 10)])
    calls.clear()
    plain = guided(denoiser, ops.convert_to_tensor([1, 4]))(x, time)
    assert calls == [((2, 1, 1, 1), [1, 4])] and ops.convert_to_numpy(plain).ravel().tolist() == [1, 4]


def test_as_denoiser_gives_a_network_what_it_takes():
    calls = []
    network = lambda inputs, training: calls.append((inputs, training))  # noqa: E731
    as_denoiser(network)("x", "t", "c")
    as_denoiser(network)("x", "t")
    assert calls == [({"images": "x", "time": "t", "classes": "c"}, False), ({"images": "x", "time": "t"}, False)]


# bad input


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NoiseSchedule("cosinus"), "unknown schedule of noise 'cosinus': the closest are cosine"),
        (lambda: NoiseSchedule(steps=1), "at least 2 steps; got 1"),
        (lambda: NoiseSchedule(steps=2.5), "steps must be an integer"),
        (lambda: NoiseSchedule("linear", highest=1.0), r"0 <= lowest < highest < 1.*got 0.0001 and 1.0"),
        (lambda: NoiseSchedule("linear", lowest=0), "of a linear schedule lowest > 0"),
        (lambda: NoiseSchedule(highest=float("nan")), "got 0.0001 and nan"),
        (lambda: target_of(NoiseSchedule(), "noise", 0, 0, 0), "unknown target 'noise'"),
        (lambda: loss_weights(NoiseSchedule(), "eps", 0), "gamma of min-SNR weights must be above 0.*got 0"),
        (lambda: DDIM(51).trajectory(SCHEDULES[0]), "at most the times .* noise, 50; got 51; choose 50 or fewer"),
        (lambda: DDIM(0), "steps must be at least 1; got 0"),
        (lambda: DDIM(eta=1.5), "eta must be from 0.*got 1.5"),
        (lambda: DDIM(spacing="trail"), "unknown spacing 'trail': the closest are trailing"),
        (lambda: DDPM(clip="yes"), "clip must be True or False; got 'yes'"),
        (lambda: guided(None, [1], 2.0), "guidance needs .* a null class.*got guidance 2.0 and no null class"),
        (lambda: guided(None, None, 2.0, 10), "got guidance 2.0 and no classes"),
        (lambda: guided(None, [1], float("nan"), 10), "guidance must be a number"),
        (lambda: starting_noise((1,), -1), "seed must be from 0 to 2147483647; got -1"),
        (lambda: starting_noise((1,), 0.5), "seed must be an integer"),
        (lambda: sample_in_graph(None, SCHEDULES[0], None, sampler=DDPM()), "adds noise at each step"),
        (lambda: sample(None, SCHEDULES[0], None, target="epsilon"), "unknown target 'epsilon'"),
    ],
)
def test_what_cannot_work_is_refused(make, words):
    with pytest.raises(SwinsError, match=words):
        make()
