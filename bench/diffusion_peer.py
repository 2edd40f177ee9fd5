#!/usr/bin/env python3
"""diffusion_peer.py FOLDER THREADS: the network in FOLDER as Hugging Face diffusers runs it. bench_diffusion starts it
and asks for "forward" or "train" on standard input; it answers with the seconds of 64 images of 28 x 28.

Wants PyTorch of libtorch's version and diffusers 0.21.4, as tests/data/make_unet_cases.py says; then
  TUIQIAO_PYTHON=venv/bin/python scripts/bench diffusion
"""
import sys
import time

import safetensors.torch  # diffusers takes it for loaded
import torch
from diffusers import UNet2DModel

torch.set_num_threads(int(sys.argv[2]))
torch.manual_seed(1)
model = UNet2DModel.from_pretrained(sys.argv[1], use_safetensors=True)
x = torch.randn(64, 1, 28, 28)
t = torch.randint(0, 1000, (64,)).float()


def forward():
    with torch.no_grad():
        return model(x, t).sample


def train():
    for parameter in model.parameters():
        parameter.grad = None
    (model(x, t).sample - x).square().mean().backward()


for line in sys.stdin:
    start = time.perf_counter()
    {"forward": forward, "train": train}[line.strip()]()
    print(time.perf_counter() - start, flush=True)
