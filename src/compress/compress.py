"""Writes a reduced form of an ONNX file, for `ergometer compress`.

In: argv: a folder with the packages of ci/onnx/requirements.txt (empty: those of this Python), then the job as JSON with `source`, `out`, `to`,
`calibrate`, `per_channel`. Out: the file, what was done in its metadata (`compress.*`) and as one JSON line on stdout. Exit code 3: this file
cannot be reduced so, with the reason on stderr. Must not: change what the file's inputs and outputs are called, or their types.

int8: ONNX Runtime's quantiser. f16: the converter that ONNX Runtime ships. bf16: no tool of ONNX Runtime writes it, so `bf16` below does: weights
are stored rounded to bf16, and a Cast gives them to the graph as f32, which computes as before.
"""

import collections
import hashlib
import json
import logging
import os
import sys
import warnings

if sys.argv[1]:
    sys.path.insert(0, sys.argv[1])
job = json.loads(sys.argv[2])
logging.disable(logging.WARNING)
warnings.simplefilter("ignore")


def refuse(why):
    print(why, file=sys.stderr)
    sys.exit(3)


try:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    print(f"this Python lacks a package: {missing}", file=sys.stderr)
    sys.exit(4)

onnxruntime.set_default_logger_severity(3)
# rows that static quantisation runs the model on
MOST_ROWS = 512


