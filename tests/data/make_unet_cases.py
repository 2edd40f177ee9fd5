#!/usr/bin/env python3
"""Makes tests/data/unet/: UNet2DModel networks of random weights as Hugging Face diffusers saves them, with what it
answers; a batch with its loss and gradients; steps of its DDPM scheduler. Then, with --check FOLDER, loads networks
that this project wrote and compares them.

Versions: diffusers 0.21.4, PyTorch 1.13 (Debian's python3-torch), numpy < 2. For instance
  /usr/bin/python3 -m venv --system-site-packages venv
  venv/bin/pip install --no-deps diffusers==0.21.4 'huggingface_hub<0.25' 'numpy<2' safetensors packaging filelock \
      requests regex pillow importlib_metadata zipp tqdm pyyaml typing_extensions fsspec urllib3 idna certifi \
      charset_normalizer
  venv/bin/python tests/data/make_unet_cases.py
"""
import json
import pathlib
import sys

import diffusers
import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

# With beta = 0 Debian's PyTorch 1.13 lets NaN of uninitialised memory through, which diffusers' attention hands it.
plain_baddbmm = torch.baddbmm
torch.baddbmm = lambda into, a, b, *, beta=1, alpha=1: (
    alpha * torch.bmm(a, b) if beta == 0 else plain_baddbmm(into, a, b, beta=beta, alpha=alpha))

HERE = pathlib.Path(__file__).parent / "unet"

DOWN, UP = ("DownBlock2D", "DownBlock2D"), ("UpBlock2D", "UpBlock2D")
CASES = {
    # name: (configuration, height, width)
    "plain": (dict(in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=4,
                   down_block_types=DOWN, up_block_types=UP, attention_head_dim=8), 6, 10),
    "attention": (dict(in_channels=3, out_channels=3, block_out_channels=(8, 16), norm_num_groups=2,
                       down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
                       up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"), attention_head_dim=4, layers_per_block=1,
                       downsample_type="resnet", upsample_type="resnet", mid_block_scale_factor=1.4142135), 4, 6),
    "attention_conv": (dict(in_channels=2, out_channels=4, block_out_channels=(8, 12), norm_num_groups=4,
                            down_block_types=("AttnDownBlock2D", "DownBlock2D"),
                            up_block_types=("UpBlock2D", "AttnUpBlock2D"), attention_head_dim=None,
                            layers_per_block=1, downsample_padding=0, freq_shift=1, flip_sin_to_cos=False,
                            center_input_sample=True, act_fn="gelu"), 8, 4),
    "resnet": (dict(in_channels=1, out_channels=2, block_out_channels=(8, 8, 16), norm_num_groups=4,
                    down_block_types=("ResnetDownsampleBlock2D",) * 3, up_block_types=("ResnetUpsampleBlock2D",) * 3,
                    resnet_time_scale_shift="scale_shift", layers_per_block=1, attention_head_dim=8,
                    num_class_embeds=5), 12, 4),
    "fourier": (dict(in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=8,
                     down_block_types=DOWN, up_block_types=UP, time_embedding_type="fourier", layers_per_block=1,
                     attention_head_dim=8, act_fn="mish"), 4, 4),
    "class_timestep": (dict(in_channels=1, out_channels=1, block_out_channels=(9,), norm_num_groups=3,
                            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), add_attention=False,
                            class_embed_type="timestep", act_fn="relu"), 7, 5),
    "class_identity": (dict(in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=1,
                            down_block_types=("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",),
                            layers_per_block=1, class_embed_type="identity", attention_head_dim=3), 3, 5),
}
OLDER = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def answer(model, x, t, classes):
    model.eval()
    with torch.no_grad():
        return model(x, t, class_labels=classes).sample


