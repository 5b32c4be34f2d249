"""The nets of src/models/{trm,dense,moe,looped}.rs for training: the same names, shapes and start values, the same values out.

In: the fields of a config.json. Out: a `Net`: its parameters, and its step as functions of them. Must not: keep weights, or know an
optimiser. Products run in the dtype of the weights given (bf16 or f32), norms, router and halting head in f32.
"""

import math

import torch
import torch.nn.functional as F
from problem import Refusal

# What the config of each family has; None: needed.
BLOCKS = {"seq_len": None, "vocab_size": None, "hidden_size": None, "num_heads": None, "expansion": None, "mlp_t": False, "rope_theta": 1e4,
          "rms_norm_eps": 1e-5, "puzzle_emb_ndim": 0, "puzzle_emb_len": 0, "num_puzzle_identifiers": 0}
FAMILIES = {
    "trm": {**BLOCKS, "pos_encodings": "rope", "H_cycles": None, "L_cycles": None, "L_layers": None, "H_layers": 0, "halt_max_steps": 16},
    "looped": {**BLOCKS, "pos_encodings": None, "num_layers": None, "loops": 1, "halt_max_steps": 16},
    "encoder": {**BLOCKS, "pos_encodings": None, "num_layers": None},
    "moe-encoder": {**BLOCKS, "pos_encodings": None, "num_layers": None, "num_experts": None, "experts_per_token": None, "expert_inner": None},
}
MOST = {"seq_len": 65_536, "vocab_size": 1024, "hidden_size": 8192, "num_heads": 1024, "H_cycles": 256, "L_cycles": 256, "L_layers": 256,
        "num_layers": 1024, "loops": 256, "halt_max_steps": 4096, "num_experts": 4096, "expert_inner": 65_536, "experts_per_token": 4096}


