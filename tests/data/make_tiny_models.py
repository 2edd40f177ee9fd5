#!/usr/bin/env python3
"""Writes the tiny language models of the tests into models/: real GGUF files with random weights.

Usage: python3 make_tiny_models.py [FOLDER]. Needs numpy. Same bytes on every run (seeded, no time stamps).

tiny-llama.gguf   llama, F16, SPM tokenizer with byte fallback, no chat template
tiny-gemma3.gguf  gemma3, F32, SPM tokenizer; every other layer attends over a sliding window of 16 tokens
tiny-mamba.gguf   mamba, F32, SPM tokenizer; recurrent, no key-value cache
tiny-bpe.gguf     qwen2, Q8_0, byte-level BPE tokenizer, ChatML template
"""

import struct
import sys
from pathlib import Path

import numpy as np

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # gguf_type
TENSOR_F32, TENSOR_F16, TENSOR_Q8_0 = 0, 1, 8  # ggml_type
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # llama_token_type
ALIGNMENT = 32

ENGLISH = ("the then there this that and answer question document where what who water bridge station heron river "
           "service server is in of to was not open opens closed seven key keeper lease night").split()
CHINESE = "服务 服务器 服务器端 问题 回答 答案 文档 桥 石桥 河 今天 今年 什么 什么时候 是 的 在 不 推敲 茶馆 夜鹭".split()


def text(s):
    data = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    if kind == STRING:
        return text(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def pair(key, kind, v):
    if isinstance(v, list):
        return text(key) + struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    return text(key) + struct.pack("<I", kind) + value(kind, v)


def q8_0(x):
    blocks = x.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1) / 127).astype(np.float16)
    quants = np.rint(blocks / np.maximum(scale.astype(np.float32), 1e-12)[:, None]).clip(-127, 127).astype(np.int8)
    return b"".join(s.tobytes() + q.tobytes() for s, q in zip(scale, quants))


ENCODERS = {TENSOR_F32: lambda x: x.tobytes(), TENSOR_F16: lambda x: x.astype(np.float16).tobytes(), TENSOR_Q8_0: q8_0}


def write_gguf(path, pairs, tensors, matrix_type):
    """`tensors`: name -> float32 array, its axes slowest first. Vectors and convolutions stay F32, as llama.cpp wants."""
    infos, blobs, offset = [], [], 0
    for name, x in tensors.items():
        kind = TENSOR_F32 if x.ndim == 1 or "ssm_" in name else matrix_type
        data = ENCODERS[kind](np.ascontiguousarray(x, dtype=np.float32))
        infos.append(text(name) + struct.pack(f"<I{x.ndim}QIQ", x.ndim, *x.shape[::-1], kind, offset))
        blobs.append(data + bytes(-len(data) % ALIGNMENT))
        offset += len(blobs[-1])
    header = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pair(*p) for p in pairs) + b"".join(infos)
    path.write_bytes(header + bytes(-len(header) % ALIGNMENT) + b"".join(blobs))
    print(f"{path}: {path.stat().st_size} bytes")


def prefixes(words):
    """All prefixes of the words, shortest first: each is then reached by merging a character to the one before."""
    return sorted({w[:i] for w in words for i in range(1, len(w) + 1)}, key=lambda p: (len(p), p))


def spm_vocabulary(add_space_prefix):
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.,?!:;'\"-") + ["。", "，", "？", "：", "\n\n"]
    pieces = dict.fromkeys(letters + prefixes(["▁" + w for w in ENGLISH] + ENGLISH[:8] + CHINESE))
    tokens = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    tokens += [(f"<0x{b:02X}>", BYTE) for b in range(256)]
    tokens += [(p, NORMAL) for p in pieces]
    tokens += [("<start_of_turn>", CONTROL), ("<end_of_turn>", CONTROL)]
    names = [t for t, _ in tokens]
    return len(tokens), [
        ("tokenizer.ggml.model", STRING, "llama"),
        ("tokenizer.ggml.pre", STRING, "default"),
        ("tokenizer.ggml.tokens", STRING, names),
        ("tokenizer.ggml.scores", F32, [-float(i) if kind == NORMAL else 0.0 for i, (_, kind) in enumerate(tokens)]),
        ("tokenizer.ggml.token_type", I32, [kind for _, kind in tokens]),
        ("tokenizer.ggml.bos_token_id", U32, 1),
        ("tokenizer.ggml.eos_token_id", U32, 2),
        ("tokenizer.ggml.unknown_token_id", U32, 0),
        ("tokenizer.ggml.eot_token_id", U32, names.index("<end_of_turn>")),
        ("tokenizer.ggml.add_bos_token", BOOL, True),
        ("tokenizer.ggml.add_eos_token", BOOL, False),
        ("tokenizer.ggml.add_space_prefix", BOOL, add_space_prefix),
    ]


