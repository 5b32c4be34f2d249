"""llama.cpp through its C API, by ctypes: the prebuilt libraries of the npm package that ci/peers/install.sh --llama-cpp fetches.

In: a folder of libraries, a GGUF file, settings. Out: models, contexts, logits as numpy arrays. Must not: choose tokens or time anything.

Structs go by value in this API, so that their layout is that of one version: VERSION, pinned by the sha256 of its library. Another library
is refused unless ERGOMETER_LLAMA_CPP_ANY is set, and then its defaults must be those that this layout shows."""

import ctypes as c
import hashlib
import os

import numpy as np

PACKAGE = "@node-llama-cpp/linux-x64@3.22.1"
VERSION = "v0.5.0"
SHA256 = "2ecd1d85f68456573a664106a9039366b88231579fd65d9669c9a6ab41374fd4"
INSTALL = "run ci/peers/install.sh --llama-cpp, or let ERGOMETER_LLAMA_CPP name the folder of its libraries"

FLASH = {"auto": -1, "off": 0, "on": 1}


class Missing(Exception):
    """The libraries are not here, or are others."""


class ModelParams(c.Structure):
    _fields_ = [
        ("devices", c.c_void_p), ("overrides", c.c_void_p), ("n_gpu_layers", c.c_int32), ("split_mode", c.c_int32), ("load_mode", c.c_int32),
        ("lazy_mode", c.c_int32), ("main_gpu", c.c_int32), ("tensor_split", c.c_void_p), ("progress", c.c_void_p), ("progress_data", c.c_void_p),
        ("kv_overrides", c.c_void_p), ("vocab_only", c.c_bool), ("check_tensors", c.c_bool), ("use_extra_bufts", c.c_bool), ("no_host", c.c_bool),
        ("no_alloc", c.c_bool), ("load_mtp", c.c_bool), ("rest", c.c_uint8 * 256),
    ]  # fmt: skip


class ContextParams(c.Structure):
    _fields_ = [
        ("n_ctx", c.c_uint32), ("n_batch", c.c_uint32), ("n_ubatch", c.c_uint32), ("n_seq_max", c.c_uint32), ("n_rs_seq", c.c_uint32),
        ("n_outputs_max", c.c_uint32), ("n_outputs_max_per_seq", c.c_uint32), ("n_threads", c.c_int32), ("n_threads_batch", c.c_int32),
        ("ctx_type", c.c_int32), ("rope_scaling_type", c.c_int32), ("pooling_type", c.c_int32), ("attention_type", c.c_int32),
        ("flash_attn_type", c.c_int32), ("rope_freq_base", c.c_float), ("rope_freq_scale", c.c_float), ("yarn_ext_factor", c.c_float),
        ("yarn_attn_factor", c.c_float), ("yarn_beta_fast", c.c_float), ("yarn_beta_slow", c.c_float), ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float), ("cb_eval", c.c_void_p), ("cb_eval_data", c.c_void_p), ("type_k", c.c_int32), ("type_v", c.c_int32),
        ("abort", c.c_void_p), ("abort_data", c.c_void_p), ("embeddings", c.c_bool), ("offload_kqv", c.c_bool), ("no_perf", c.c_bool),
        ("op_offload", c.c_bool), ("swa_full", c.c_bool), ("kv_unified", c.c_bool), ("samplers", c.c_void_p), ("n_samplers", c.c_size_t),
        ("ctx_other", c.c_void_p), ("rest", c.c_uint8 * 256),
    ]  # fmt: skip


class Batch(c.Structure):
    _fields_ = [
        ("n_tokens", c.c_int32), ("token", c.POINTER(c.c_int32)), ("embd", c.c_void_p), ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)), ("seq_id", c.POINTER(c.POINTER(c.c_int32))), ("logits", c.POINTER(c.c_int8)),
    ]  # fmt: skip


class ThreadpoolParams(c.Structure):
    _fields_ = [
        ("cpumask", c.c_bool * 512), ("n_threads", c.c_int), ("prio", c.c_int), ("poll", c.c_uint32), ("strict_cpu", c.c_bool), ("paused", c.c_bool),
        ("rest", c.c_uint8 * 256),
    ]  # fmt: skip