def graphs(graph):
    """A graph and those within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from graphs(inner)


def loaded(path):
    """The model, what its nodes `Constant` hold among its initializers, where tools look for weights, and without what it says of shapes in
    between, which is wrong in some files."""
    model = onnx.load(path)
    for graph in graphs(model.graph):
        del graph.value_info[:]
        left = []
        for node in graph.node:
            held = [a.t for a in node.attribute if a.name == "value"] if node.op_type == "Constant" else []
            if held and len(held[0].dims) > 0:
                tensor = graph.initializer.add()
                tensor.CopyFrom(held[0])
                tensor.name = node.output[0]
            else:
                left.append(node)
        if len(left) < len(graph.node):
            left = [copied(node) for node in left]
            del graph.node[:]
            graph.node.extend(left)
    return model


def copied(message):
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def operators(model):
    return collections.Counter(node.op_type for graph in graphs(model.graph) for node in graph.node)


def data_files(path):
    """The file and the files of external data that it names."""
    model = onnx.load(path, load_external_data=False)
    tensors = [t for graph in graphs(model.graph) for t in graph.initializer]
    tensors += [a.t for graph in graphs(model.graph) for n in graph.node for a in n.attribute if a.HasField("t")]
    named = {e.value for t in tensors if t.data_location == TensorProto.EXTERNAL for e in t.external_data if e.key == "location"}
    return [path, *(os.path.join(os.path.dirname(path), name) for name in sorted(named))]


def size(path):
    return sum(os.path.getsize(file) for file in data_files(path))


def rows():
    """Examples for static quantisation: the first axis of each array of the `.npz` counts them."""
    arrays = np.load(job["calibrate"], allow_pickle=False)
    session = onnxruntime.InferenceSession(job["source"], providers=["CPUExecutionProvider"])
    inputs = {i.name: len(i.shape) for i in session.get_inputs()}
    if set(arrays.files) != set(inputs):
        refuse(f"{job['calibrate']} has the arrays {sorted(arrays.files)}, and the model takes {sorted(inputs)}")
    arrays = {name: arrays[name] for name in inputs}
    if len({len(a) for a in arrays.values()}) != 1 or not all(len(a) for a in arrays.values()):
        refuse(f"the arrays of {job['calibrate']} have unlike numbers of rows, or none: {({n: len(a) for n, a in arrays.items()})}")
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays.values()):
        refuse(f"{job['calibrate']} holds NaN or an infinity")
    count = min(MOST_ROWS, *(len(a) for a in arrays.values()))
    # a row without the axis of rows is given one where the input has one
    row = lambda name, i: arrays[name][i : i + 1] if arrays[name].ndim == inputs[name] else arrays[name][i]
    return [{name: row(name, i) for name in inputs} for i in range(count)]


def int8(external):
    from onnxruntime import quantization

    common = {"per_channel": job["per_channel"], "use_external_data_format": external}
    words = f"weights int8, {'one scale a channel' if job['per_channel'] else 'one scale a tensor'}"
    if not job["calibrate"]:
        quantization.quantize_dynamic(loaded(job["source"]), job["out"], weight_type=quantization.QuantType.QInt8, **common)
        return "quantize_dynamic", f"dynamic: {words}, activations uint8 by each call's range"

    examples = rows()

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = iter(examples)

        def get_next(self):
            return next(self.left, None)

    quantization.quantize_static(loaded(job["source"]), job["out"], Reader(), **common)
    return "quantize_static", f"static: {words}, activations int8 by the range on {len(examples)} rows of {os.path.basename(job['calibrate'])}"


def f16():
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(loaded(job["source"]), keep_io_types=True)
    in_order(model.graph)
    return model, "onnxruntime.transformers.float16", "inputs and outputs keep their types"


def in_order(graph):
    """Puts operators behind what they need, as the standard asks for; the converter leaves its casts at the end."""
    makes = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = lambda node: [*node.input, *(n for a in node.attribute if a.HasField("g") for g in graphs(a.g) for inner in g.node for n in inner.input)]
    done, order = set(), []
    for first in range(len(graph.node)):
        open_ = [first]
        while open_:
            at = open_[-1]
            missing = [makes[n] for n in needs(graph.node[at]) if n in makes and makes[n] not in done and makes[n] != at]
            if at in done or not missing:
                open_.pop()
                if at not in done:
                    done.add(at)
                    order.append(at)
            else:
                open_ += missing
    nodes = [copied(graph.node[i]) for i in order]
    del graph.node[:]
    graph.node.extend(nodes)


def bf16():
    model, note = loaded(job["source"]), ""
    standard = next(o for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if standard.version < 13:
        # Cast knows bf16 from there on
        note = f"; opset {standard.version} to 13 by onnx.version_converter"
        model = onnx.version_converter.convert_version(model, 13)
    for graph in graphs(model.graph):
        casts = []
        for tensor in graph.initializer:
            if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
                continue
            bits = np.ascontiguousarray(numpy_helper.to_array(tensor), dtype=np.float32).view(np.uint32)
            # to the nearest, of two the even one; NaN stays NaN
            rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
            rounded = np.where((bits & 0x7FFFFFFF) > 0x7F800000, np.uint16(0x7FC0), rounded)
            name, dims = tensor.name, list(tensor.dims)
            tensor.CopyFrom(helper.make_tensor(f"{name}.bf16", TensorProto.BFLOAT16, dims, rounded.astype("<u2").tobytes(), raw=True))
            casts.append(helper.make_node("Cast", [f"{name}.bf16"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
            for given in [i for i in graph.input if i.name == name]:
                graph.input.remove(given)
        nodes = [*casts, *(copied(node) for node in graph.node)]
        del graph.node[:]
        graph.node.extend(nodes)
    options = f"tensors of f32 with two axes and more are stored in bf16 and cast to f32, which the arithmetic stays in{note}"
    return model, "ergometer's own conversion", options


def main():
    source, out = job["source"], job["out"]
    before, bytes_before = operators(onnx.load(source, load_external_data=False)), size(source)
    external = len(data_files(source)) > 1
    if job["to"] == "int8":
        tool, options = int8(external)
        model = onnx.load(out)
    else:
        model, tool, options = {"f16": f16, "bf16": bf16}[job["to"]]()
    after = operators(model)
    changed = {name: after[name] - before[name] for name in sorted(before | after) if after[name] != before[name]}
    wanted = {"int8": {TensorProto.INT8, TensorProto.UINT8}, "f16": {TensorProto.FLOAT16}, "bf16": {TensorProto.BFLOAT16}}[job["to"]]
    tensors = [t for graph in graphs(model.graph) for t in graph.initializer]
    tensors += [a.t for graph in graphs(model.graph) for n in graph.node for a in n.attribute if a.HasField("t")]
    if not any(t.data_type in wanted and len(t.dims) > 0 for t in tensors):
        refuse(f"{tool} found no weight that it can hold in {job['to']}; the operators of the file are: {', '.join(sorted(before))}")
    digest = hashlib.sha256()
    with open(source, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    version = "" if job["to"] == "bf16" else f"onnxruntime {onnxruntime.__version__}, "
    facts = {
        "compress.to": job["to"],
        "compress.tool": f"{version}{tool}, onnx {onnx.__version__}",
        "compress.options": options,
        "compress.nodes": ", ".join(f"{name} {n:+d}" for name, n in changed.items()) or "none",
        "compress.source_sha256": digest.hexdigest(),
        "compress.bytes_before": str(bytes_before),
    }
    kept = [p for p in model.metadata_props if not p.key.startswith("compress.")]
    # the number of bytes stands in the file whose length it is
    length = 0
    for _ in range(4):
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        for key, value in {**facts, "compress.bytes_after": str(length)}.items():
            model.metadata_props.add(key=key, value=value)
        data = os.path.basename(out) + ".data"
        for left in [out, os.path.join(os.path.dirname(out), data)]:
            if os.path.exists(left):
                os.remove(left)
        if external:
            # saving moves the weights out of the model
            onnx.save(copied(model), out, save_as_external_data=True, location=data, size_threshold=1024)
        else:
            onnx.save(model, out)
        if size(out) == length:
            break
        length = size(out)
    try:
        onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        loads = None
    except Exception as error:
        loads = str(error)[:500]
    print(json.dumps({**facts, "compress.bytes_after": str(length), "loads": loads}))


try:
    main()
except Exception as error:
    refuse(f"{type(error).__name__}: {str(error)[:1000]}")
