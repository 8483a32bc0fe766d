#!/usr/bin/env python3
"""cuBLAS, through PyTorch, on the linear layers of Llama-3.1-8B at 8,192 rows in bf16."""
import torch

import peers_torch as P

LAYERS = (("qkv", 4096, 6144), ("o", 4096, 4096), ("gate+up", 4096, 28672), ("down", 14336, 4096), ("square", 8192, 8192))
for name, inner, outer in LAYERS:
    x = torch.randn(8192, inner, device="cuda", dtype=torch.bfloat16)
    w = torch.randn(outer, inner, device="cuda", dtype=torch.bfloat16)
    ms, _ = P.median_ms(lambda: x @ w.T, 20, 5)
    print(f"{name}: {2 * 8192 * inner * outer / ms / 1e9:.1f} TFLOP/s")