# What the defaults of VERSION are: where a library gives others, its structs are not these.
DEFAULTS = {"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "flash_attn_type": -1, "type_k": 1, "type_v": 1}


def folder():
    """Where the libraries are."""
    named = os.environ.get("ERGOMETER_LLAMA_CPP")
    here = os.path.dirname(os.path.abspath(__file__))
    return named or os.path.join(here, "..", "..", "target", "llama-cpp", "package", "bins", "linux-x64")


class Library:
    def __init__(self):
        self.folder = os.path.abspath(folder())
        path = os.path.join(self.folder, f"libllama.{VERSION}.so")
        try:
            with open(path, "rb") as file:
                self.sha256 = hashlib.sha256(file.read()).hexdigest()
            if self.sha256 != SHA256 and not os.environ.get("ERGOMETER_LLAMA_CPP_ANY"):
                raise Missing(f"{path} has sha256 {self.sha256}, pinned is {SHA256}")
            load = lambda name: c.CDLL(os.path.join(self.folder, name), mode=c.RTLD_GLOBAL)
            self.base, self.ggml, self.llama = load("libggml-base.so"), load(f"libggml.{VERSION}.so"), load(f"libllama.{VERSION}.so")
        except OSError as error:
            raise Missing(f"llama.cpp {VERSION} is not here: {error}") from error
        self.declare()
        found = self.context_default()
        other = {name: getattr(found, name) for name, value in DEFAULTS.items() if getattr(found, name) != value}
        if other:
            raise Missing(f"{path}: its parameters are laid out otherwise (defaults {other})")
        # what it says of tensors and buffers goes nowhere; errors come back as codes
        self.quiet = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(self.log)
        self.said = []
        self.llama.llama_log_set(self.quiet, None)
        self.ggml.ggml_backend_load_all_from_path(self.folder.encode())
        self.llama.llama_backend_init()

    def log(self, level, text, _):
        # 3: warning, 4: error
        if level in (3, 4):
            self.said = [*self.said[-4:], text.decode("utf-8", "replace").strip()]

    def declare(self):
        p, i, b = c.c_void_p, c.c_int32, c.c_bool
        of = {
            self.llama: {
                "llama_model_default_params": (ModelParams, []), "llama_context_default_params": (ContextParams, []),
                "llama_model_load_from_file": (p, [c.c_char_p, ModelParams]), "llama_init_from_model": (p, [p, ContextParams]),
                "llama_free": (None, [p]), "llama_model_free": (None, [p]), "llama_model_get_vocab": (p, [p]), "llama_vocab_n_tokens": (i, [p]),
                "llama_model_size": (c.c_uint64, [p]), "llama_model_n_swa": (i, [p]), "llama_model_n_ctx_train": (i, [p]),
                "llama_model_desc": (i, [p, c.c_char_p, c.c_size_t]), "llama_vocab_bos": (i, [p]), "llama_vocab_get_add_bos": (b, [p]),
                "llama_batch_init": (Batch, [i, i, i]), "llama_batch_free": (None, [Batch]), "llama_batch_get_one": (Batch, [c.POINTER(i), i]),
                "llama_decode": (i, [p, Batch]), "llama_synchronize": (None, [p]), "llama_get_memory": (p, [p]),
                "llama_memory_clear": (None, [p, b]), "llama_memory_seq_rm": (b, [p, i, i, i]), "llama_get_logits_ith": (c.POINTER(c.c_float), [p, i]),
                "llama_attach_threadpool": (None, [p, p, p]), "llama_detach_threadpool": (None, [p]), "llama_backend_init": (None, []),
                "llama_print_system_info": (c.c_char_p, []), "llama_version": (c.c_char_p, []), "llama_log_set": (None, [p, p]),
                "llama_model_meta_val_str": (i, [p, c.c_char_p, c.c_char_p, c.c_size_t]),
            },
            self.ggml: {
                "ggml_backend_load_all_from_path": (None, [c.c_char_p]), "ggml_backend_dev_by_type": (p, [c.c_int]),
            },
            self.base: {
                "ggml_backend_dev_backend_reg": (p, [p]), "ggml_backend_reg_get_proc_address": (p, [p, c.c_char_p]), "ggml_commit": (c.c_char_p, []),
                "ggml_version": (c.c_char_p, []), "ggml_threadpool_params_init": (None, [p, c.c_int]),
            },
        }  # fmt: skip
        for library, functions in of.items():
            for name, (result, arguments) in functions.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments

    def context_default(self):
        return self.llama.llama_context_default_params()

    def variant(self):
        """Which of its builds for processors it has chosen."""
        with open("/proc/self/maps") as maps:
            found = {line.split("/")[-1].strip() for line in maps if "libggml-cpu-" in line}
        return ", ".join(sorted(name[len("libggml-cpu-") : -len(".so")] for name in found)) or "unknown"

    def versions(self):
        text = lambda value: value.decode("utf-8", "replace").strip()
        return {
            "llama_cpp": f"{VERSION} ({text(self.llama.llama_version())})",
            "llama_cpp.package": PACKAGE if self.sha256 == SHA256 else f"another build, sha256 {self.sha256}",
            "llama_cpp.ggml": f"{text(self.base.ggml_version())} {text(self.base.ggml_commit())}",
            "llama_cpp.variant": self.variant(),
            "llama_cpp.system": text(self.llama.llama_print_system_info()),
        }

    def errors(self):
        return "; ".join(self.said) or "it does not say why"


class Override(c.Structure):
    """A key of the file's metadata with another whole number."""

    _fields_ = [("tag", c.c_int32), ("key", c.c_char * 128), ("value", c.c_int64), ("rest", c.c_uint8 * 120)]


class Model:
    def __init__(self, library, path, active_experts=None):
        self.library, lib = library, library.llama
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        if active_experts is not None:
            # the list ends with an empty key
            overrides = (Override * 2)(Override(0, b"llama.expert_used_count", active_experts))
            params.kv_overrides = c.cast(overrides, c.c_void_p)
        self.handle = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            raise ValueError(f"{path}: llama.cpp cannot load it: {library.errors()}")
        vocab = lib.llama_model_get_vocab(self.handle)
        self.vocabulary = lib.llama_vocab_n_tokens(vocab)
        self.begin = lib.llama_vocab_bos(vocab) if lib.llama_vocab_get_add_bos(vocab) else None
        self.bytes, self.window = lib.llama_model_size(self.handle), lib.llama_model_n_swa(self.handle)
        self.context = lib.llama_model_n_ctx_train(self.handle)
        text = c.create_string_buffer(256)
        lib.llama_model_desc(self.handle, text, 256)
        self.about = text.value.decode("utf-8", "replace")

    def free(self):
        self.library.llama.llama_model_free(self.handle)


class Context:
    """Sequences of one model. Its threads wait in a pool of their own between calls, as llama-bench's do."""

    def __init__(self, model, context, slots, threads, n_batch=2048, n_ubatch=512, flash="auto", poll=50, unified=False, swa_full=False):
        self.model, self.library, self.lib = model, model.library, model.library.llama
        params = self.library.context_default()
        params.n_ctx, params.n_seq_max = context * slots, slots
        params.n_batch, params.n_ubatch = n_batch, n_ubatch
        # logits of any token can be asked for
        params.n_outputs_max_per_seq = 0
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type, params.kv_unified, params.swa_full = FLASH[flash], unified, swa_full
        self.handle = self.lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise MemoryError(f"llama.cpp makes no context of {context} tokens in {slots} slots: {self.library.errors()}")
        self.memory = self.lib.llama_get_memory(self.handle)
        self.pool = self.threadpool(threads, poll)
        self.lib.llama_attach_threadpool(self.handle, self.pool, None)
        self.n_batch = n_batch
        self.batch = self.lib.llama_batch_init(n_batch, 0, 1)
        view = lambda pointer: np.ctypeslib.as_array(pointer, (n_batch,))
        self.token, self.pos, self.wanted = view(self.batch.token), view(self.batch.pos), view(self.batch.logits)
        view(self.batch.n_seq_id)[:] = 1
        # the one sequence of each token
        self.seq = [self.batch.seq_id[j] for j in range(n_batch)]
        self.past = [0] * slots

    def threadpool(self, threads, poll):
        base, ggml = self.library.base, self.library.ggml
        register = base.ggml_backend_dev_backend_reg(ggml.ggml_backend_dev_by_type(0))
        new = base.ggml_backend_reg_get_proc_address(register, b"ggml_threadpool_new")
        self.free_pool = base.ggml_backend_reg_get_proc_address(register, b"ggml_threadpool_free")
        params = ThreadpoolParams()
        base.ggml_threadpool_params_init(c.byref(params), threads)
        params.poll = poll
        return c.CFUNCTYPE(c.c_void_p, c.c_void_p)(new)(c.byref(params))

    def clear(self):
        self.lib.llama_memory_clear(self.memory, False)
        self.past = [0] * len(self.past)

    def cut(self, slot, length):
        """Forgets what a sequence has after so many tokens; False: it cannot."""
        if self.past[slot] > length and not self.lib.llama_memory_seq_rm(self.memory, slot, length, -1):
            return False
        self.past[slot] = min(self.past[slot], length)
        return True

    def decode(self, batch):
        code = self.lib.llama_decode(self.handle, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode gives {code}: {self.library.errors()}")

    def feed(self, feeds, every, take):
        """Feeds `(slot, tokens)`; `take(i, logits)` is given the logits of the last token of each feed, or of every token, in their order. They
        hold until it comes back."""
        at = 0
        due = []
        for i, (slot, tokens) in enumerate(feeds):
            tokens = np.asarray(tokens, np.int32)
            first = 0
            while first < len(tokens):
                n = min(len(tokens) - first, self.n_batch - at)
                self.token[at : at + n] = tokens[first : first + n]
                self.pos[at : at + n] = np.arange(self.past[slot], self.past[slot] + n)
                self.wanted[at : at + n] = every
                last = first + n == len(tokens)
                if last:
                    self.wanted[at + n - 1] = 1
                for j in range(at, at + n):
                    self.seq[j][0] = slot
                due += [(i, j) for j in (range(at, at + n) if every else [at + n - 1] if last else [])]
                self.past[slot] += n
                first, at = first + n, at + n
                if at == self.n_batch:
                    self.flush(at, due, take)
                    at, due = 0, []
        if at:
            self.flush(at, due, take)

    def flush(self, n, due, take):
        self.batch.n_tokens = n
        self.decode(self.batch)
        self.lib.llama_synchronize(self.handle)
        for i, j in due:
            take(i, np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.handle, j), (self.model.vocabulary,)))

    def free(self):
        self.lib.llama_batch_free(self.batch)
        self.lib.llama_detach_threadpool(self.handle)
        self.lib.llama_free(self.handle)
        c.CFUNCTYPE(None, c.c_void_p)(self.free_pool)(self.pool)
