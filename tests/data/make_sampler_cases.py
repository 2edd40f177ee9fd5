#!/usr/bin/env python3
"""Makes tests/data/sampler_cases.json: what the schedulers of Hugging Face diffusers make of a mixture of Gaussians
whose noise estimate is exact, from given noise on their own grids.

Versions: as make_unet_cases.py says.
"""
import json
import pathlib

import diffusers
import numpy as np
import torch

WEIGHTS = np.array([0.25, 0.5, 0.25])
MEANS = np.array([[-1, 0.5], [0.7, 0], [0.2, -1]])
STDS = np.array([0.3, 0.5, 0.4])
START = np.array([[0.4, -1.1], [1.3, 0.2], [-0.7, -0.3]])


def epsilon(x, sigma):
    """Of x in the variables x / A."""
    variance = STDS**2 + sigma**2
    away = x[:, None, :] - MEANS
    log = np.log(WEIGHTS) - np.log(variance) - (away**2).sum(-1) / (2 * variance)
    weight = np.exp(log - log.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    return sigma * (weight[..., None] * away / variance[:, None]).sum(1)


def run(scheduler, steps):
    """In the process's variables; A and sigma of each timestep are the scheduler's own."""
    scheduler.set_timesteps(steps)
    signal = np.sqrt(scheduler.alphas_cumprod.double().numpy())
    sigma = np.sqrt(1 - signal**2) / signal
    steps = scheduler.timesteps.numpy()
    x = torch.tensor(START)[..., None, None].float()  # UniPC wants images, in float32
    for t in steps:
        e = epsilon(x.double().numpy()[..., 0, 0] / signal[t], sigma[t])
        x = scheduler.step(torch.tensor(e)[..., None, None].float(), t, x).prev_sample
    return signal, sigma, steps, x.double().numpy()[..., 0, 0]


def case(name, sampler, scheduler, steps, to_zero, **options):
    signal, sigma, timesteps, end = run(scheduler, steps)
    sigmas = [sigma[t] for t in timesteps] + [0 if to_zero else sigma[0]]
    last = 1 if to_zero else signal[0]
    return dict(scheduler=name, sampler=sampler, sigmas=sigmas, start=(START / signal[timesteps[0]]).tolist(),
                end=(end / last).tolist(), **options)


def heun(steps):
    scheduler = diffusers.HeunDiscreteScheduler()
    scheduler.set_timesteps(steps)
    x = torch.tensor(START) * scheduler.init_noise_sigma.double()
    start = x.numpy().tolist()
    # Each sigma but the first and the last stands twice.
    sigmas = scheduler.sigmas.double().numpy()
    grid = [sigmas[0]] + list(sigmas[1:-1:2]) + [sigmas[-1]]
    for index, t in enumerate(scheduler.timesteps):
        e = epsilon(x.numpy(), sigmas[min(index, len(sigmas) - 1)] if index % 2 == 0 else sigmas[index])
        x = scheduler.step(torch.tensor(e), t, x).prev_sample
    return dict(scheduler="HeunDiscreteScheduler", sampler="heun", sigmas=grid, start=start, end=x.numpy().tolist())


def main():
    cases = [heun(steps) for steps in (5, 10, 20)]
    for steps in (5, 10, 20):
        cases.append(case("DDIMScheduler", "euler",
                          diffusers.DDIMScheduler(clip_sample=False), steps, True))
        few = steps < 15
        cases.append(case("DPMSolverMultistepScheduler", "dpmpp-2m",
                          diffusers.DPMSolverMultistepScheduler(solver_order=2), steps, False,
                          lower_order_final=few))
        for order in (1, 2, 3):
            cases.append(case("UniPCMultistepScheduler", "unipc",
                              diffusers.UniPCMultistepScheduler(solver_order=order), steps, False, order=order,
                              lower_order_final=True))
        for order in (1, 2, 3):
            cases.append(case("UniPCMultistepScheduler without corrector", "unipc",
                              diffusers.UniPCMultistepScheduler(solver_order=order,
                                                                disable_corrector=list(range(100))), steps,
                              False, order=order, corrector=False, lower_order_final=True))
        for order in (1, 2, 3):
            cases.append(case("DEISMultistepScheduler", "deis", diffusers.DEISMultistepScheduler(solver_order=order),
                              steps, False, order=order, lower_order_final=few))
    out = dict(versions=dict(diffusers=diffusers.__version__, torch=torch.__version__),
               mixture=dict(weights=WEIGHTS.tolist(), means=MEANS.tolist(), stds=STDS.tolist()), cases=cases)
    path = pathlib.Path(__file__).parent / "sampler_cases.json"
    path.write_text(json.dumps(out, indent=1) + "\n")
    print(path, len(cases), "cases")


if __name__ == "__main__":
    main()
