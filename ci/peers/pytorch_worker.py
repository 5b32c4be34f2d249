#!/usr/bin/env python3
"""PyTorch as a worker of ergometer: the TRM, encoder and mixture-of-experts blocks of src/models/blocks.rs written as one would in PyTorch,
on processors. In bf16 weights, products and the stream between blocks are bf16, and norms are computed in f32, as the released TRM does."""

import os
import shutil
import sys

import peer


class PyTorch:
    name = "pytorch"

    def version(self):
        try:
            import torch
        except ImportError as error:
            raise peer.Refusal(f"the Python package torch is not here: {error}", f"{peer.INSTALL} --pytorch") from error
        return torch.__version__

    def describe(self, job):
        # compilers at work beside the net would be metered with it
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        import torch

        if job["precision"] not in ("f32", "bf16"):
            raise peer.Refusal(f"this worker computes in f32 and bf16, not in {job['precision']}")
        if job["precision"] == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            raise peer.Refusal("oneDNN has no bf16 on this processor")
        torch.set_num_threads(job["threads"])
        torch.set_grad_enabled(False)
        return {
            "torch.cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "torch.onednn": str(torch.backends.mkldnn.is_available()),
            "torch.mkl": str(torch.backends.mkl.is_available()),
            "python": sys.version.split()[0],
        }

    def isa(self):
        import torch

        return torch.backends.cpu.get_cpu_capability().lower()

    def settings(self, job):
        """`compile`: the block through TorchInductor, where there is a C++ compiler. `linear`: F.linear, or weights packed once for oneDNN.
        `tokens`: mixing along the tokens as a product from the left, or between two transpositions."""
        default = {"compile": "no", "linear": "plain", "tokens": "left"}
        config = peer.Model(job).config
        ways = ["left", "transposed"] if config.get("mlp_t") else ["left"]
        settings = [{**default, "tokens": way} for way in ways]
        settings.append({**default, "linear": "packed", "tokens": ways[-1]})
        # a mixture would be compiled anew for every number of tokens that an expert is sent
        if config["model_type"] != "moe-encoder" and shutil.which(os.environ.get("CXX", "g++")):
            settings += [{**default, "compile": "yes", "tokens": way} for way in ways]
            settings += [{**default, "compile": "freezing", "tokens": ways[-1]}]
        return settings

    def load(self, job, model, setting):
        import torch

        kind = model.config["model_type"]
        if kind not in ("trm", "encoder", "moe-encoder"):
            raise peer.Refusal(f"this worker has no net of the kind {kind}; it has trm, encoder and moe-encoder")
        if kind != "trm" and model.prefix:
            raise peer.Refusal("this worker has no puzzle embeddings for encoders")
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
        with torch.inference_mode():
            return engine_class()(model, dtype, job["batch"], setting)