def make(name, config, height, width):
    torch.manual_seed(sorted(CASES).index(name))
    model = UNet2DModel(**config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
            parameter.copy_(parameter.half().float())  # stored as float16 without loss
    x = torch.randn(3, config["in_channels"], height, width)
    t = torch.tensor([0.2, 1.5, 40.0]) if name == "fourier" else torch.tensor([0, 37, 999])
    classes = None
    if "num_class_embeds" in config:
        classes = torch.tensor([4, 0, 2])
    elif config.get("class_embed_type") == "timestep":
        classes = torch.tensor([1, 500, 7])
    elif config.get("class_embed_type") == "identity":
        classes = torch.randn(3, 4 * config["block_out_channels"][0])
    case = {"x": x, "t": t.float(), "output": answer(model, x, t, classes)}
    if classes is not None:
        case["classes"] = classes.float()
    if name == "plain":
        noise = torch.randn(3, 1, height, width)
        loss = ((model(x, t).sample - noise) ** 2).mean()
        loss.backward()
        case |= {"noise": noise, "loss": loss.detach().reshape(1)}
        case |= {"gradient." + key: value.grad.clone() for key, value in model.named_parameters()}
    folder = HERE / name
    if name == "fourier":  # its save_pretrained refuses tensors of two names, time_proj.W and time_proj.weight
        model.half().save_config(folder)
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    else:
        model.half().save_pretrained(folder, safe_serialization=True)
    save_file({key: value.contiguous() for key, value in case.items()}, folder / "case.safetensors")
    if name == "attention_conv":  # once more under the older names of attention
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        for now, before in OLDER.items():
            weights = {key.replace(now, before): value for key, value in weights.items()}
        save_file(weights, folder / "older.safetensors")


def make_steps():
    """One step of DDPMScheduler for each kind of prediction and variance, in its own float32."""
    generator = torch.Generator().manual_seed(5)
    cases = []
    for schedule in ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]:
        for prediction in ["epsilon", "sample", "v_prediction"]:
            for variance in ["fixed_small", "fixed_large", "learned_range"]:
                for steps in [1000, 50]:
                    scheduler = DDPMScheduler(1000, beta_schedule=schedule, prediction_type=prediction,
                                              variance_type=variance, clip_sample=prediction != "v_prediction")
                    # The same steps in float64: float32 products of a thousand factors are off by 1e-5.
                    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
                    scheduler.one = scheduler.one.double()
                    scheduler.set_timesteps(steps)
                    at = len(scheduler.timesteps) * len(cases) // 72
                    t = scheduler.timesteps[at]
                    x = torch.randn(2, 1, 2, 2, generator=generator, dtype=torch.float64)
                    output = torch.randn(2, 2 if variance == "learned_range" else 1, 2, 2, generator=generator,
                                         dtype=torch.float64)
                    state = torch.Generator().manual_seed(len(cases))
                    noise = torch.randn(output[:, :1].shape, generator=torch.Generator().manual_seed(len(cases)),
                                        dtype=torch.float64)
                    after = scheduler.step(output, t, x, generator=state).prev_sample
                    cases.append(dict(schedule=schedule, betas=scheduler.betas.double().tolist()[:3],
                                      prediction=prediction, variance=variance, steps=steps, index=at, t=int(t),
                                      clip=bool(scheduler.config.clip_sample), x=x.flatten().tolist(),
                                      output=output.flatten().tolist(), noise=noise.flatten().tolist(),
                                      after=after.flatten().tolist()))
    text = dict(versions=dict(diffusers=diffusers.__version__, torch=torch.__version__, numpy=np.__version__), cases=cases)
    (HERE / "ddpm_steps.json").write_text(json.dumps(text) + "\n")


def check(folder):
    """Networks that were written by this project: no key missing or unexpected, the same answers."""
    for path in sorted(p for p in pathlib.Path(folder).iterdir() if (p / "config.json").exists()):
        model, info = UNet2DModel.from_pretrained(path, output_loading_info=True, use_safetensors=True)
        case = load_file(path / "case.safetensors")
        classes = case.get("classes")
        if classes is not None and classes.dim() == 1:
            classes = classes.long()
        worst = float((answer(model.float(), case["x"], case["t"], classes) - case["output"]).abs().max())
        missing, unexpected = info["missing_keys"], info["unexpected_keys"]
        print(f"{path.name}: missing {missing}, unexpected {unexpected}, difference {worst:.2g}")
        assert not missing and not unexpected and worst < 1e-5, path


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    else:
        for name, (config, height, width) in CASES.items():
            make(name, config, height, width)
        make_steps()
