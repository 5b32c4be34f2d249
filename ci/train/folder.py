"""What a training leaves behind: the model folder, its log and card, and the checkpoint that it goes on from.

In: weights, evaluations, figures. Out: files, each whole or not at all. Must not: replace a good checkpoint by a torn one.
"""

import json
import os
import zlib

import numpy as np
import torch
from data import read_safetensors, safetensors_bytes
from evaluate import LEAST_ENTROPY
from problem import Refusal, write_atomically

# the columns of `ergometer train`, then those of this trainer; empty: unavailable
LOG = ["step", "seconds", "flops", "learning_rate", "loss_cells", "loss_halting", "train_exact", "gradient_norm", "exact_full", "cells_full",
       "exact_halting", "cells_halting", "steps_halting", "n", "gflop_per_s", "questions_full", "questions_halting",
       "joules_counter", "joules_integrated", "power_w", "temperature_c", "sm_clock_mhz"]
CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"


def raw(tensor, dtype):
    if dtype == "BF16":
        return tensor.detach().to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes()
    return tensor.detach().float().cpu().contiguous().numpy().tobytes()


def save_model(out, config, net, weights, dtype, steps):
    """What a report asks of two accuracies, which weights they are of, stands in the config."""
    tensors = {p.name: (dtype, p.shape, raw(weights[p.name], dtype)) for p in net.params}
    write_atomically(os.path.join(out, "model.safetensors"), safetensors_bytes(tensors, None))
    write_atomically(os.path.join(out, "config.json"), json.dumps({**config.model, "weights_from": f"moving average, {steps} steps"}, indent=2, sort_keys=True) + "\n")
    write_atomically(os.path.join(out, "train.toml"), config.text)


def log_row(values):
    def cell(name):
        v = values.get(name)
        if v is None:
            return ""
        if name in ("flops", "learning_rate"):
            return f"{v:.4e}"
        digits = {"seconds": 1, "steps_halting": 2, "gflop_per_s": 2, "joules_counter": 1, "joules_integrated": 1, "power_w": 1}
        return f"{v:.{digits.get(name, 5)}f}" if isinstance(v, float) else str(v)

    return ",".join(cell(name) for name in LOG) + "\n"


def save_checkpoint(out, tensors, progress):
    """The one before stays beside it until the next."""
    data = {name: ("F32" if t.dtype == torch.float32 else "U8", t.shape, t.detach().cpu().contiguous().numpy().tobytes()) for name, t in tensors.items()}
    sum_ = 0
    for _, _, b in data.values():
        sum_ = zlib.crc32(b, sum_)
    path = os.path.join(out, CHECKPOINT)
    whole = safetensors_bytes(data, {"format": "ergometer-torch-checkpoint-1", "progress": json.dumps(progress), "crc32": sum_})
    aside = os.path.join(out, CHECKPOINT + ".new")
    write_atomically(aside, whole)
    if os.path.exists(path):
        os.replace(path, os.path.join(out, PREVIOUS))
    os.replace(aside, path)


def load_checkpoint(out):
    path, previous = os.path.join(out, CHECKPOINT), os.path.join(out, PREVIOUS)
    hint = "leave --resume out to start from the beginning"
    if os.path.exists(previous):
        hint = f"the one before it is kept: rename {previous} to {CHECKPOINT}, or leave --resume out to start from the beginning"
    tensors, metadata = read_safetensors(path, hint)
    try:
        if metadata["format"] != "ergometer-torch-checkpoint-1":
            raise ValueError(f"its format is {metadata['format']!r}")
        progress, sum_ = json.loads(metadata["progress"]), 0
        for t in tensors.values():
            sum_ = zlib.crc32(t.tobytes(), sum_)
        if sum_ != int(metadata["crc32"]):
            raise ValueError("its checksum is another")
    except (KeyError, ValueError) as error:
        raise Refusal(f"{path}: cannot go on from this checkpoint: {error}", hint) from error
    return {name: torch.from_numpy(np.array(t)) for name, t in tensors.items()}, progress, hint