def engine_class():
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Linear(nn.Module):
        """x · Wᵀ with a weight as it is, or packed once for oneDNN and so many rows of x."""

        def __init__(self, weight, dtype, packed):
            super().__init__()
            weight = torch.tensor(weight).to(dtype)
            self.packed = packed
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, packed) if packed else nn.Buffer(weight)

        def forward(self, x):
            if self.packed:
                return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
            return F.linear(x, self.weight)

    def rms(x, axis, eps):
        f = x.float()
        return (f * torch.rsqrt(f.square().mean(axis, keepdim=True) + eps)).to(x.dtype)

    class Gated(nn.Module):
        """The gated MLP along the last axis."""

        def __init__(self, gate_up, down):
            super().__init__()
            self.gate_up, self.down = gate_up, down

        def forward(self, x):
            gate, up = self.gate_up(x).chunk(2, -1)
            return self.down(F.silu(gate) * up)

    class GatedLeft(nn.Module):
        """The gated MLP along the tokens, as products from the left: nothing is transposed."""

        def __init__(self, gate_up, down, dtype):
            super().__init__()
            self.gate_up, self.down = (nn.Buffer(torch.tensor(w).to(dtype)) for w in (gate_up, down))

        def forward(self, x):
            gate, up = torch.matmul(self.gate_up, x).chunk(2, -2)
            return torch.matmul(self.down, F.silu(gate) * up)

    class Experts(nn.Module):
        """Each token goes to the `top_k` best of its router, weighted by the softmax over their scores."""

        def __init__(self, router, experts, top_k):
            super().__init__()
            self.router, self.experts, self.top_k = router, nn.ModuleList(experts), top_k

        def forward(self, x):
            rows = x.reshape(-1, x.shape[-1])
            scores, chosen = self.router(rows).float().topk(self.top_k, -1)
            weights = scores.softmax(-1).to(x.dtype)
            out = torch.zeros_like(rows)
            for e, expert in enumerate(self.experts):
                token, place = (chosen == e).nonzero(as_tuple=True)
                if len(token):
                    out.index_add_(0, token, expert(rows[token]) * weights[token, place, None])
            return out.view_as(x)

    class Attention(nn.Module):
        def __init__(self, qkv, out, heads, rope):
            super().__init__()
            self.qkv, self.out, self.heads, self.rope = qkv, out, heads, rope is not None
            if rope is not None:
                self.cos, self.sin = (nn.Buffer(t) for t in rope)

        def turned(self, v):
            half = v.shape[-1] // 2
            return v * self.cos + torch.cat((-v[..., half:], v[..., :half]), -1) * self.sin

        def forward(self, x):
            b, t, d = x.shape
            q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
            if self.rope:
                q, k = self.turned(q), self.turned(k)
            return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))

    class Net(nn.Module):
        """The blocks, applied to the sum of two values."""

        def __init__(self, blocks, mlp_t, left, eps):
            super().__init__()
            self.mixes, self.feeds = (nn.ModuleList(part) for part in zip(*blocks))
            self.mlp_t, self.left, self.eps = mlp_t, left, eps

        def forward(self, z, injected):
            h = z if injected is None else z + injected
            for mix, feed in zip(self.mixes, self.feeds):
                if self.mlp_t and not self.left:
                    h = h.transpose(1, 2)
                    h = rms(h + mix(h), -1, self.eps).transpose(1, 2)
                else:
                    h = rms(h + mix(h), -2 if self.mlp_t else -1, self.eps)
                h = rms(h + feed(h), -1, self.eps)
            return h

    class Engine:
        def __init__(self, model, dtype, batch, setting):
            w, c = model.weights, model.config
            self.dtype, self.batch, self.prefix = dtype, batch, model.prefix
            self.state_names = list(model.states)
            self.cycles = (c.get("H_cycles"), c.get("L_cycles"))
            packed, left = setting["linear"] == "packed", setting["tokens"] == "left"
            linear = lambda weight, rows=batch * model.tokens: Linear(weight, dtype, rows if packed else None)
            d, heads, eps = c["hidden_size"], c["num_heads"], c.get("rms_norm_eps", 1e-5)
            rope = None
            if c["pos_encodings"] == "rope":
                half = torch.arange(0, d // heads, 2, dtype=torch.float64) / (d // heads)
                angle = torch.outer(torch.arange(model.tokens, dtype=torch.float64), c.get("rope_theta", 1e4) ** -half)
                angle = torch.cat((angle, angle), -1)
                rope = angle.cos().to(dtype), angle.sin().to(dtype)
            mlp_t = bool(c.get("mlp_t"))
            prefix, layers = ("L_level.", c["L_layers"]) if model.states else ("", c["num_layers"])

            def block(i):
                name = lambda part: w[f"{prefix}layers.{i}.{part}.weight"]
                if mlp_t and left:
                    mix = GatedLeft(name("mlp_t.gate_up_proj"), name("mlp_t.down_proj"), dtype)
                elif mlp_t:
                    mix = Gated(*(linear(name(f"mlp_t.{part}"), batch * d) for part in ("gate_up_proj", "down_proj")))
                else:
                    mix = Attention(linear(name("self_attn.qkv_proj")), linear(name("self_attn.o_proj")), heads, rope)
                if c["model_type"] == "moe-encoder":
                    pairs = zip(name("moe.gate_up_proj"), name("moe.down_proj"))
                    experts = [Gated(linear(gate_up), linear(down)) for gate_up, down in pairs]
                    # a rounded score may choose another expert
                    router = Linear(name("moe.router"), torch.float32, None)
                    return mix, Experts(In32(router), experts, c["experts_per_token"])
                return mix, Gated(linear(name("mlp.gate_up_proj")), linear(name("mlp.down_proj")))

            self.net = Net([block(i) for i in range(layers)], mlp_t, left, eps).eval()
            if setting["compile"] != "no":
                options = {"freezing": True} if setting["compile"] == "freezing" else {}
                self.net = torch.compile(self.net, dynamic=False, options=options)
            learned = c["pos_encodings"] == "learned"
            scale = d**0.5 * (0.5**0.5 if learned else 1)
            scaled = lambda name: (torch.tensor(w[name]) * scale).to(dtype)
            self.positions = scaled("embed_pos.embedding_weight") if learned else None
            self.embedding = scaled("embed_tokens.embedding_weight")
            self.puzzles = None
            if self.prefix:
                table = scaled("puzzle_emb.weights")
                self.puzzles = F.pad(table, (0, self.prefix * d - table.shape[1])).view(-1, self.prefix, d)
            self.head = torch.tensor(w["lm_head.weight"]).to(dtype)
            self.q_head = None
            if "q_head.weight" in w:
                self.q_head = torch.tensor(w["q_head.weight"]), torch.tensor(w["q_head.bias"])
            start = lambda v: torch.tensor(v).to(dtype).expand(batch, model.tokens, d).contiguous()
            self.initial = [start(v) for v in model.states.values()]

        def report(self):
            return {"torch.threads": str(torch.get_num_threads())}

        @torch.inference_mode()
        def begin(self, tokens, ids):
            x = F.embedding(torch.from_numpy(tokens), self.embedding)
            self.x = x if self.puzzles is None else torch.cat((self.puzzles[torch.from_numpy(ids)], x), 1)
            if self.positions is not None:
                self.x = self.x + self.positions
            self.state = list(self.initial)

        @torch.inference_mode()
        def step(self):
            if not self.state:
                h = self.net(self.x, None)
            else:
                z_h, z_l = self.state
                for _ in range(self.cycles[0]):
                    injected = z_h + self.x
                    for _ in range(self.cycles[1]):
                        z_l = self.net(z_l, injected)
                    z_h = self.net(z_h, z_l)
                self.state = [z_h, z_l]
                h = z_h
            logits = F.linear(h[:, self.prefix :], self.head).float().numpy()
            q = F.linear(h[:, 0].float(), *self.q_head).numpy() if self.q_head else None
            return logits, q

        def states(self):
            return [z.float().numpy() for z in self.state]

        def set_states(self, values):
            self.state = [torch.tensor(v).to(self.dtype) for v in values]

    class In32(nn.Module):
        """A layer in f32, whatever comes in."""

        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x.float())

    return Engine


if __name__ == "__main__":
    sys.exit(peer.Worker(PyTorch()).run())