def byte_letters():
    """GPT-2's letter for each byte: printable ones stand for themselves, the others are moved beyond 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + moved.index(b)) for b in range(256)]


def bpe_vocabulary():
    letters = byte_letters()
    words = ["".join(letters[b] for b in w.encode()) for w in [" " + w for w in ENGLISH] + ENGLISH[:8] + CHINESE]
    merged = [p for p in prefixes(words) if len(p) > 1]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    names = letters + merged + control
    return len(names), [
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "qwen2"),
        ("tokenizer.ggml.tokens", STRING, names),
        ("tokenizer.ggml.token_type", I32, [NORMAL] * (len(names) - 3) + [CONTROL] * 3),
        ("tokenizer.ggml.merges", STRING, [f"{p[:-1]} {p[-1]}" for p in merged]),
        ("tokenizer.ggml.bos_token_id", U32, names.index("<|endoftext|>")),
        ("tokenizer.ggml.eos_token_id", U32, names.index("<|im_end|>")),
        ("tokenizer.ggml.padding_token_id", U32, names.index("<|endoftext|>")),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
        ("tokenizer.chat_template", STRING,
         "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
         "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"),
    ]


class Weights:
    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.tensors = {}

    def matrix(self, name, inputs, outputs, gain=1.0):
        self.tensors[name] = self.random.normal(0, gain / np.sqrt(inputs), (outputs, inputs)).astype(np.float32)

    def vector(self, name, size, mean, spread):
        self.tensors[name] = self.random.normal(mean, spread, size).astype(np.float32)

    def attention(self, block, n_embd, n_head, n_head_kv, head, bias=False):
        for part, heads in (("q", n_head), ("k", n_head_kv), ("v", n_head_kv)):
            self.matrix(f"{block}.attn_{part}.weight", n_embd, heads * head, 2.0)
            if bias:
                self.vector(f"{block}.attn_{part}.bias", heads * head, 0, 0.1)
        self.matrix(f"{block}.attn_output.weight", n_head * head, n_embd, 2.0)

    def feed_forward(self, block, n_embd, n_ff):
        self.matrix(f"{block}.ffn_gate.weight", n_embd, n_ff, 1.5)
        self.matrix(f"{block}.ffn_up.weight", n_embd, n_ff, 1.5)
        self.matrix(f"{block}.ffn_down.weight", n_ff, n_embd, 1.5)


def general(arch, name, matrix_type):
    file_type = {TENSOR_F32: 0, TENSOR_F16: 1, TENSOR_Q8_0: 7}[matrix_type]
    return [("general.architecture", STRING, arch), ("general.name", STRING, name), ("general.file_type", U32, file_type),
            ("general.alignment", U32, ALIGNMENT)]


def sizes(arch, **keys):
    kind = {bool: BOOL, int: U32, float: F32}
    return [(f"{arch}.{k.replace('__', '.')}", kind[type(v)], v) for k, v in keys.items()]


def transformer_sizes(arch, context, blocks, n_embd, n_ff, n_head, n_head_kv, **more):
    return sizes(arch, context_length=context, embedding_length=n_embd, block_count=blocks, feed_forward_length=n_ff,
                 attention__head_count=n_head, attention__head_count_kv=n_head_kv,
                 attention__layer_norm_rms_epsilon=1e-6, rope__freq_base=10000.0, **more)


def llama(path, arch="llama", vocabulary=None, matrix_type=TENSOR_F16, seed=1, bias=False):
    n_vocab, words = vocabulary or spm_vocabulary(True)
    n_embd, n_ff, n_head, n_head_kv, blocks = 32, 64, 4, 2, 2
    w = Weights(seed)
    w.matrix("token_embd.weight", n_embd, n_vocab, np.sqrt(n_embd))
    for i in range(blocks):
        b = f"blk.{i}"
        w.vector(f"{b}.attn_norm.weight", n_embd, 1, 0.1)
        w.attention(b, n_embd, n_head, n_head_kv, n_embd // n_head, bias)
        w.vector(f"{b}.ffn_norm.weight", n_embd, 1, 0.1)
        w.feed_forward(b, n_embd, n_ff)
    w.vector("output_norm.weight", n_embd, 1, 0.1)
    w.matrix("output.weight", n_embd, n_vocab, 2.0)
    more = {"rope__dimension_count": n_embd // n_head} if arch == "llama" else {}
    pairs = general(arch, path.stem, matrix_type) + transformer_sizes(arch, 512, blocks, n_embd, n_ff, n_head, n_head_kv, **more)
    write_gguf(path, pairs + words, w.tensors, matrix_type)


def gemma3(path):
    n_vocab, words = spm_vocabulary(False)
    n_embd, n_ff, n_head, n_head_kv, head, blocks = 32, 48, 2, 1, 16, 4
    w = Weights(2)
    w.matrix("token_embd.weight", n_embd, n_vocab, 1.0)  # scaled by sqrt(n_embd) where it is read; also the output
    for i in range(blocks):
        b = f"blk.{i}"
        w.vector(f"{b}.attn_norm.weight", n_embd, 1, 0.1)
        w.attention(b, n_embd, n_head, n_head_kv, head)
        w.vector(f"{b}.attn_q_norm.weight", head, 1.5, 0.1)
        w.vector(f"{b}.attn_k_norm.weight", head, 1.5, 0.1)
        w.vector(f"{b}.post_attention_norm.weight", n_embd, 1, 0.1)
        w.vector(f"{b}.ffn_norm.weight", n_embd, 1, 0.1)
        w.feed_forward(b, n_embd, n_ff)
        w.vector(f"{b}.post_ffw_norm.weight", n_embd, 1, 0.1)
    w.vector("output_norm.weight", n_embd, 2, 0.1)
    pairs = general("gemma3", path.stem, TENSOR_F32) + transformer_sizes(
        "gemma3", 512, blocks, n_embd, n_ff, n_head, n_head_kv, attention__key_length=head, attention__value_length=head,
        attention__sliding_window=16, attention__sliding_window_pattern=2)
    write_gguf(path, pairs + words, w.tensors, TENSOR_F32)


def mamba(path):
    n_vocab, words = spm_vocabulary(True)
    n_embd, inner, state, rank, conv, blocks = 32, 64, 8, 4, 4, 2
    w = Weights(3)
    w.matrix("token_embd.weight", n_embd, n_vocab, np.sqrt(n_embd))
    for i in range(blocks):
        b = f"blk.{i}"
        w.vector(f"{b}.attn_norm.weight", n_embd, 1, 0.1)
        w.matrix(f"{b}.ssm_in.weight", n_embd, 2 * inner, 1.5)
        w.matrix(f"{b}.ssm_conv1d.weight", conv, inner, 1.0)
        w.vector(f"{b}.ssm_conv1d.bias", inner, 0, 0.1)
        w.matrix(f"{b}.ssm_x.weight", inner, rank + 2 * state, 1.5)
        w.matrix(f"{b}.ssm_dt.weight", rank, inner, 1.0)
        w.vector(f"{b}.ssm_dt.bias", inner, -1, 0.5)
        w.tensors[f"{b}.ssm_a"] = -np.exp(w.random.normal(-1, 0.5, (inner, state))).astype(np.float32)
        w.vector(f"{b}.ssm_d", inner, 1, 0.1)
        w.matrix(f"{b}.ssm_out.weight", inner, n_embd, 3.0)
    w.vector("output_norm.weight", n_embd, 0.4, 0.05)
    pairs = general("mamba", path.stem, TENSOR_F32) + sizes(
        "mamba", context_length=512, embedding_length=n_embd, feed_forward_length=0, attention__head_count=0,
        block_count=blocks, ssm__conv_kernel=conv, ssm__inner_size=inner, ssm__state_size=state, ssm__time_step_rank=rank,
        attention__layer_norm_rms_epsilon=1e-5)
    write_gguf(path, pairs + words, w.tensors, TENSOR_F32)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "models"
    folder.mkdir(parents=True, exist_ok=True)
    llama(folder / "tiny-llama.gguf")
    gemma3(folder / "tiny-gemma3.gguf")
    mamba(folder / "tiny-mamba.gguf")
    llama(folder / "tiny-bpe.gguf", "qwen2", bpe_vocabulary(), TENSOR_Q8_0, 4, bias=True)


if __name__ == "__main__":
    main()
