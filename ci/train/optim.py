"""AdamW as src/train/optimiser.rs has it, Muon for the matrices of the blocks, and the moving average: all on one flat vector of weights.

In: gradients. Out: moved weights and their average. Must not: wait for the device, or depend on a value that lies there: a step is part
of a CUDA graph. Rates are tensors that the host fills in between.

Muon: Jordan et al. 2024, "Muon: an optimizer for hidden layers": momentum, then the update of each matrix replaced by the nearest
orthogonal one, by five Newton-Schulz iterations of its quintic. Matrices that lie one above the other in a tensor (gate and up; q, k
and v; experts) are each taken by themselves.
"""

import torch

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(g, rounds=5):
    """Of each matrix of [n, rows, columns], rows <= columns."""
    a, b, c = QUINTIC
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = x.to(torch.bfloat16) if x.is_cuda else x
    for _ in range(rounds):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.float()


class Optimiser:
    """`start`: name -> f32 tensor. Trained parameters lie in `flat`, those of AdamW first."""

    def __init__(self, params, start, options, muon, device):
        self.options, self.muon = options, muon
        trained = [p for p in params if p.role == "weight"]
        by_muon = [p for p in trained if muon and p.split]
        self.order = [p for p in trained if p not in by_muon] + by_muon
        self.buffers = {p.name: start[p.name].to(device) for p in params if p.role == "buffer"}
        self.offsets, at = {}, 0
        for p in self.order:
            self.offsets[p.name] = at
            at += p.elements
        self.adam = sum(p.elements for p in self.order) - sum(p.elements for p in by_muon)
        self.flat = torch.cat([start[p.name].reshape(-1) for p in self.order]).float().to(device)
        self.average = self.flat.clone()
        self.first = torch.zeros(self.adam, device=device)
        self.second = torch.zeros(self.adam, device=device)
        self.momentum = torch.zeros(at - self.adam, device=device)
        decays = lambda p: len(p.shape) > 1 and "embed" not in p.name
        self.decay = torch.cat([torch.full((p.elements,), float(decays(p)), device=device) for p in self.order[: len(self.order) - len(by_muon)]])
        self.step_count = torch.zeros((), device=device)
        self.lr = torch.zeros((), device=device)
        self.muon_lr = torch.zeros((), device=device)
        self.groups = self.shapes(by_muon)

    def shapes(self, params):
        """Matrices by shape, lying: (rows, columns) -> [(start, stop, split, rows, columns, stands)], so that each shape is one batched product."""
        groups = {}
        for p in params:
            rows, columns = p.elements // p.split // p.shape[-1], p.shape[-1]
            at = self.offsets[p.name] - self.adam
            key = (min(rows, columns), max(rows, columns))
            groups.setdefault(key, []).append((at, at + p.elements, p.split, rows, columns, rows > columns))
        return groups

    def views(self, flat, more=True):
        out = {p.name: flat[self.offsets[p.name] : self.offsets[p.name] + p.elements].view(p.shape) for p in self.order}
        return {**out, **self.buffers} if more else out

    @torch.no_grad()
    def step(self, gradients):
        """`gradients`: one a parameter, in `order`. Gives the length of the whole before clipping, and whether it is a number: where it is
        none, nothing moves but the count of steps."""
        o = self.options
        g = torch.cat([v.reshape(-1).float() for v in gradients])
        length = g.norm()
        finite = length.isfinite()
        g = torch.where(finite, g, torch.zeros_like(g))
        if o["clip"] is not None:
            g = g * (o["clip"] / length.clamp(min=1e-30)).nan_to_num(0.0).clamp(max=1.0)
        self.step_count += 1
        b1, b2 = o["betas"]
        own = g[: self.adam]
        self.first.lerp_(own, 1 - b1)
        self.second.lerp_(own.square(), 1 - b2)
        one = torch.ones_like(self.step_count)
        first = self.first / (1 - (one * b1) ** self.step_count)
        second = self.second / (1 - (one * b2) ** self.step_count)
        w = self.flat[: self.adam]
        w.sub_(finite * self.lr * (o["weight_decay"] * self.decay * w + first / (second.sqrt() + 1e-8)))
        if self.muon:
            self.muon_step(g[self.adam :], finite * self.muon_lr)
        keep = ((self.step_count + 1) / (self.step_count + 10)).clamp(max=o["ema"])
        self.average.lerp_(self.flat, 1 - keep)
        return length, finite

    def muon_step(self, g, lr):
        beta = self.muon["momentum"]
        self.momentum.lerp_(g, 1 - beta)
        ahead = g.lerp(self.momentum, beta)
        w = self.flat[self.adam :]
        w.mul_(1 - lr * self.muon["weight_decay"])
        for members in self.groups.values():
            matrices = []
            for start, stop, split, rows, columns, stands in members:
                m = ahead[start:stop].view(split, rows, columns)
                matrices.append(m.mT if stands else m)
            moved, at = orthogonal(torch.cat(matrices)), 0
            for start, stop, split, rows, columns, stands in members:
                m = moved[at : at + split]
                at += split
                m = (m.mT if stands else m).reshape(-1)
                w[start:stop].sub_(lr * max(1.0, rows / columns) ** 0.5 * m)

    def state(self):
        return {"weights": self.flat, "average": self.average, "first": self.first, "second": self.second, "momentum": self.momentum}
