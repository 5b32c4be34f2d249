"""Exports every model in every form, and holds each file to the standard's checker and to the reference interpreter.

In: the built program. Out: a line per file; exit code 1 if any is refused by `onnx.checker` or strays in ONNX Runtime. Must not: know how files
are made; what it knows of them is their metadata.
"""

import hashlib
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4  # f32-strict of src/parity.rs: of the largest value
STEPS = 3


def read_tensors(path):
    """Tensors of a safetensors file: a length, a JSON header, bytes."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    kinds = {"F32": np.float32, "I32": np.int32}
    body = data[8 + length :]
    return {
        name: np.frombuffer(body[slice(*t["data_offsets"])], kinds[t["dtype"]]).reshape(t["shape"])
        for name, t in header.items()
    }


def write_tensors(path, tensors):
    header, body = {}, b""
    for name, values in tensors.items():
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def random_encoder(folder, experts):
    """A net with random weights: attention, learned positions, a puzzle token; with experts, or with a dense MLP."""
    n, v, tokens, puzzle = 32, 11, 9, 20
    config = {"seq_len": tokens, "vocab_size": v, "hidden_size": n, "num_layers": 2, "num_heads": 4, "expansion": 1.0}
    config |= {"pos_encodings": "learned", "puzzle_emb_ndim": puzzle, "puzzle_emb_len": 1, "num_puzzle_identifiers": 3}
    config["model_type"] = "moe-encoder" if experts else "encoder"
    inner, count = (24, 6) if experts else (256, 0)
    if experts:
        config |= {"num_experts": count, "experts_per_token": 2, "expert_inner": inner}
    shapes = {"embed_tokens.embedding_weight": (v, n), "embed_pos.embedding_weight": (tokens + 1, n)}
    shapes |= {"puzzle_emb.weights": (3, puzzle), "lm_head.weight": (v, n)}
    for layer in ("layers.0", "layers.1"):
        shapes |= {f"{layer}.self_attn.qkv_proj.weight": (3 * n, n), f"{layer}.self_attn.o_proj.weight": (n, n)}
        if experts:
            shapes |= {f"{layer}.moe.router.weight": (count, n)}
            shapes |= {f"{layer}.moe.gate_up_proj.weight": (count, 2 * inner, n)}
            shapes |= {f"{layer}.moe.down_proj.weight": (count, n, inner)}
        else:
            shapes |= {f"{layer}.mlp.gate_up_proj.weight": (2 * inner, n), f"{layer}.mlp.down_proj.weight": (n, inner)}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(7)
    write_tensors(folder / "model.safetensors", {k: rng.standard_normal(s) / s[-1] ** 0.5 for k, s in shapes.items()})
    return folder


def recorded(program, model, path):
    """Vectors of the reference interpreter in a worker, for two rows of what the config allows."""
    config = json.loads((model / "config.json").read_text())
    rng = np.random.default_rng(3)
    inputs = rng.integers(0, config["vocab_size"], (2, config["seq_len"])).tolist()
    steps = 1 if "encoder" in config["model_type"] else STEPS
    job = {"protocol": 1, "model": str(model), "backend": "reference", "precision": "f64", "threads": 1, "batch": 2}
    files = (model / "config.json").read_bytes() + (model / "model.safetensors").read_bytes()
    job["model_hash"] = hashlib.sha256(files).hexdigest()
    job |= {"max_steps": steps, "halt": False, "inputs": inputs}
    job["puzzle_ids"] = [0, min(1, config.get("num_puzzle_identifiers", 1) - 1)]
    go = {"block": 0, "mode": "record", "n": 2, "steps": steps, "vectors": str(path)}
    lines = "".join(json.dumps(line) + "\n" for line in ({"job": job}, {"go": go}))
    subprocess.run([program, "worker", "--parent", str(os.getpid())], input=lines, text=True, check=True, stdout=subprocess.PIPE)
    return read_tensors(path)


def error(got, want):
    """As src/parity.rs: the largest difference over the largest value that is wanted."""
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max() / np.abs(want).max())


def compare(path, vectors, rows):
    """The largest error of every output and state over the steps, each from the recorded state before it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    net = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    meta = net.get_modelmeta().custom_metadata_map
    names = [i.name for i in net.get_inputs()]
    feed = {name: vectors[name][:rows].astype(np.int64).reshape(rows, -1) for name in names if name in vectors}
    states = [name for name in names if f"initial.{name}" in meta]
    for name in states:
        shape = vectors[f"{name}.1"].shape
        feed[name] = np.broadcast_to(np.float32(json.loads(meta[f"initial.{name}"])), (rows, *shape[1:]))
    worst, step = 0.0, 0
    while f"logits.{step + 1}" in vectors and step < STEPS:
        step += 1
        got = dict(zip([o.name for o in net.get_outputs()], net.run(None, feed)))
        want = {"logits": vectors[f"logits.{step}"]}
        want |= {f"next.{name}": vectors[f"{name}.{step}"] for name in states}
        if "q" in got:
            q = np.stack([vectors[f"q_halt.{step}"], vectors[f"q_continue.{step}"]], -1)[:rows]
            # q may lie near zero: over at least 1, as src/parity.rs has it
            halt = got.pop("q")[:, 0]
            if halt.shape != q.shape or not np.isfinite(halt).all():
                return float("inf")
            worst = max(worst, float(np.abs(halt - q).max() / max(1.0, np.abs(q).max())))
        assert got.keys() == want.keys(), f"outputs {sorted(got)}, not {sorted(want)}"
        worst = max([worst, *(error(got[name], want[name][:rows]) for name in want)])
        feed |= {name: want[f"next.{name}"][:rows] for name in states}
    assert step > 0, "nothing was compared"
    return worst


