#!/usr/bin/env python3
"""Records what PyTorch computes for a model folder: a witness beside the reference interpreter, for `ergometer parity`.

    ci/train/vectors.py MODEL --data FILE [--rows 4] [--steps 4] [--precision f32|bf16] --out vectors.safetensors

The first rows of a data file of the net's task go in; states, logits and halting head of every supervision step come out, in the layout
of a vectors file (`logits.k`, `q_halt.k`, `q_continue.k`, the states by their names, `first_halt`). On a processor, in f32, or with bf16
products as a GPU has them.
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import torch
from data import read_safetensors, safetensors_bytes
from nets import Net
from problem import Refusal, write_atomically


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    try:
        with open(os.path.join(args.model, "config.json")) as file:
            net = Net(json.load(file), os.path.join(args.model, "config.json"))
        record(net, args)
    except (OSError, ValueError) as error:
        print(f"error: {args.model}: {error}\nhint: name a model folder", file=sys.stderr)
        return 2
    except Refusal as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2
    return 0


@torch.no_grad()
def record(net, args):
    path = os.path.join(args.model, "model.safetensors")
    stored, _ = read_safetensors(path, "train the model again")
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    weights = {}
    for p in net.params:
        t = stored.get(p.name)
        if t is None or list(t.shape) != p.shape:
            raise Refusal(f"{path}: tensor `{p.name}` is missing or has another size", "name a folder whose config.json is that of its weights")
        t = torch.from_numpy(t.astype(np.uint32) << 16).view(torch.float32) if t.dtype == np.uint16 else torch.from_numpy(t.copy())
        weights[p.name] = t if p.full else t.to(dtype)
    tensors, _ = read_safetensors(args.data)
    tokens = tensors["tokens"][: args.rows].astype(np.int64)
    if tokens.shape[1] != net.tokens or tokens.max() >= net.vocab:
        raise Refusal(f"{args.data}: its examples do not fit the net", "name a data file of the net's task")
    rows, out = len(tokens), {}
    put = lambda name, v, kind="F32": out.__setitem__(name, (kind, v.shape, np.ascontiguousarray(v).tobytes()))
    put("inputs", tokens.astype(np.int32), "I32")
    put("puzzle_identifiers", np.zeros(rows, np.int32), "I32")
    steps = args.steps if net.recursive else 1
    state, blocks = net.initial(weights, rows, dtype), net.prepare(weights)
    x = net.embed(torch.from_numpy(tokens), weights).to(dtype)
    first = np.full(rows, steps + 1, np.int32)
    names = {"trm": ["z_H", "z_L"], "looped": ["z"]}.get(net.family, [])
    for k in range(1, steps + 1):
        state, logits, q, _ = net.step((net.stack, net.injected), state, x, weights, blocks)
        put(f"logits.{k}", logits.float().numpy())
        if q is not None:
            both = torch.nn.functional.linear(state[0][:, 0].float(), weights["q_head.weight"], weights["q_head.bias"])
            put(f"q_halt.{k}", both[:, 0].numpy())
            put(f"q_continue.{k}", both[:, 1].numpy())
            first = np.where((first > steps) & (both[:, 0].numpy() > 0), np.int32(k), first)
        for name, z in zip(names, state):
            put(f"{name}.{k}", z.float().numpy())
    if net.recursive:
        put("first_halt", first.astype(np.int32), "I32")
    write_atomically(args.out, safetensors_bytes(out, None))


if __name__ == "__main__":
    sys.exit(main())
