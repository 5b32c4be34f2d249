"""One optimiser step of a net, as a function of nothing: data, weights, states and counters lie on the device.

In: a net, a source of examples, the training file's options. Out: moved weights, sums of what was seen. Must not: wait for the device.

A recursive net is trained as the released TRM is: an optimiser step is a supervision step of the batch, states are carried on detached,
a row that halts is given a fresh example. Nothing has a shape or a branch that hangs on a value, so that all of it is one CUDA graph.
"""

import torch
import torch.nn.functional as F
from optim import Optimiser

STATISTICS = ["loss_cells", "loss_halting", "train_exact", "gradient_norm", "steps", "finite"]


def start_values(params, seed):
    """As `Start` of src/graph: normal, cut off at two standard deviations; not the same numbers as `ergometer train` draws."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for p in params:
        t = torch.empty(p.shape)
        if isinstance(p.start, tuple):
            t.fill_(p.start[1])
        else:
            torch.nn.init.trunc_normal_(t, 0.0, p.start, -2 * p.start, 2 * p.start, generator=generator)
        out[p.name] = t
    return out


class Step:
    """A net with its optimiser, and one optimiser step as a function of nothing: everything lies on the device."""

    def __init__(self, config, net, source, device):
        options = config.torch
        self.config, self.net, self.source, self.device = config, net, source, device
        self.dtype = torch.bfloat16 if options["precision"] == "bf16" and device.type == "cuda" else torch.float32
        self.rows = config.top["batch"]
        muon = {"momentum": options["muon_momentum"], "weight_decay": options["muon_weight_decay"]} if options["optimiser"] == "muon" else None
        self.optimiser = Optimiser(net.params, start_values(net.params, config.top["seed"]), config.optimiser, muon, device)
        self.low = self.optimiser.flat.to(self.dtype)
        low, full = self.optimiser.views(self.low, False), self.optimiser.views(self.optimiser.flat, False)
        self.leaves = [(full if p.full else low)[p.name].detach().requires_grad_() for p in self.optimiser.order]
        self.weights = {**{p.name: leaf for p, leaf in zip(self.optimiser.order, self.leaves)}, **self.optimiser.buffers}
        self.average_low = None
        self.state = net.initial(self.weights, self.rows, self.dtype)
        cells = (self.rows, net.tokens)
        self.tokens, self.answer = torch.zeros(cells, dtype=torch.long, device=device), torch.zeros(cells, dtype=torch.long, device=device)
        self.done = torch.zeros(self.rows, dtype=torch.long, device=device)
        self.statistics = torch.zeros(len(STATISTICS), device=device)
        self.depth, self.graph = None, None
        self.run = (net.stack, net.injected)
        self.compiled = False
        if options["compile"]:
            self.compile()

    def compile(self):
        import torch._dynamo

        torch._dynamo.config.recompile_limit = 32
        wrap = lambda f: torch.compile(f, dynamic=False, fullgraph=True)
        self.run = (wrap(self.net.stack), wrap(self.net.injected))
        self.compiled = True

    def plain(self):
        self.run, self.compiled = (self.net.stack, self.net.injected), False

    def losses(self, logits, q, answer):
        loss, smoothing = self.config.loss, self.config.torch["label_smoothing"]
        counted = answer != 0
        if loss["cells"] == "stablemax":
            s = torch.where(logits >= 0, logits + 1, 1 / (1 - logits.clamp(max=0)))
            logs = s.log() - s.sum(-1, keepdim=True).log()
        else:
            logs = logits.log_softmax(-1)
        each = -logs.gather(-1, answer.unsqueeze(-1)).squeeze(-1)
        if smoothing:
            each = (1 - smoothing) * each - smoothing * logs.mean(-1)
        each = torch.where(counted, each, torch.zeros_like(each))
        cells = (each.sum(1) / counted.sum(1).clamp(min=1)).mean()
        exact = ((logits.argmax(-1) == answer) | ~counted).all(1)
        halting = F.binary_cross_entropy_with_logits(q, exact.float()) if q is not None else torch.zeros_like(cells)
        return cells, halting, exact

    def __call__(self):
        net, config, loss = self.net, self.config, self.config.loss
        fresh = self.done == 0
        tokens, answer = self.source.draw(self.rows)
        if net.recursive:
            tokens, answer = (torch.where(fresh[:, None], new, old) for new, old in ((tokens, self.tokens), (answer, self.answer)))
            self.tokens.copy_(tokens)
            self.answer.copy_(answer)
        with torch.no_grad():
            self.low.copy_(self.optimiser.flat)
            starts = net.initial(self.weights, self.rows, self.dtype)
            state = [torch.where(fresh[:, None, None], start, z) for start, z in zip(starts, self.state)]
        blocks = net.prepare(self.weights)
        x = net.embed(tokens, self.weights).to(self.dtype)
        total, through = 0, config.torch["through"] if net.recursive else 1
        for _ in range(through):
            state, logits, q, extra = net.step(self.run, state, x, self.weights, blocks, self.depth)
            cells, halting, exact = self.losses(logits, q, answer)
            total = total + cells + loss["halting"] * halting
            if extra:
                loads, means = extra
                choices = loads.sum(1, keepdim=True)
                total = total + loss["balance"] * (loads.shape[1] * (loads / choices * means).sum(1)).sum()
        gradients = torch.autograd.grad(total / through, self.leaves)
        with torch.no_grad():
            # a step whose gradient is no number moves nothing, and rows whose values are none begin anew
            length, finite = self.optimiser.step(gradients)
            for kept, new in zip(self.state, state):
                kept.copy_(new)
            if net.recursive:
                done = self.done + through
                explores = torch.rand(self.rows, device=self.device) < loss["exploration"]
                least = torch.where(explores, torch.randint(min(2, net.max_steps), net.max_steps + 1, (self.rows,), device=self.device), torch.zeros_like(done))
                halts = (done >= net.max_steps) | ((q > 0) & (done >= least)) | ~logits.isfinite().all(-1).all(-1)
                self.done.copy_(torch.where(halts, torch.zeros_like(done), done))
            seen = torch.stack([cells.detach(), halting.detach(), exact.float().mean(), length, torch.ones_like(length), finite.float()])
            self.statistics.add_(torch.where(finite, seen, seen.nan_to_num(0.0, 0.0, 0.0)))

    def capture(self):
        """The step as a CUDA graph, after steps that compile it. Gives the function that runs one step."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        # what the steps before took, the graph takes again for itself
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self()
        self.graph = graph
        return graph.replay

    def average(self, stored):
        """The moving average as it is evaluated: rounded as it is stored, and as it is computed."""
        flat = self.optimiser.average
        if stored == "bf16":
            flat = flat.to(torch.bfloat16)
        full, low = self.optimiser.views(flat.float(), False), self.optimiser.views(flat.to(self.dtype), False)
        buffers = {k: v.to(torch.bfloat16).float() if stored == "bf16" else v for k, v in self.optimiser.buffers.items()}
        return {**{p.name: (full if p.full else low)[p.name] for p in self.optimiser.order}, **buffers}

    def stored(self):
        return {**self.optimiser.views(self.optimiser.average, False), **self.optimiser.buffers}
