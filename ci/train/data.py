"""Examples from files that `ergometer dataset` wrote, and random symmetric copies of Sudoku and mazes made where the net is trained.

In: safetensors files with `tokens` and `answer` U8 [N, T], `difficulty` U32 [N] and metadata, as they are or packed by pack.py. Out: a
`Dataset`; batches of a `Source`. Must not: make a puzzle, or train on a file of the held-out side.
"""

import itertools
import json
import math
import os
import struct
from dataclasses import dataclass, field

import numpy as np
import torch
from problem import Refusal

FORMAT = "ergometer-dataset-1"
HINT = "make it with `ergometer dataset TASK-FILE --split SPLIT --examples N --out FILE`"
TYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "I64": np.int64, "F32": np.float32, "BF16": np.uint16, "BOOL": np.bool_, "F64": np.float64}


def read_safetensors(path, hint=HINT):
    """Tensors by name and the metadata; header and sizes are checked before anything is believed."""
    try:
        if not os.path.isfile(path):
            raise Refusal(f"{path}: there is no such file", hint)
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise Refusal(f"{path}: cannot be read: {error.strerror}", hint) from error

    def damaged(why):
        return Refusal(f"{path}: it is no whole safetensors file: {why}", hint)

    if len(data) < 8:
        raise damaged(f"{len(data)} bytes")
    (n,) = struct.unpack_from("<Q", data)
    if n > len(data) - 8:
        raise damaged(f"a header of {n} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[8 : 8 + n])
        metadata = header.pop("__metadata__", {})
        tensors, end = {}, 0
        for name, entry in header.items():
            kind = np.dtype(TYPES[entry["dtype"]])
            start, stop = entry["data_offsets"]
            count = int(np.prod(entry["shape"], dtype=np.int64))
            if not 0 <= start <= stop or stop - start != count * kind.itemsize or stop > len(data) - 8 - n:
                raise damaged(f"tensor `{name}` lies outside of it; was it cut off?")
            tensors[name] = np.frombuffer(data, kind, count, 8 + n + start).reshape(entry["shape"])
            end = max(end, stop)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(f"its header: {error!r}") from error
    if end != len(data) - 8 - n:
        raise damaged(f"{len(data) - 8 - n} bytes of tensors, its header has {end}")
    return tensors, metadata


def safetensors_bytes(tensors, metadata):
    """`tensors`: name -> (dtype's name, shape, bytes)."""
    header, at = {"__metadata__": {k: str(v) for k, v in metadata.items()}} if metadata else {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(raw for _, _, raw in tensors.values())


# -- packing: a solved grid by all but its last row and column, five digits in 16 bits; clues as bits

def pack(answer, tokens, side):
    """Sudoku alone: [N, T] tokens to bytes, 37 a 9x9 puzzle instead of 162."""
    n = len(answer)
    digits = answer.astype(np.uint32).reshape(n, side, side)[:, :-1, :-1].reshape(n, -1) - 2
    digits = np.pad(digits, ((0, 0), (0, -digits.shape[1] % 5))).reshape(n, -1, 5)
    words = (digits * (side ** np.arange(5, dtype=np.uint32))).sum(-1).astype(np.uint16)
    return words, np.packbits(tokens > 1, axis=1)


def unpack(words, clues, side):
    n, inner = len(words), (side - 1) ** 2
    digits = (words[:, :, None].astype(np.uint32) // side ** np.arange(5, dtype=np.uint32) % side).reshape(n, -1)[:, :inner]
    grid = np.zeros((n, side, side), np.uint8)
    grid[:, :-1, :-1] = digits.reshape(n, side - 1, side - 1)
    whole = side * (side - 1) // 2
    grid[:, :-1, -1] = whole - grid[:, :-1, :-1].sum(-1, dtype=np.int32)
    grid[:, -1, :] = whole - grid[:, :-1, :].sum(1, dtype=np.int32)
    answer = grid.reshape(n, side * side) + 2
    shown = np.unpackbits(clues, axis=1, count=side * side).astype(bool)
    return np.where(shown, answer, 1).astype(np.uint8), answer


# -- of a maze: where walls are and where the path is, as bits, and the cells of start and goal; 62 bytes a 15x15 maze instead of 450

WALL, FREE, START, GOAL, PATH = 1, 2, 3, 4, 5


def pack_mazes(answer, tokens):
    ends = np.stack([(tokens == end).argmax(1) for end in (START, GOAL)], 1).astype(np.uint16)
    return np.packbits(tokens == WALL, axis=1), np.packbits(answer == PATH, axis=1), ends


def unpack_mazes(walls, path, ends, cells):
    tokens = np.where(np.unpackbits(walls, axis=1, count=cells) == 1, WALL, FREE).astype(np.uint8)
    rows = np.arange(len(tokens))
    tokens[rows, ends[:, 0]], tokens[rows, ends[:, 1]] = START, GOAL
    marked = np.unpackbits(path, axis=1, count=cells) == 1
    return tokens, np.where(marked, PATH, tokens).astype(np.uint8)


@dataclass
class Dataset:
    path: str
    kind: str
    split: str
    parameters: dict
    tokens: np.ndarray
    answer: np.ndarray
    difficulty: np.ndarray | None
    metadata: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.tokens)


# what `load` has read and unpacked, by file: the nets of a plan share it
READ = {}


def load(path, config, net, split):
    """A file of the training file's task, of this side of its split, that fits the net."""
    tensors, metadata = READ.get(path) or read_safetensors(path)

    def refuse(message, hint=HINT):
        raise Refusal(f"{path}: {message}", hint)

    if metadata.get("format") != FORMAT:
        refuse(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
    kind, side_of_split = metadata.get("kind"), metadata.get("split")
    if kind != config.task["kind"]:
        refuse(f"it holds examples of the task {kind!r}; {config.path} trains on {config.task['kind']!r}", "name a data file of that task")
    if side_of_split != split:
        refuse(f"it holds the side {side_of_split!r}; the side {split!r} is needed here", f"make it with `--split {split}`")
    try:
        parameters = json.loads(metadata.get("parameters", "{}"))
    except ValueError as error:
        refuse(f"its parameters are no JSON: {error}")
    wanted = config.parameters
    if kind == "sudoku" and parameters.get("size") != wanted.get("size"):
        refuse(f"its puzzles have size {parameters.get('size')!r}; {config.path} trains on {wanted.get('size')!r}", "name a data file of that task")
    if "answer.packed" in tensors and kind == "sudoku":
        side = parameters["size"]
        words, clues = tensors.get("answer.packed"), tensors.get("clues.packed")
        if clues is None or len(clues) != len(words) or words.shape[1:] != (-(-((side - 1) ** 2) // 5),) or clues.shape[1:] != (-(-side * side // 8),):
            refuse("its packed tensors do not belong together", "make it with ci/train/pack.py")
        tokens, answer = unpack(words, clues, side)
        tensors = {"tokens": tokens, "answer": answer, **{k: v for k, v in tensors.items() if k == "difficulty"}}
    elif "walls.packed" in tensors and kind == "maze":
        walls, path_bits, ends, cells = tensors["walls.packed"], tensors.get("path.packed"), tensors.get("ends.packed"), parameters.get("side", 0) ** 2
        whole = path_bits is not None and ends is not None and ends.shape == (len(walls), 2) and walls.shape == path_bits.shape == (len(walls), -(-cells // 8))
        if not whole or int(ends.max(initial=0)) >= cells:
            refuse("its packed tensors do not belong together", "make it with ci/train/pack.py")
        tokens, answer = unpack_mazes(walls, path_bits, ends, cells)
        tensors = {"tokens": tokens, "answer": answer, **{k: v for k, v in tensors.items() if k == "difficulty"}}
    else:
        tokens, answer = tensors.get("tokens"), tensors.get("answer")
    for name, value in [("tokens", tokens), ("answer", answer)]:
        if value is None or value.dtype != np.uint8 or value.ndim != 2 or len(value) == 0:
            refuse(f"it has no tensor `{name}` of bytes, [examples, cells]")
        if value.shape[1] != net.tokens:
            refuse(f"its examples have {value.shape[1]} cells, the net takes `seq_len` {net.tokens}", "set `seq_len`, or name another data file")
        if int(value.max()) >= net.vocab:
            refuse(f"tensor `{name}` holds token {int(value.max())}, the net has `vocab_size` {net.vocab}", "set `vocab_size`, or name another data file")
    if tokens.shape != answer.shape:
        refuse("`tokens` and `answer` have different numbers of examples")
    difficulty = tensors.get("difficulty")
    if difficulty is not None and difficulty.shape != (len(tokens),):
        refuse("`difficulty` has not one number for each example")
    READ[path] = tensors, metadata
    return Dataset(str(path), kind, side_of_split, parameters, tokens, answer, difficulty, metadata)


def boxes(side):
    """Rows and columns of a box, as suites/src/sudoku/board.rs."""
    rows = 3 if side == 9 else 2
    return rows, side // rows


def orders(side, band):
    """Every order of lines that keeps bands together, [number, side]."""
    bands = [list(range(b, b + band)) for b in range(0, side, band)]
    inside = list(itertools.product(*[list(itertools.permutations(b)) for b in bands]))
    return np.array([list(itertools.chain(*[one[b] for b in order])) for one in inside for order in itertools.permutations(range(len(bands)))], np.int64)


def turns(side):
    """For each cell of a square turned in one of eight ways the cell that it comes from, [8, side * side]."""
    square = np.arange(side * side).reshape(side, side)
    return np.stack([np.rot90(s, k).reshape(-1) for s in (square, square.T) for k in range(4)])


class Source:
    """Endless batches from a data set that lies on the device. Nothing here depends on what is drawn, so it can be part of a CUDA graph."""

    def __init__(self, dataset, torch_options, device):
        self.device = device
        self.tokens = torch.from_numpy(dataset.tokens.copy()).to(device)
        self.answer = torch.from_numpy(dataset.answer.copy()).to(device)
        self.share, self.reveal = torch_options["reveal_share"], torch_options["reveal"]
        self.side = dataset.parameters.get("size") if dataset.kind == "sudoku" and torch_options["symmetric"] else None
        self.blank = 1 if dataset.kind == "sudoku" else None
        if self.side:
            rows, columns = boxes(self.side)
            self.rows = torch.from_numpy(orders(self.side, rows)).to(device)
            self.columns = torch.from_numpy(orders(self.side, columns)).to(device)
            self.transposes = rows == columns
        self.turns = None
        if dataset.kind == "maze" and torch_options["symmetric"]:
            self.turns = torch.from_numpy(turns(math.isqrt(self.tokens.shape[1]))).to(device)
            # or from the goal to the start
            self.ends = torch.tensor([[0, WALL, FREE, START, GOAL, PATH], [0, WALL, FREE, GOAL, START, PATH]], device=device)
        self.symmetric = bool(self.side) or self.turns is not None

    def some(self, n, below):
        return torch.randint(0, below, (n,), device=self.device)

    def draw(self, n):
        at = self.some(n, len(self.tokens))
        tokens, answer = self.tokens[at].long(), self.answer[at].long()
        if self.side:
            side = self.side
            rows, columns = self.rows[self.some(n, len(self.rows))], self.columns[self.some(n, len(self.columns))]
            cells = rows[:, :, None] * side + columns[:, None, :]
            if self.transposes:
                turned = torch.rand(n, 1, 1, device=self.device) < 0.5
                cells = torch.where(turned, cells.transpose(1, 2), cells)
            cells = cells.reshape(n, side * side)
            digits = torch.rand(n, side, device=self.device).argsort(1) + 2
            labels = torch.cat((torch.zeros(n, 1, dtype=digits.dtype, device=self.device), torch.ones(n, 1, dtype=digits.dtype, device=self.device), digits), 1)
            tokens, answer = (labels.gather(1, v.gather(1, cells)) for v in (tokens, answer))
        if self.turns is not None:
            cells, ends = self.turns[self.some(n, 8)], self.ends[self.some(n, 2)]
            tokens, answer = (ends.gather(1, v.gather(1, cells)) for v in (tokens, answer))
        if self.blank is not None and self.share > 0 and self.reveal[1] > 0:
            blank = tokens == self.blank
            low, high = self.reveal
            more = torch.randint(low, high + 1, (n, 1), device=self.device)
            chance = more / blank.sum(1, keepdim=True).clamp(min=1)
            chance = chance * (torch.rand(n, 1, device=self.device) < self.share)
            tokens = torch.where(blank & (torch.rand(blank.shape, device=self.device) < chance), answer, tokens)
        return tokens, answer
