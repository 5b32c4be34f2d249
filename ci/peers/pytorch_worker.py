#!/usr/bin/env python3
"""PyTorch as a worker of ergometer: the TRM, looped, encoder and mixture-of-experts blocks of src/models/blocks.rs written as one would in PyTorch,
on processors, or on an NVIDIA board with the option `device = "cuda"`. In bf16 weights, products and the stream between blocks are bf16, and
norms are computed in f32, as the released TRM does. In f32 a board computes in f32: TF32 is off.

On a board the kernels of a step are captured once as a CUDA graph and replayed, since small nets otherwise wait for their launches."""

import os
import re
import shutil
import sys

import peer


class PyTorch:
    name = "pytorch"
    devices = ("cpu", "cuda")

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
        torch.set_num_threads(job["threads"])
        torch.set_grad_enabled(False)
        self.device = torch.device("cpu")
        if peer.device_of(self, job) == "cuda":
            found = board(torch)
            if job["precision"] == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
                raise peer.Refusal(f"{found['cuda.board']} has no bf16")
            self.device = torch.device("cuda:0")
            return {**found, "python": sys.version.split()[0]}
        if job["precision"] == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            raise peer.Refusal("oneDNN has no bf16 on this processor")
        return {
            "device": "cpu",
            "torch.cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "torch.onednn": str(torch.backends.mkldnn.is_available()),
            "torch.mkl": str(torch.backends.mkl.is_available()),
            "python": sys.version.split()[0],
        }

    def isa(self):
        import torch

        return None if self.device.type == "cuda" else torch.backends.cpu.get_cpu_capability().lower()

    def settings(self, job):
        """`compile`: the block through TorchInductor, where there is a C++ compiler. `linear`: F.linear, or weights packed once for oneDNN.
        `tokens`: mixing along the tokens as a product from the left, or between two transpositions. On a board `graph`: a step as a CUDA graph,
        or kernel by kernel; `experts`: every expert computes every token, or only those that are sent to it, whose number a graph cannot know."""
        if self.device.type == "cuda":
            return self.settings_of_board(job)
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

    def settings_of_board(self, job):
        default = {"compile": "no", "graph": "step", "tokens": "left", "experts": "all"}
        config = peer.Model(job).config
        settings = [default]
        if config.get("mlp_t"):
            settings.append({**default, "tokens": "transposed"})
        if config["model_type"] == "moe-encoder":
            settings.append({**default, "graph": "no", "experts": "routed"})
        if shutil.which(os.environ.get("CC", "gcc")):
            settings += [{**setting, "compile": "yes"} for setting in settings if setting["graph"] == "step"]
        return settings + [{**default, "graph": "no"}]

    def load(self, job, model, setting):
        import torch

        kind = model.config["model_type"]
        if kind not in ("trm", "looped", "encoder", "moe-encoder"):
            raise peer.Refusal(f"this worker has no net of the kind {kind}; it has trm, looped, encoder and moe-encoder")
        if kind != "trm" and model.prefix:
            raise peer.Refusal(f"this worker has no puzzle embeddings for nets of the kind {kind}")
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
        body, on_processor, on_board = classes()
        with torch.inference_mode():
            # what is made without a place of its own is made there
            with self.device:
                body = body(model, dtype, job["batch"], setting)
            if self.device.type == "cpu":
                return on_processor(body, setting)
            return on_board(body, self.device, setting, job["halt"])