def inner_width(expansion, n):
    return -(-math.floor(expansion * n * 2 / 3 + 0.5) // 256) * 256


def rms(x, dim, eps, dtype):
    x = x.float()
    return (x * torch.rsqrt(x.square().mean(dim, keepdim=True) + eps)).to(dtype)


class TokensUp(torch.autograd.Function):
    """h [B, T, D] and W [T, N] to h'·W, [B, D, N]. Written out so that every product, of the backward pass too, reads and writes rows whose
    length is D or N, never T: 81 bf16 values in a row keep tensor cores from reading them."""

    @staticmethod
    def forward(ctx, h, w):
        ctx.save_for_backward(h, w)
        return torch.bmm(h.transpose(1, 2), w.expand(h.shape[0], -1, -1))

    @staticmethod
    def backward(ctx, dy):
        h, w = ctx.saved_tensors
        dh = torch.bmm(w.expand(h.shape[0], -1, -1), dy.transpose(1, 2))
        return dh, torch.bmm(h, dy).sum(0, dtype=torch.float32).to(w.dtype)


class TokensDown(torch.autograd.Function):
    """a [B, D, N] and W [T, N] to W·a', [B, T, D]."""

    @staticmethod
    def forward(ctx, a, w):
        ctx.save_for_backward(a, w)
        return torch.bmm(w.expand(a.shape[0], -1, -1), a.transpose(1, 2))

    @staticmethod
    def backward(ctx, dy):
        a, w = ctx.saved_tensors
        da = torch.bmm(dy.transpose(1, 2), w.expand(a.shape[0], -1, -1))
        return da, torch.bmm(dy, a).sum(0, dtype=torch.float32).to(w.dtype)


class Param:
    """`start`: a standard deviation (normal, cut off at two of them) or ("constant", value). `role`: weight or buffer. `full`: computed with
    in f32 whatever the precision. `split`: how many matrices lie in it one above the other, for Muon; 0: not a matrix of a block."""

    def __init__(self, name, shape, start, role="weight", full=False, split=0):
        self.name, self.shape, self.start, self.role, self.full, self.split = name, shape, start, role, full, split

    @property
    def elements(self):
        return math.prod(self.shape)


class Net:
    def __init__(self, config, path="config.json", q_bias=-5.0):
        def refuse(message, hint="see suites/train/README.md for the fields of `[model]`"):
            raise Refusal(f"{path}: [model] {message}", hint)

        self.family = config.get("model_type")
        if self.family not in FAMILIES:
            refuse(f"`model_type` is {self.family!r}; this trainer has {', '.join(FAMILIES)}", "other families are trained by `ergometer train`")
        c = {}
        for key, default in FAMILIES[self.family].items():
            c[key] = config.get(key, default)
            if c[key] is None:
                refuse(f"`{key}` is missing")
            whole = key in MOST
            if whole and (isinstance(c[key], bool) or not isinstance(c[key], int) or not 1 <= c[key] <= MOST[key]):
                refuse(f"`{key}` is {c[key]!r}; it must be a whole number between 1 and {MOST[key]}")
        for key in config:
            if key not in FAMILIES[self.family] and key != "model_type":
                refuse(f"`{key}` is no field of the family {self.family}; it has {', '.join(FAMILIES[self.family])}")
        if c["puzzle_emb_ndim"] or c["puzzle_emb_len"]:
            refuse("`puzzle_emb_ndim` is not 0: this trainer has no puzzle embeddings", "set it to 0, or train with `ergometer train`")
        if c["pos_encodings"] not in ("rope", "learned", "none"):
            refuse(f"`pos_encodings` is {c['pos_encodings']!r}; known: rope, learned, none")
        if not c["mlp_t"] and c["hidden_size"] % c["num_heads"]:
            refuse(f"`hidden_size` {c['hidden_size']} is not a multiple of `num_heads` {c['num_heads']}")
        if not c["mlp_t"] and c["pos_encodings"] == "rope" and c["hidden_size"] // c["num_heads"] % 2:
            refuse(f"heads of {c['hidden_size'] // c['num_heads']} features cannot be turned in pairs", "choose `num_heads` so that a head has an even number")
        number = lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
        for key, least, most in [("expansion", 0, 1024), ("rms_norm_eps", 0, 1), ("rope_theta", 1, 1e9)]:
            if not number(c[key]) or not least < c[key] <= most:
                refuse(f"`{key}` is {c[key]!r}; it must lie above {least} and at most {most}")
        if self.family == "moe-encoder" and not 1 <= c["experts_per_token"] <= c["num_experts"]:
            refuse(f"`experts_per_token` is {c['experts_per_token']}; it must lie between 1 and `num_experts`, {c['num_experts']}")
        self.c, self.dim, self.tokens, self.vocab = c, c["hidden_size"], c["seq_len"], c["vocab_size"]
        self.heads, self.eps, self.mlp_t = c["num_heads"], c["rms_norm_eps"], bool(c["mlp_t"])
        self.recursive = self.family in ("trm", "looped")
        self.max_steps = c["halt_max_steps"] if self.recursive else 1
        self.layers = c["L_layers"] if self.family == "trm" else c["num_layers"]
        self.prefix = "L_level." if self.family == "trm" else ""
        self.experts = (c["num_experts"], c["experts_per_token"], c["expert_inner"]) if self.family == "moe-encoder" else None
        self.inner = inner_width(c["expansion"], self.dim)
        self.inner_tokens = inner_width(c["expansion"], self.tokens)
        self.states = {"trm": ["H_init", "L_init"], "looped": ["z_init"]}.get(self.family, [])
        self.params = self.declare(q_bias)
        self.scale = math.sqrt(self.dim) * (math.sqrt(0.5) if c["pos_encodings"] == "learned" else 1.0)
        self.rope = None

    def declare(self, q_bias):
        d, t, out = self.dim, self.tokens, []

        def matrix(name, rows, columns, split=1, **more):
            out.append(Param(name, [rows, columns], 1 / math.sqrt(columns), split=split, **more))

        out.append(Param("embed_tokens.embedding_weight", [self.vocab, d], 1 / math.sqrt(d)))
        if self.c["pos_encodings"] == "learned":
            out.append(Param("embed_pos.embedding_weight", [t, d], 1 / math.sqrt(d)))
        for i in range(self.layers):
            name = f"{self.prefix}layers.{i}."
            if self.experts:
                n, _, inner = self.experts
                out.append(Param(name + "moe.router.weight", [n, d], 1 / math.sqrt(d), full=True))
                out.append(Param(name + "moe.gate_up_proj.weight", [n, 2 * inner, d], 1 / math.sqrt(d), split=2 * n))
                out.append(Param(name + "moe.down_proj.weight", [n, d, inner], 1 / math.sqrt(inner), split=n))
            else:
                matrix(name + "mlp.gate_up_proj.weight", 2 * self.inner, d, split=2)
                matrix(name + "mlp.down_proj.weight", d, self.inner)
            if self.mlp_t:
                matrix(name + "mlp_t.gate_up_proj.weight", 2 * self.inner_tokens, t, split=2)
                matrix(name + "mlp_t.down_proj.weight", t, self.inner_tokens)
            else:
                matrix(name + "self_attn.qkv_proj.weight", 3 * d, d, split=3)
                matrix(name + "self_attn.o_proj.weight", d, d)
        matrix("lm_head.weight", self.vocab, d, split=0)
        if self.recursive:
            out.append(Param("q_head.weight", [2, d], ("constant", 0.0), full=True))
            out.append(Param("q_head.bias", [2], ("constant", q_bias), full=True))
        for name in self.states:
            out.append(Param(name, [d], 1.0, role="buffer", full=True))
        return out

    def parameters(self):
        return sum(p.elements for p in self.params if p.role == "weight")

    def active_parameters(self):
        share = lambda p: self.experts[1] / self.experts[0] if ".moe." in p.name and "router" not in p.name else 1
        return sum(round(p.elements * share(p)) for p in self.params if p.role == "weight")

    def stack_flops(self):
        """FLOPs of the blocks on one row (multiply-add = 2), as src/graph/cost.rs counts: products alone, chosen experts alone."""
        d, t = self.dim, self.tokens
        mix = 2 * d * 3 * t * self.inner_tokens if self.mlp_t else 2 * t * 4 * d * d + 4 * t * t * d
        if self.experts:
            n, top, inner = self.experts
            feed = 2 * t * (n * d + top * 3 * d * inner)
        else:
            feed = 2 * t * 3 * d * self.inner
        return self.layers * (mix + feed)

    def calls(self, depth=None):
        """Runs of the blocks in a supervision step, and how many of them are differentiated."""
        if self.family == "trm":
            h, l = depth or (self.c["H_cycles"], self.c["L_cycles"])
            return h * (l + 1), l + 1
        n = depth[0] if depth else self.c["loops"] if self.family == "looped" else 1
        return n, n

    def step_flops(self, depth=None, differentiated=False):
        heads = 2 * self.tokens * self.dim * self.vocab + (4 * self.dim if self.recursive else 0)
        return self.calls(depth)[1 if differentiated else 0] * self.stack_flops() + heads

    def train_flops(self, depth=None):
        """Of one row of an optimiser step with one supervision step: forward, and twice the differentiated part for backward."""
        return self.step_flops(depth) + 2 * self.step_flops(depth, True)

    def prepare(self, w):
        """The weights of the blocks as `stack` takes them, from a name -> tensor."""
        out = []
        for i in range(self.layers):
            of = lambda part: w[f"{self.prefix}layers.{i}.{part}.weight"]
            if self.mlp_t:
                out += [of("mlp_t.gate_up_proj").t().contiguous(), of("mlp_t.down_proj")]
            else:
                out += [of("self_attn.qkv_proj"), of("self_attn.o_proj")]
            if self.experts:
                n, _, inner = self.experts
                down = of("moe.down_proj").permute(1, 0, 2).reshape(self.dim, n * inner)
                out += [of("moe.router"), of("moe.gate_up_proj").reshape(n * 2 * inner, self.dim), down]
            else:
                out += [of("mlp.gate_up_proj"), of("mlp.down_proj")]
        if not self.mlp_t and self.c["pos_encodings"] == "rope":
            out += self.turning(out[0].device)
        return out

    def turning(self, device):
        if self.rope is None or self.rope[0].device != device:
            n = self.dim // self.heads
            angle = torch.outer(torch.arange(self.tokens, dtype=torch.float64), self.c["rope_theta"] ** -(torch.arange(0, n, 2, dtype=torch.float64) / n))
            angle = torch.cat((angle, angle), -1)
            self.rope = [angle.cos().float().to(device), angle.sin().float().to(device)]
        return self.rope

    def attention(self, h, qkv, out, turning):
        b, t, d = h.shape
        q, k, v = F.linear(h, qkv).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if turning:
            cos, sin = turning

            def turned(u):
                u = u.float()
                half = u.shape[-1] // 2
                return (u * cos + torch.cat((-u[..., half:], u[..., :half]), -1) * sin).to(h.dtype)

            q, k = turned(q), turned(k)
        return F.linear(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d), out)

    def mixture(self, h, router, gate_up, down):
        """All experts on all tokens, those not chosen weighted by 0: as many FLOPs as experts, but no shape that depends on the data.
        Also what the balancing loss needs: the choices' share of each expert, and the router's mean probability for it."""
        n, top, inner = self.experts
        scores = F.linear(h.float(), router)
        best, chosen = scores.topk(top, -1)
        gates = torch.zeros_like(scores).scatter(-1, chosen, best.softmax(-1))
        gate, up = F.linear(h, gate_up).unflatten(-1, (n, 2, inner)).unbind(-2)
        y = F.linear((F.silu(gate) * up * gates.unsqueeze(-1).to(h.dtype)).flatten(-2), down)
        # counted by gates above 0: a softmax over the chosen is never 0
        load = (gates.detach() > 0).float().sum((0, 1))
        return y, load, scores.softmax(-1).mean((0, 1))

    def stack(self, h, w):
        """The blocks on h; with experts also the load and the mean probabilities, [layers, experts]."""
        w, turning = (w[:-2], w[-2:]) if not self.mlp_t and self.c["pos_encodings"] == "rope" else (w, None)
        each, loads, means = len(w) // self.layers, [], []
        for i in range(self.layers):
            own = w[i * each : (i + 1) * each]
            if self.mlp_t:
                gate, up = TokensUp.apply(h, own[0]).chunk(2, -1)
                h = rms(h + TokensDown.apply(F.silu(gate) * up, own[1]), 1, self.eps, h.dtype)
            else:
                h = rms(h + self.attention(h, own[0], own[1], turning), -1, self.eps, h.dtype)
            if self.experts:
                y, load, mean = self.mixture(h, *own[2:])
                loads.append(load)
                means.append(mean)
            else:
                gate, up = F.linear(h, own[2]).chunk(2, -1)
                y = F.linear(F.silu(gate) * up, own[3])
            h = rms(h + y, -1, self.eps, h.dtype)
        return (h, torch.stack(loads), torch.stack(means)) if self.experts else h

    def injected(self, z, injected, w):
        return self.stack(z + injected, w)

    def embed(self, tokens, w):
        """By a product with ones and zeros: its gradient is a product too, summed in f32, and no scatter into a dozen rows."""
        # rows of a whole number of 16 bytes, for the tensor cores
        pad = -self.vocab % 8
        table = F.pad(w["embed_tokens.embedding_weight"], (0, 0, 0, pad))
        ones = (tokens.unsqueeze(-1) == torch.arange(self.vocab + pad, device=tokens.device, dtype=tokens.dtype)).to(table.dtype)
        x = ones @ table
        if "embed_pos.embedding_weight" in w:
            x = x + w["embed_pos.embedding_weight"]
        return x * self.scale

    def initial(self, w, rows, dtype):
        return [w[name].to(dtype).expand(rows, self.tokens, self.dim).contiguous() for name in self.states]

    def outputs(self, z, w):
        pad = -self.vocab % 8
        logits = F.linear(z, F.pad(w["lm_head.weight"], (0, 0, 0, pad)))[..., : self.vocab].float()
        q = F.linear(z[:, 0].float(), w["q_head.weight"], w["q_head.bias"])[:, 0] if self.recursive else None
        return logits, q

    def step(self, run, state, x, w, blocks, depth=None):
        """One supervision step. `run`: the two functions `stack` and `injected`, compiled or not. Gives states, logits, q (None without a
        halting head) and, with experts, loads and means. The gradient flows as in the graph's `last_gradient_only`."""
        stack, injected = run
        extra = None
        if self.family == "trm":
            h_cycles, l_cycles = depth or (self.c["H_cycles"], self.c["L_cycles"])
            z_h, z_l = state
            if h_cycles > 1:
                with torch.no_grad():
                    plain, x_plain = [b.detach() for b in blocks], x.detach()
                    z_h, z_l = z_h.detach(), z_l.detach()
                    for _ in range(h_cycles - 1):
                        both = z_h + x_plain
                        for _ in range(l_cycles):
                            z_l = injected(z_l, both, plain)
                        z_h = injected(z_h, z_l, plain)
            if x.requires_grad:
                # all runs of the blocks have the same kind of arguments, so that they are compiled once
                z_l, z_h = (z if z.requires_grad else z.detach().requires_grad_() for z in (z_l, z_h))
            both = z_h + x
            for _ in range(l_cycles):
                z_l = injected(z_l, both, blocks)
            z_h = injected(z_h, z_l, blocks)
            state, z = [z_h, z_l], z_h
        elif self.family == "looped":
            z = state[0]
            if x.requires_grad and not z.requires_grad:
                z = z.detach().requires_grad_()
            for _ in range(depth[0] if depth else self.c["loops"]):
                z = injected(z, x, blocks)
            state = [z]
        elif self.experts:
            z, *extra = stack(x, blocks)
        else:
            z = stack(x, blocks)
        return (state, *self.outputs(z, w), extra)
