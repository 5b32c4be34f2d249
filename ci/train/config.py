"""Training files, as src/train/config.rs reads them, and the table `[torch]` that only this trainer knows.

In: a TOML file. Out: a checked `Config`. Must not: make a net, or pass over a key that it does not know.
"""

import difflib
import os
import tomllib
from dataclasses import dataclass, field

from problem import Refusal

NEEDED = object()

# key: (kinds, default, least, most); the kinds and limits of the Rust reader
TOP = {
    "about": (str, NEEDED, None, None),
    "out": (str, NEEDED, None, None),
    "steps": (int, NEEDED, 1, 10**9),
    "batch": (int, NEEDED, 1, 65_536),
    "seed": (int, 0, 0, 2**63 - 1),
    "threads": (int, 1, 1, 1024),
    "eval_every": (int, NEEDED, 1, 10**9),
    "checkpoint_every": (int, NEEDED, 1, 10**9),
    "require_accuracy": (float, None, 0.0, 1.0),
    "model": (dict, NEEDED, None, None),
    "task": (dict, NEEDED, None, None),
    "optimiser": (dict, NEEDED, None, None),
    "loss": (dict, {}, None, None),
    "torch": (dict, {}, None, None),
}
OPTIMISER = {
    "lr": (float, NEEDED, 0.0, 10.0),
    "puzzle_lr": (float, None, 0.0, 10.0),
    "warmup": (int, 0, 0, 10**9),
    "final_share": (float, 1.0, 0.0, 1.0),
    "betas": (list, [0.9, 0.95], 0.0, 0.999_999),
    "weight_decay": (float, 0.0, 0.0, 100.0),
    "clip": (float, None, 1e-9, 1e9),
    "ema": (float, 0.999, 0.0, 0.999_999),
}
LOSS = {
    "cells": (("stablemax", "softmax"), "stablemax", None, None),
    "halting": (float, 0.5, 0.0, 100.0),
    "exploration": (float, 0.1, 0.0, 1.0),
    "balance": (float, 0.01, 0.0, 100.0),
}
TORCH = {
    "optimiser": (("adamw", "muon"), "adamw", None, None),
    "muon_lr": (float, 0.02, 0.0, 10.0),
    "muon_momentum": (float, 0.95, 0.0, 0.999_999),
    "muon_weight_decay": (float, 0.0, 0.0, 100.0),
    "label_smoothing": (float, 0.0, 0.0, 0.9),
    "q_bias": (float, -5.0, -100.0, 100.0),
    "through": (int, 1, 1, 64),
    "curriculum": (list, [], None, None),
    "reveal": (list, [0, 0], 0, 4096),
    "reveal_share": (float, 0.0, 0.0, 1.0),
    "symmetric": (bool, True, None, None),
    "precision": (("bf16", "f32"), "bf16", None, None),
    "compile": (bool, True, None, None),
    "graph": (bool, True, None, None),
    "eval_steps": (list, [1, 2, 4, 8, 16, 32, 64], 1, 4096),
}
TASK = {
    "kind": (str, NEEDED, None, None),
    "eval_examples": (int, NEEDED, 1, 10**6),
    "eval_seed": (int, 0, 0, 2**32 - 1),
    "puzzles": (int, None, 1, 2**32 - 1),
}
HINT = "the keys of a training file are in suites/train/README.md"


@dataclass
class Config:
    path: str
    text: str
    top: dict
    optimiser: dict
    loss: dict
    torch: dict
    task: dict
    parameters: dict = field(default_factory=dict)

    @property
    def model(self):
        return self.top["model"]

    def learned_from(self):
        """What a run that goes on must have in common with the one before."""
        return {"model": self.model, "task": [self.task, self.parameters], "loss": self.loss, "seed": self.top["seed"],
                "optimiser": self.torch["optimiser"]}


def check(where, table, rules, path, others=False):
    """The table with its defaults; `others`: keys without a rule are let through."""
    for key in table if not others else ():
        if key not in rules:
            near = difflib.get_close_matches(key, rules, 1)
            meant = f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(rules)}"
            raise Refusal(f"{path}: unknown key `{where}{key}`{meant}", HINT)
    out = {}
    for key, (kind, default, least, most) in rules.items():
        name = f"`{where}{key}`"
        if key not in table:
            if default is NEEDED:
                raise Refusal(f"{path}: {name} is missing", HINT)
            out[key] = default
            continue
        value = table[key]
        if isinstance(kind, tuple):
            if value not in kind:
                raise Refusal(f"{path}: {name} is {value!r}; it must be one of {', '.join(kind)}", HINT)
        elif kind is float:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise Refusal(f"{path}: {name} is {value!r}; it must be a number", HINT)
        elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Refusal(f"{path}: {name} is {value!r}; it must be of the kind {kind.__name__}", HINT)
        for number in value if isinstance(value, list) and least is not None else [value] if kind in (int, float) else []:
            good = isinstance(number, (int, float)) and not isinstance(number, bool) and least <= number <= most
            if not good:
                raise Refusal(f"{path}: {name} is {value!r}; it must lie between {least} and {most}", HINT)
        out[key] = value
    return out


def changed(tables, changes):
    """`table.key=value` over what the file has."""
    for change in changes:
        key, _, value = change.partition("=")
        try:
            value = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError as error:
            raise Refusal(f"--set {change}: the value is no TOML", "write TABLE.KEY=VALUE") from error
        *names, last = key.split(".")
        at = tables
        for name in names:
            at = at.setdefault(name, {})
        at[last] = value


def load(path, changes=()):
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20).decode()
        tables = tomllib.loads(text)
    except OSError as error:
        raise Refusal(f"{path}: cannot be read: {error.strerror}", "name a training file (TOML); those of the shipped nets are in suites/train/") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refusal(f"{path}: it is no TOML: {error}", HINT) from error
    if "cases" in tables:
        raise Refusal(f"{path}: it is a suite", "`ergometer run` takes it")
    changed(tables, changes)
    top = check("", tables, TOP, path)
    torch = check("torch.", top["torch"], TORCH, path)
    task = check("task.", top["task"], TASK, path, others=True)
    parameters = {k: v for k, v in top["task"].items() if k not in TASK}
    for key, instead in [("examples", "eval_examples"), ("seed", "eval_seed"), ("split", "nothing")]:
        if key in parameters:
            raise Refusal(f"{path}: `task.{key}` is the trainer's to choose: it holds out the side `test`", f"write `{instead}`")
    config = Config(str(path), text, top, check("optimiser.", top["optimiser"], OPTIMISER, path), check("loss.", top["loss"], LOSS, path), torch, task, parameters)
    betas, reveal = config.optimiser["betas"], torch["reveal"]
    if len(betas) != 2:
        raise Refusal(f"{path}: `optimiser.betas` is {betas!r}; it must be two numbers", HINT)
    if len(reveal) != 2 or not all(isinstance(v, int) for v in reveal) or reveal[0] > reveal[1]:
        raise Refusal(f"{path}: `torch.reveal` is {reveal!r}; it must be `[fewest, most]`, two whole numbers", HINT)
    if not torch["eval_steps"] or not all(isinstance(v, int) for v in torch["eval_steps"]):
        raise Refusal(f"{path}: `torch.eval_steps` is {torch['eval_steps']!r}; it must be whole numbers of steps", HINT)
    return config


def name_of(config, out):
    return os.path.basename(os.path.normpath(str(out))) or "model"