def board(torch):
    """What the board is that CUDA shows first; refuses where it shows none."""
    hint = "needs an NVIDIA board, its driver, and a PyTorch built for CUDA; ERGOMETER_PEERS_PYTHON names the Python that has it"
    if torch.version.cuda is None:
        raise peer.Refusal(f"PyTorch {torch.__version__} is built without CUDA", hint)
    if not torch.cuda.is_available():
        raise peer.Refusal(f"PyTorch {torch.__version__} finds no board that CUDA {torch.version.cuda} can use", hint)
    try:
        torch.zeros(1, device="cuda:0")
        about = torch.cuda.get_device_properties(0)
    except (RuntimeError, AssertionError) as error:
        raise peer.Refusal(f"CUDA cannot use its first board: {error}".splitlines()[0], hint) from error
    # PyTorch leaves out what NVML and nvidia-smi put before it
    uuid = re.search(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", str(getattr(about, "uuid", "")))
    return {
        # the meters know boards by this name
        "device": f"cuda:GPU-{uuid[0]}" if uuid else "cuda:0",
        "cuda.board": about.name,
        "cuda.capability": f"{about.major}.{about.minor}",
        "cuda.memory": f"{about.total_memory} B",
        "torch.cuda": torch.version.cuda,
        "torch.cudnn": str(torch.backends.cudnn.version()),
        "torch.tf32": str(torch.backends.cuda.matmul.allow_tf32),
    }


def classes():
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
        if x.is_cuda and axis == -1:
            # one kernel, in f32 within
            return F.rms_norm(x, x.shape[-1:], None, eps)
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
            gate_up, down = (torch.tensor(w).to(dtype) for w in (gate_up, down))
            # rows of as many values as there are tokens, 81 say, are not aligned as a board's matrix units want them
            self.gate_up = nn.Buffer(gate_up.t().contiguous().t() if gate_up.is_cuda else gate_up)
            self.down = nn.Buffer(down)

        def forward(self, x):
            gate, up = torch.matmul(self.gate_up, x).chunk(2, -2)
            return torch.matmul(self.down, F.silu(gate) * up)

    class Experts(nn.Module):
        """Each token goes to the `top_k` best of its router, weighted by the softmax over their scores. `routed`: only to those."""

        def __init__(self, router, experts, top_k, routed):
            super().__init__()
            self.router, self.experts, self.top_k, self.routed = router, nn.ModuleList(experts), top_k, routed

        def forward(self, x):
            rows = x.reshape(-1, x.shape[-1])
            scores, chosen = self.router(rows).float().topk(self.top_k, -1)
            # what experts say is added up in f32
            weights = scores.softmax(-1)
            out = torch.zeros_like(rows, dtype=torch.float32)
            if not self.routed:
                dense = torch.zeros(len(rows), len(self.experts), device=x.device).scatter_(1, chosen, weights)
                for e, expert in enumerate(self.experts):
                    out += expert(rows) * dense[:, e, None]
                return out.to(x.dtype).view_as(x)
            for e, expert in enumerate(self.experts):
                token, place = (chosen == e).nonzero(as_tuple=True)
                if len(token):
                    out.index_add_(0, token, expert(rows[token]) * weights[token, place, None])
            return out.to(x.dtype).view_as(x)

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

    class Body:
        """The net and its edges: rows to embeddings, states through a step, states to outputs. All on the default device."""

        def __init__(self, model, dtype, batch, setting):
            w, c = model.weights, model.config
            self.dtype, self.batch, self.prefix = dtype, batch, model.prefix
            self.state_names, self.length = list(model.states), c["seq_len"]
            self.cycles, self.loops = (c.get("H_cycles"), c.get("L_cycles")), c.get("loops", 1)
            packed, left = setting.get("linear") == "packed", setting["tokens"] == "left"
            linear = lambda weight, rows=batch * model.tokens: Linear(weight, dtype, rows if packed else None)
            d, heads, eps = c["hidden_size"], c["num_heads"], c.get("rms_norm_eps", 1e-5)
            rope = None
            positions = c.get("pos_encodings", "rope")
            if positions == "rope":
                half = torch.arange(0, d // heads, 2, dtype=torch.float64) / (d // heads)
                angle = torch.outer(torch.arange(model.tokens, dtype=torch.float64), c.get("rope_theta", 1e4) ** -half)
                angle = torch.cat((angle, angle), -1)
                rope = angle.cos().to(dtype), angle.sin().to(dtype)
            mlp_t = bool(c.get("mlp_t"))
            prefix, layers = ("L_level.", c["L_layers"]) if c["model_type"] == "trm" else ("", c["num_layers"])

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
                    return mix, Experts(In32(router), experts, c["experts_per_token"], setting.get("experts") != "all")
                return mix, Gated(linear(name("mlp.gate_up_proj")), linear(name("mlp.down_proj")))

            self.net = Net([block(i) for i in range(layers)], mlp_t, left, eps).eval()
            if setting["compile"] != "no":
                options = {"freezing": True} if setting["compile"] == "freezing" else {}
                self.net = torch.compile(self.net, dynamic=False, options=options)
            learned = positions == "learned"
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

        def embed(self, tokens, ids):
            x = F.embedding(tokens, self.embedding)
            x = x if self.puzzles is None else torch.cat((self.puzzles[ids], x), 1)
            return x if self.positions is None else x + self.positions

        def advance(self, x, state):
            """A step: the states after it, and what the heads read."""
            if not state:
                return [], self.net(x, None)
            if len(state) == 1:
                (z,) = state
                for _ in range(self.loops):
                    z = self.net(z, x)
                return [z], z
            z_h, z_l = state
            for _ in range(self.cycles[0]):
                injected = z_h + x
                for _ in range(self.cycles[1]):
                    z_l = self.net(z_l, injected)
                z_h = self.net(z_h, z_l)
            return [z_h, z_l], z_h

        def logits(self, h):
            return F.linear(h[:, self.prefix :], self.head).float()

        def q(self, h):
            return F.linear(h[:, 0].float(), *self.q_head) if self.q_head else None

    class OnProcessor:
        def __init__(self, body, setting):
            self.body, self.state_names = body, body.state_names
            # what is compiled or packed is so for one number of rows
            self.any_rows = setting["compile"] == "no" and setting["linear"] == "plain"

        def report(self):
            return {"torch.threads": str(torch.get_num_threads())}

        @torch.inference_mode()
        def begin(self, tokens, ids):
            self.x = self.body.embed(torch.from_numpy(tokens), torch.from_numpy(ids))
            self.state = list(self.body.initial)

        @torch.inference_mode()
        def step(self):
            self.state, self.h = self.body.advance(self.x, self.state)

        @torch.inference_mode()
        def outputs(self):
            return self.body.logits(self.h).numpy(), self.halting()

        @torch.inference_mode()
        def halting(self):
            q = self.body.q(self.h)
            return None if q is None else q.numpy()

        @torch.inference_mode()
        def keep(self, rows):
            if self.any_rows:
                self.x, *self.state = (v[torch.from_numpy(rows)] for v in (self.x, *self.state))
            return self.any_rows

        def states(self):
            return [z.float().numpy() for z in self.state]

        def set_states(self, values):
            self.state = [torch.tensor(v).to(self.body.dtype) for v in values]

    class Lane:
        """So many rows on a board: buffers that stay where they are, and the kernels between them, captured once or launched each time."""

        def __init__(self, body, device, rows, captured):
            self.body, self.rows = body, rows
            self.tokens = torch.zeros((rows, body.length), dtype=torch.int64, device=device)
            self.ids = torch.zeros(rows, dtype=torch.int64, device=device)
            self.x = body.embed(self.tokens, self.ids)
            self.state = [z[:rows].clone() for z in body.initial]
            self.h = torch.empty_like(self.x)
            self.logits = torch.empty((rows, body.length, len(body.head)), device=device)
            self.q = torch.empty((rows, 2), device=device) if body.q_head else None
            # pages that a board reads and writes by itself
            pinned = lambda v: None if v is None else torch.empty(v.shape, dtype=v.dtype, pin_memory=device.type == "cuda")
            self.tokens_here, self.ids_here, self.logits_here, self.q_here = map(pinned, (self.tokens, self.ids, self.logits, self.q))
            if captured:
                self.capture(device)

        def capture(self, device):
            work = {"enter": self.enter, "advance": self.advance, "read": self.read}
            if self.rows < self.body.batch:
                # rows come here from larger lanes
                del work["enter"]
            # whatever libraries set up at their first calls is set up before
            side = torch.cuda.Stream(device)
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                for do in 2 * list(work.values()):
                    do()
            torch.cuda.current_stream(device).wait_stream(side)
            torch.cuda.synchronize(device)
            for name, do in work.items():
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    do()
                setattr(self, name, graph.replay)

        def enter(self):
            self.x.copy_(self.body.embed(self.tokens, self.ids))
            for z, initial in zip(self.state, self.body.initial):
                z.copy_(initial[: self.rows])

        def advance(self):
            after, h = self.body.advance(self.x, self.state)
            for z, new in zip(self.state, after):
                z.copy_(new)
            self.h.copy_(h)
            if self.q is not None:
                self.q.copy_(self.body.q(h))

        def read(self):
            self.logits.copy_(self.body.logits(self.h))

    class OnBoard:
        """Full batches on one lane; where rows halt, smaller lanes for those that go on."""

        def __init__(self, body, device, setting, halts):
            self.device, self.state_names = device, body.state_names
            sizes = [body.batch]
            # compiled kernels are made for one number of rows
            while halts and self.state_names and setting["compile"] == "no" and sizes[-1] > 1:
                sizes.append(-(-sizes[-1] // 2))
            self.lanes = [Lane(body, device, rows, setting["graph"] == "step") for rows in sizes]
            self.lane = self.lanes[0]

        def report(self):
            found = {"torch.lanes": " ".join(str(lane.rows) for lane in self.lanes)}
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
                found["cuda.memory_allocated"] = f"{torch.cuda.max_memory_allocated(self.device)} B at most, while loading"
                found["cuda.memory_reserved"] = f"{torch.cuda.memory_reserved(self.device)} B after loading"
            return found

        @torch.inference_mode()
        def begin(self, tokens, ids):
            self.lane = lane = self.lanes[0]
            lane.tokens_here.numpy()[:], lane.ids_here.numpy()[:] = tokens, ids
            lane.tokens.copy_(lane.tokens_here, non_blocking=True)
            lane.ids.copy_(lane.ids_here, non_blocking=True)
            lane.enter()

        @torch.inference_mode()
        def step(self):
            self.lane.advance()

        @torch.inference_mode()
        def outputs(self):
            lane = self.lane
            lane.read()
            lane.logits_here.copy_(lane.logits, non_blocking=True)
            q = self.halting()
            self.wait()
            return lane.logits_here.numpy(), q

        @torch.inference_mode()
        def halting(self):
            if self.lane.q is None:
                return None
            self.lane.q_here.copy_(self.lane.q, non_blocking=True)
            self.wait()
            return self.lane.q_here.numpy()

        def wait(self):
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        @torch.inference_mode()
        def keep(self, rows):
            smaller = [lane for lane in self.lanes if len(rows) <= lane.rows < self.lane.rows]
            if not smaller:
                return False
            before, self.lane = self.lane, smaller[-1]
            # a lane is always full: the last row fills what is left
            at = torch.from_numpy(rows).to(self.device)
            at = torch.cat((at, at[-1:].expand(self.lane.rows - len(rows))))
            for to, of in zip((self.lane.x, *self.lane.state), (before.x, *before.state)):
                torch.index_select(of, 0, at, out=to)
            return True

        def states(self):
            return [z.float().cpu().numpy() for z in self.lane.state]

        @torch.inference_mode()
        def set_states(self, values):
            for z, value in zip(self.lane.state, values):
                z.copy_(torch.tensor(value))

    class In32(nn.Module):
        """A layer in f32, whatever comes in."""

        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x.float())

    return Body, OnProcessor, OnBoard


if __name__ == "__main__":
    sys.exit(peer.Worker(PyTorch()).run())
