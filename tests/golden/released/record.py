#!/usr/bin/env python3
"""Writes the checkpoint beside it with PyTorch, in the layout of the released TRM: `step_7`, the state_dict of a compiled net.

    python3 tests/golden/released/record.py

The net is the smallest that has every tensor. Element i of the k-th tensor (names in alphabetical order) is ((37 i + 11 k) mod 101 - 50) / 128,
which is exact in f32 and bf16: tests/it/import.rs computes it again.
"""

import os

import torch

HIDDEN, INNER, VOCABULARY, PUZZLES = 8, 256, 5, 1
SHAPES = {
    "H_init": (HIDDEN,), "L_init": (HIDDEN,),
    "L_level.layers.0.mlp.down_proj.weight": (HIDDEN, INNER), "L_level.layers.0.mlp.gate_up_proj.weight": (2 * INNER, HIDDEN),
    "L_level.layers.0.self_attn.o_proj.weight": (HIDDEN, HIDDEN), "L_level.layers.0.self_attn.qkv_proj.weight": (3 * HIDDEN, HIDDEN),
    "embed_tokens.embedding_weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN),
    "puzzle_emb.weights": (PUZZLES, HIDDEN), "q_head.bias": (2,), "q_head.weight": (2, HIDDEN),
}


def put(net, name, tensor, buffer):
    *path, last = name.split(".")
    for part in path:
        if part not in net._modules:
            net.add_module(part, torch.nn.Module())
        net = net._modules[part]
    net.register_buffer(last, tensor) if buffer else net.register_parameter(last, torch.nn.Parameter(tensor))


net = torch.nn.Module()
for k, name in enumerate(sorted(SHAPES)):
    n = torch.Size(SHAPES[name]).numel()
    values = (((37 * torch.arange(n) + 11 * k) % 101 - 50) / 128).reshape(SHAPES[name])
    state = name in ("H_init", "L_init")
    put(net, name, values.to(torch.bfloat16) if state else values, state or name == "puzzle_emb.weights")
outer, loss = torch.nn.Module(), torch.nn.Module()
outer.add_module("inner", net)
loss.add_module("model", outer)
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "step_7")
torch.save(torch.compile(loss).state_dict(), path)
print(f"{path}: {os.path.getsize(path)} bytes, PyTorch {torch.__version__}")
