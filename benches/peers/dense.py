#!/usr/bin/env python3
"""Ceilings and dense causal attention of PyTorch (FlashAttention-2, cuDNN) on the kernel benchmarks' inputs.

    python3 dense.py 8192 32768 131072 [--rows RUN/rows.ndjson]

bf16, [1, 32, S, 128] queries, 8 KV heads. Each row is checked on the same sampled rows as ours, then timed.
"""
import argparse

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import gen_qkv as G
import peers_torch as P
import rows

parser = argparse.ArgumentParser()
parser.add_argument("lens", type=int, nargs="+")
parser.add_argument("--rows", help="rows.ndjson of a run's folder")
args = parser.parse_args()

x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
ms, _ = P.median_ms(lambda: x @ x)
print(f"matmul 8192: {2 * 8192**3 / ms / 1e9:.1f} TFLOP/s")
source = torch.empty(1 << 29, device="cuda")
target = torch.empty_like(source)
ms, _ = P.median_ms(lambda: target.copy_(source))
print(f"copy: {2 * source.numel() * 4 / ms / 1e9:.2f} TB/s")
del source, target
for S in args.lens:
    q, k, v = G.gen_qkv(S, 32, 8, "random")
    check = P.sampled_error(q, k, v, lambda h, i: torch.arange(S, device="cuda") <= i)
    for name, backend in (("fa2", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):

        def run():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        error = check(run())
        ms, least = P.median_ms(run, 5)
        rate = 4 * 128 * 32 * S * (S + 1) / 2 / ms / 1e9
        print(f"{name} {S}: {ms:.3f} ms (min {least:.3f}), {rate:.1f} TFLOP/s, error {error:.6f}", flush=True)
        if args.rows:
            rows.append(args.rows, f"PyTorch {torch.__version__}", "dense", S, 1.0, name, ms, least, rate, error)