def percent(share):
    low, high = share["interval"]
    return f"{100 * share['value']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def card(name, config, net, report, figures, held_out):
    e, recursive = report["evaluation"], net.recursive
    row = lambda rule, s, cells, steps: f"| {rule} | {percent(s)} | {100 * cells:.2f} % | {steps:.2f} |\n"
    table = "| depth | exact, 95 % interval | cells | mean steps |\n|---|---|---|---|\n"
    if recursive:
        table += row(f"all {net.max_steps} supervision steps", e["full"], e["cells_full"], net.max_steps)
        table += row(f"halting, at most {net.max_steps}", e["halting"]["exact"], e["halting"]["cells"], e["halting"]["mean_steps"])
        for point in e["anytime"]:
            if point["steps"] != net.max_steps:
                table += row(f"{point['steps']} steps", point["exact"], point["cells"], point["steps"])
    else:
        table += row("one pass", e["full"], e["cells_full"], 1)
    classes = "".join(f"| {c['class']} | {c['full']['n']} | {percent(c['full'])} |{' ' + percent(c['last']) + ' |' if net.recursive else ''}\n" for c in e["by_difficulty"])
    if classes:
        last = e["anytime"][-1]["steps"] if e["anytime"] else 1
        columns = [f"exact, {net.max_steps} steps", f"exact, {last} steps"] if net.recursive else ["exact"]
        head = "| " + " | ".join(["puzzles", "examples", *columns]) + " |\n" + "|---" * (2 + len(columns)) + "|\n"
        classes = f"\nBy the guesses that the solver of the task needs:\n\n{head}{classes}"
    experts = "".join(f"| {i + 1} | {x['entropy_over_maximum']:.3f} |\n" for i, x in enumerate(e.get("experts", [])))
    if experts:
        experts = f"\n## Experts\n\n| mixture | load entropy over its maximum |\n|---|---|\n{experts}\nUnder {LEAST_ENTROPY} in any mixture the training counts as failed.\n"
    joules = figures["energy"]
    told = [f"{joules[k]:.0f} J by {what}" for k, what in (("joules_counter", "the board's counter"), ("joules_integrated", "its power added up")) if isinstance(joules[k], float)]
    energy = f"{' and '.join(told)} (the board alone, from the first step to the last)" if told else f"Energy: unavailable ({joules['joules_counter']['unavailable']})"
    parameters = ", ".join(f"{k} = {json.dumps(v)}" for k, v in config.parameters.items())
    optimiser = f"Muon at {config.torch['muon_lr']:g} for the blocks' matrices, AdamW at {config.optimiser['lr']:g} for the rest" if config.torch["optimiser"] == "muon" else f"AdamW at {config.optimiser['lr']:g}"
    unit = "supervision step" if recursive else "row"
    return (
        f"# {name}\n\n{config.top['about'].strip()}\n\n"
        f"{net.parameters()} parameters, {net.step_flops() / 1e9:.4f} GFLOP a {unit}. Written by `ci/train/train.py`; `train.toml` is the recipe, `log.csv` its course, `training.json` its figures.\n\n"
        f"## Accuracy\n\n{e['examples']} held-out examples of task `{config.task['kind']}`{f' ({parameters})' if parameters else ''} from {held_out}, test side of its split: none of them was trained on.\n"
        f"Evaluated by PyTorch on {figures['device']} with products in {figures['precision']}, with the moving average of the weights, which is what the file holds ({figures['stored']}).\n\n"
        f"{table}{classes}\nshare; Wilson interval.\n{experts}\n"
        f"## Training\n\n{figures['steps']} optimiser steps, batch {config.top['batch']}, {figures['examples']} examples of the train side{' in random symmetric copies' if figures['symmetric'] else ''}, {optimiser}.\n"
        f"{figures['flops']:.3e} FLOPs (forward, and twice the differentiated part for backward) in {figures['seconds']:.0f} s on {figures['device']}, {figures['compile_seconds']:.0f} s of them for compiling.\n{energy}.\n\n"
        f"## What it is not\n\nThe net is small and shortly trained: it is here to be measured, not to set a record, and it says nothing about how well its architecture can do.\n"
    )