FORMS = [("int8", [], 0.05), ("int8", ["--per-channel"], 0.05), ("int8", ["--calibrate", "rows.npz"], 0.2), ("f16", [], 0.01), ("bf16", [], 0.03)]


def small_net(folder, external):
    """Two products with a bias and a Relu between; weights inside, or beside the file."""
    rng = np.random.default_rng(3)
    w, b, v = rng.normal(size=(16, 32)), rng.normal(size=32), rng.normal(size=(32, 4))
    tensors = [onnx.numpy_helper.from_array(t.astype(np.float32), name) for name, t in (("w", w), ("b", b), ("v", v))]
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make("MatMul", ["x", "w"], ["p"]), make("Add", ["p", "b"], ["a"]), make("Relu", ["a"], ["r"]), make("MatMul", ["r", "v"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "net", [value("x", 1, ["N", 16])], [value("y", 1, ["N", 4])], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = folder / ("beside.onnx" if external else "inside.onnx")
    onnx.save(model, path, save_as_external_data=external, location=path.name + ".data", size_threshold=0)
    rows = rng.normal(size=(64, 16)).astype(np.float32)
    np.savez(folder / "rows.npz", x=rows)
    return path, rows


def reduced(program):
    """Every reduced form that `ergometer compress` makes, held to the checker, to the original in ONNX Runtime, and run beside it."""
    failures, environment = 0, {**os.environ, "ERGOMETER_COMPRESS_PYTHON": sys.executable}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for external in (False, True):
            path, rows = small_net(folder, external)
            run = lambda path: onnxruntime.InferenceSession(str(path)).run(None, {"x": rows})[0]
            want = run(path)
            for i, (to, flags, limit) in enumerate(FORMS):
                out = folder / f"{path.stem}.{i}.onnx"
                command = [program, "compress", "--to", to, path, "--out", out, "--json", *flags]
                done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
                found = []
                if done.returncode:
                    found.append(done.stderr.strip())
                else:
                    onnx.checker.check_model(str(out))
                    facts = {p.key: p.value for p in onnx.load(out, load_external_data=False).metadata_props}
                    bytes_there = sum(f.stat().st_size for f in (out, folder / f"{out.name}.data") if f.exists())
                    if facts["compress.bytes_after"] != str(bytes_there) or facts["compress.to"] != to:
                        found.append(f"{bytes_there} bytes, its metadata say {facts}")
                    if json.loads(done.stdout)["loads"] is not None:
                        found.append("ONNX Runtime does not load it")
                    off = error(run(out), want)
                    if not 0 < off < limit:
                        found.append(f"off by {off:.1e}, {limit} is the most")
                    suite = folder / "pair.toml"
                    task = 'kind = "arrays"\nrandom = { x = { kind = "f32", shape = [16] } }\nexamples = 4\n'
                    suite.write_text(
                        f'[[model]]\nname = "net"\npath = "{path.name}"\n[[model]]\nname = "small"\npath = "{out.name}"\nreduces = "net"\n'
                        f'[[task]]\nname = "noise"\n{task}[defaults]\ntasks = ["noise"]\nbackends = ["tract"]\ninterleave = true\n'
                        f'[[cases]]\nmodels = ["net"]\n[[cases]]\nmodels = ["small"]\nprecisions = ["{to}"]\nmay_be_unavailable = true\n'
                    )
                    ran = subprocess.run([program, "run", suite, "--out", folder / out.stem, "--check"], capture_output=True, text=True)
                    if ran.returncode:
                        found.append(f"the suite ends with {ran.returncode}: {ran.stdout} {ran.stderr}")
                failures += bool(found)
                print(f"{path.stem:<14} compress --to {to} {' '.join(flags):<24} {'; '.join(found) or 'ok'}", flush=True)
    return failures


def main(program, *only):
    """Every model, or those with these names."""
    program = str(pathlib.Path(program).resolve())
    failures = files = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        models = sorted(p.parent for d in ("tests/golden", "suites/models") for p in ROOT.glob(f"{d}/*/model.safetensors"))
        # language models are not exported yet
        config = lambda model: json.loads((model / "config.json").read_text())
        models = [m for m in models if not any(a.endswith("ForCausalLM") for a in config(m).get("architectures", []))]
        models += [random_encoder(scratch / "random-dense", False), random_encoder(scratch / "random-moe", True)]
        models = [model for model in models if not only or model.name in only]
        assert models, f"no model is called {only}"
        for model in models:
            golden = model / "vectors.safetensors"
            vectors = read_tensors(golden) if golden.exists() else recorded(program, model, scratch / f"{model.name}.v")
            moe = "moe" in json.loads((model / "config.json").read_text())["model_type"]
            forms = itertools.product(("dynamic", "2"), ("17", "23"), ("all", "routed") if moe else ("all",), (False, True))
            for batch, opset, experts, external in forms:
                path = scratch / model.name / f"{batch}-{opset}-{experts}-{external}" / "net.onnx"
                path.parent.mkdir(parents=True)
                command = [program, "export", "--model", str(model), "--to", "onnx", "--batch", batch, "--opset", opset]
                command += ["--experts", experts, "--json", *(["--external"] if external else []), str(path)]
                said = json.loads(subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE).stdout)
                files += 1
                found = []
                try:
                    # by path: the checker looks for weights beside the file
                    onnx.checker.check_model(str(path), full_check=True)
                    domains = {node.domain for node in onnx.load(path, load_external_data=False).graph.node}
                    if domains - {"", "ai.onnx"}:
                        found.append(f"operators of {domains}")
                    rows = [2] if batch == "2" else [1, 2]
                    worst = max(compare(str(path), vectors, n) for n in rows)
                    if not worst <= TOLERANCE:
                        found.append(f"error {worst:.1e}, at most {TOLERANCE:.0e}")
                    if (batch, opset, experts, external) == ("dynamic", "17", "all", False):
                        # the lines that the command shows must run as they stand
                        exec("\n".join(said["python"]), {})
                except Exception as e:  # each file is judged, whatever became of the one before
                    found.append(f"{type(e).__name__}: {e}")
                failures += bool(found)
                where = "beside" if external else "inside"
                verdict = "; ".join(found) if found else f"{worst:.1e}"
                print(f"{model.name:<14} batch {batch:<7} opset {opset} {experts:<6} {where:<6} {said['bytes']:>9} B  {verdict}", flush=True)
    print(f"{files} files of {len(models)} models, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}: {failures} failed")
    failures += reduced(str(pathlib.Path(program).resolve()))
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
