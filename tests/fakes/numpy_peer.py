#!/usr/bin/env python3
"""A peer as those of ci/peers/, whose engine is a few lines of numpy: what the peers share is tested on it where neither OpenVINO nor PyTorch is.

Its logits follow from the tokens alone, so that its answers are the same in any batch; they are right by chance only."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../ci/peers"))
import peer  # noqa: E402


class Numpy:
    name, devices = "numpy-peer", ("cpu",)

    def version(self):
        import numpy

        return numpy.__version__

    def describe(self, job):
        return {"device": "cpu"}

    def isa(self):
        return None

    def settings(self, job):
        return [{"order": "first"}, {"order": "last"}]

    def load(self, job, model, setting):
        return Engine(model, job["batch"])


class Engine:
    state_names = ()

    def __init__(self, model, batch):
        self.vocabulary = model.config["vocab_size"]

    def begin(self, tokens, ids):
        self.tokens = tokens

    def step(self):
        import numpy as np

        weights = np.arange(1, self.vocabulary + 1, dtype=np.float32)
        self.logits = np.cos(self.tokens[:, :, None] * weights).astype(np.float32)

    def outputs(self):
        return self.logits, None

    def halting(self):
        return None

    def states(self):
        return []


if __name__ == "__main__":
    sys.exit(peer.Worker(Numpy()).run())
