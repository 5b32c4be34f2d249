//! The part of Python's pickle format that `torch.save` needs to name tensors, read as data: an allow-list of
//! instructions and of names.
//!
//! In: the bytes of `data.pkl`. Out: [`PickleValues`]. Must not: run, import or construct anything; every name outside
//! of [`PickleName`] is refused.
//!
//! A pickle is a program for a machine with a stack. What it may do here is to put together numbers, texts, tuples,
//! lists, dictionaries and references to tensors; the references are kept as what they say. Values lie in one
//! list and name each other by their place in it, so that one that holds itself is nothing to run away with.

use std::collections::BTreeMap;

use crate::models::tensors::shown_name;

/// Most values, and most instructions.
const MAX_VALUES: usize = 1 << 20;
/// Most axes of a tensor.
const MAX_AXES: usize = 8;
/// Longest name of a storage, bytes: each tensor has a copy.
const MAX_KEY: usize = 64;

/// Place of a value.
pub type PickleId = usize;

/// Names that a pickle may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickleName {
    /// `collections.OrderedDict`
    Dict,
    /// `torch._utils._rebuild_tensor_v2`
    Tensor,
    /// `torch._utils._rebuild_parameter`
    Parameter,
    /// A storage of elements of this type.
    Storage(StorageElement),
}

/// Types of elements: name in safetensors, and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageElement {
    /// As safetensors calls it.
    pub dtype: &'static str,
    /// Bytes.
    pub size: usize,
}

const fn element(dtype: &'static str, size: usize) -> PickleName {
    PickleName::Storage(StorageElement { dtype, size })
}

/// Module and name of each.
const GLOBALS: &[(&str, &str, PickleName)] = &[
    ("collections", "OrderedDict", PickleName::Dict),
    ("torch._utils", "_rebuild_tensor_v2", PickleName::Tensor),
    ("torch._utils", "_rebuild_parameter", PickleName::Parameter),
    ("torch", "FloatStorage", element("F32", 4)),
    ("torch", "BFloat16Storage", element("BF16", 2)),
    ("torch", "HalfStorage", element("F16", 2)),
    ("torch", "DoubleStorage", element("F64", 8)),
    ("torch", "LongStorage", element("I64", 8)),
    ("torch", "IntStorage", element("I32", 4)),
    ("torch", "ShortStorage", element("I16", 2)),
    ("torch", "CharStorage", element("I8", 1)),
    ("torch", "ByteStorage", element("U8", 1)),
    ("torch", "BoolStorage", element("BOOL", 1)),
];

/// A reference to a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Type of its elements.
    pub element: StorageElement,
    /// Name of the entry that holds them.
    pub key: String,
    /// Elements of that entry.
    pub stored: u64,
    /// The first of them that is its own.
    pub offset: u64,
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, of each axis.
    pub strides: Vec<u64>,
}

impl StoredTensor {
    /// Elements; `None`: more than can be counted.
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64))
    }

    /// Whether its elements lie one after the other in the order of its axes.
    pub fn contiguous(&self) -> bool {
        let mut wanted = 1u64;
        self.shape.iter().zip(&self.strides).rev().all(|(d, stride)| {
            let fits = *d == 1 || *stride == wanted;
            wanted = wanted.saturating_mul(*d as u64);
            fits
        })
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum PickleValue {
    /// `None`, a truth value, a number with a point: nothing that is asked for.
    Other,
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// A tuple.
    Tuple(Vec<PickleId>),
    /// A list.
    List(Vec<PickleId>),
    /// A dictionary, in its order.
    Dict(Vec<(PickleId, PickleId)>),
    /// A name.
    Global(PickleName),
    /// A storage: type, name of its entry, elements.
    Storage(StorageElement, String, u64),
    /// A tensor.
    Tensor(StoredTensor),
}

/// All values, and which of them is the result.
#[derive(Debug)]
pub struct PickleValues {
    all: Vec<PickleValue>,
    /// The result.
    pub root: PickleId,
}

impl std::ops::Index<PickleId> for PickleValues {
    type Output = PickleValue;

    fn index(&self, id: PickleId) -> &PickleValue {
        &self.all[id]
    }
}

/// Why a pickle is not read, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickleError {
    /// What and where.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

const TENSORS_ONLY: &str = "where you trust the file, load it in PyTorch and save its tensors alone: `torch.save(model.state_dict(), \"step_N\")`";
const WHOLE: &str = "fetch or copy it again, or save it again with PyTorch: it is damaged, or no checkpoint";

/// Reads a pickle.
///
/// # Errors
/// An instruction or a name outside of the lists, one that cannot be carried out, too many of them, no end.
pub fn read(bytes: &[u8]) -> Result<PickleValues, PickleError> {
    let mut machine =
        PickleMachine { bytes, at: 0, all: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new() };
    for _ in 0..MAX_VALUES {
        let begin = machine.at;
        let op = machine.take(1)?[0];
        if op == b'.' {
            let root = machine.pop()?;
            return Ok(PickleValues { all: machine.all, root });
        }
        machine.step(op, begin)?;
    }
    Err(PickleError { message: format!("more than {MAX_VALUES} instructions"), hint: WHOLE })
}

struct PickleMachine<'a> {
    bytes: &'a [u8],
    at: usize,
    all: Vec<PickleValue>,
    stack: Vec<PickleId>,
    /// Heights of the stack where marks were set.
    marks: Vec<usize>,
    /// Values that were put away, by the number that they were given.
    memo: BTreeMap<u64, PickleId>,
}

impl<'a> PickleMachine<'a> {
    fn wrong(&self, what: impl Into<String>) -> PickleError {
        PickleError { message: format!("byte {}: {}", self.at, what.into()), hint: WHOLE }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.wrong(format!("{n} bytes are due, and {} are left", self.bytes.len() - self.at)));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned number of so many bytes.
    fn number(&mut self, n: usize) -> Result<u64, PickleError> {
        Ok(self.take(n)?.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b)))
    }

    fn text(&mut self, n: u64) -> Result<String, PickleError> {
        let bytes = self.take(usize::try_from(n).unwrap_or(usize::MAX))?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.wrong("a text is no UTF-8"))?;
        Ok(text.to_owned())
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at..];
        let Some(n) = rest.iter().take(1024).position(|b| *b == b'\n') else {
            return Err(self.wrong("a name without an end"));
        };
        let text = self.text(n as u64)?;
        self.at += 1;
        Ok(text)
    }

    fn push(&mut self, value: PickleValue) {
        self.all.push(value);
        self.stack.push(self.all.len() - 1);
    }

    /// The topmost value above the last mark.
    fn pop(&mut self) -> Result<PickleId, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.wrong("a value is due, and none is there"));
        }
        self.stack.pop().ok_or_else(|| self.wrong("a value is due, and none is there"))
    }

    /// All values above the last mark, which goes too.
    fn popped(&mut self) -> Result<Vec<PickleId>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("a mark is due, and none is set"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pops<const N: usize>(&mut self) -> Result<Vec<PickleId>, PickleError> {
        let mut taken = (0..N).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        taken.reverse();
        Ok(taken)
    }

    fn top(&self) -> Result<PickleId, PickleError> {
        self.stack.last().copied().ok_or_else(|| self.wrong("a value is due, and none is there"))
    }

    fn remember(&mut self, number: u64) -> Result<(), PickleError> {
        self.memo.insert(number, self.top()?);
        Ok(())
    }

    fn recall(&mut self, number: u64) -> Result<(), PickleError> {
        let known = self.memo.get(&number).copied();
        let id = known.ok_or_else(|| self.wrong(format!("a value was never put away under {number}")))?;
        self.stack.push(id);
        Ok(())
    }

    /// Pairs into the dictionary at the top.
    fn set(&mut self, items: Vec<PickleId>) -> Result<(), PickleError> {
        let into = self.top()?;
        let odd = items.len() % 2 == 1;
        match &mut self.all[into] {
            PickleValue::Dict(pairs) if !odd => pairs.extend(items.chunks_exact(2).map(|p| (p[0], p[1]))),
            _ => return Err(self.wrong("pairs are put into what is no dictionary")),
        }
        Ok(())
    }

    fn extend(&mut self, items: Vec<PickleId>) -> Result<(), PickleError> {
        let into = self.top()?;
        match &mut self.all[into] {
            PickleValue::List(list) => list.extend(items),
            _ => return Err(self.wrong("values are put into what is no list")),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str, begin: usize) -> Result<(), PickleError> {
        let Some((.., global)) = GLOBALS.iter().find(|(m, n, _)| *m == module && *n == name) else {
            let shown = format!("{}.{}", shown_name(module), shown_name(name));
            let message = format!(
                "byte {begin}: it asks Python for `{shown}`, which no tensor needs: refused, and nothing was run"
            );
            return Err(PickleError { message, hint: TENSORS_ONLY });
        };
        self.push(PickleValue::Global(*global));
        Ok(())
    }

    // Over 80 lines: one short arm for each instruction of the format.
    /// Carries out one instruction, the one that stands at `begin`.
    fn step(&mut self, op: u8, begin: usize) -> Result<(), PickleError> {
        match op {
            // the version of the format, and the length of a frame
            0x80 => match self.number(1)? {
                2..=5 => {}
                version => return Err(self.wrong(format!("version {version} of the format; 2 to 5 are read"))),
            },
            0x95 => {
                self.take(8)?;
            }
            b'N' | 0x88 | 0x89 => self.push(PickleValue::Other),
            b'G' => {
                self.take(8)?;
                self.push(PickleValue::Other);
            }
            b'J' => {
                let n = self.number(4)? as u32 as i32;
                self.push(PickleValue::Int(n.into()));
            }
            b'K' | b'M' => {
                let n = self.number(if op == b'K' { 1 } else { 2 })?;
                self.push(PickleValue::Int(n as i64));
            }
            0x8a => {
                let n = self.number(1)? as usize;
                if n > 8 {
                    return Err(self.wrong(format!("a number of {n} bytes")));
                }
                let bits = 64 - 8 * n as u32;
                let value = self.number(n)?;
                // the uppermost bit that was written is the sign
                self.push(PickleValue::Int(if n == 0 { 0 } else { ((value << bits) as i64) >> bits }));
            }
            b'X' | 0x8c => {
                let n = self.number(if op == b'X' { 4 } else { 1 })?;
                let text = self.text(n)?;
                self.push(PickleValue::Text(text));
            }
            b')' => self.push(PickleValue::Tuple(Vec::new())),
            b']' => self.push(PickleValue::List(Vec::new())),
            b'}' => self.push(PickleValue::Dict(Vec::new())),
            b'(' => self.marks.push(self.stack.len()),
            b't' => {
                let items = self.popped()?;
                self.push(PickleValue::Tuple(items));
            }
            0x85..=0x87 => {
                let items = match op {
                    0x85 => self.pops::<1>(),
                    0x86 => self.pops::<2>(),
                    _ => self.pops::<3>(),
                }?;
                self.push(PickleValue::Tuple(items));
            }
            b's' => {
                let pair = self.pops::<2>()?;
                self.set(pair)?;
            }
            b'u' => {
                let pairs = self.popped()?;
                self.set(pairs)?;
            }
            b'a' => {
                let item = self.pops::<1>()?;
                self.extend(item)?;
            }
            b'e' => {
                let items = self.popped()?;
                self.extend(items)?;
            }
            b'q' | b'r' => {
                let number = self.number(if op == b'q' { 1 } else { 4 })?;
                self.remember(number)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' | b'j' => {
                let number = self.number(if op == b'h' { 1 } else { 4 })?;
                self.recall(number)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name, begin)?;
            }
            0x93 => {
                let names = self.pops::<2>()?;
                let (PickleValue::Text(module), PickleValue::Text(name)) = (&self.all[names[0]], &self.all[names[1]])
                else {
                    return Err(self.wrong("a name that is no text"));
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name, begin)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage);
            }
            b'R' => {
                let (args, call) = (self.pop()?, self.pop()?);
                self.call(call, args)?;
            }
            // attributes of a dictionary: what PyTorch notes of a net's modules
            b'b' => {
                self.pop()?;
                let of = self.top()?;
                if !matches!(self.all[of], PickleValue::Dict(_)) {
                    return Err(self.wrong("attributes are set of what is no dictionary"));
                }
            }
            _ => {
                let message = format!(
                    "byte {begin}: the instruction {op:#04x}, which no tensor needs: refused, and nothing was run"
                );
                return Err(PickleError { message, hint: TENSORS_ONLY });
            }
        }
        Ok(())
    }

    fn tuple(&self, id: PickleId) -> Option<&[PickleId]> {
        match &self.all[id] {
            PickleValue::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn whole(&self, id: PickleId) -> Option<u64> {
        match self.all[id] {
            PickleValue::Int(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    /// `("storage", type, entry, device, elements)`
    fn storage(&self, id: PickleId) -> Result<PickleValue, PickleError> {
        let wrong = || self.wrong("a reference that is none to a storage");
        let Some(&[word, of, key, _, elements]) = self.tuple(id) else { return Err(wrong()) };
        match (&self.all[word], &self.all[of], &self.all[key], self.whole(elements)) {
            (
                PickleValue::Text(word),
                PickleValue::Global(PickleName::Storage(element)),
                PickleValue::Text(key),
                Some(elements),
            ) if word == "storage" && key.len() <= MAX_KEY => Ok(PickleValue::Storage(*element, key.clone(), elements)),
            _ => Err(wrong()),
        }
    }

    /// One of the three calls that there are.
    fn call(&mut self, call: PickleId, args: PickleId) -> Result<(), PickleError> {
        let PickleValue::Global(global) = self.all[call] else {
            return Err(self.wrong("a call of what cannot be called"));
        };
        let Some(args) = self.tuple(args).map(<[PickleId]>::to_vec) else {
            return Err(self.wrong("a call without arguments"));
        };
        match (global, &args[..]) {
            (PickleName::Dict, []) => self.push(PickleValue::Dict(Vec::new())),
            (PickleName::Parameter, [tensor, ..]) if matches!(self.all[*tensor], PickleValue::Tensor(_)) => {
                self.stack.push(*tensor)
            }
            (PickleName::Tensor, [storage, offset, shape, strides, ..]) => {
                let tensor = self.tensor([*storage, *offset, *shape, *strides]);
                let tensor =
                    tensor.ok_or_else(|| self.wrong("a tensor whose storage, place, shape or strides are none"))?;
                self.push(PickleValue::Tensor(tensor));
            }
            _ => return Err(self.wrong(format!("a call of {global:?} with other arguments than PyTorch's"))),
        }
        Ok(())
    }

    fn tensor(&self, [storage, offset, shape, strides]: [PickleId; 4]) -> Option<StoredTensor> {
        let PickleValue::Storage(element, key, stored) = &self.all[storage] else { return None };
        let numbers = |id: PickleId| -> Option<Vec<u64>> {
            self.tuple(id).filter(|t| t.len() <= MAX_AXES)?.iter().map(|n| self.whole(*n)).collect()
        };
        let (shape, strides) = (numbers(shape)?, numbers(strides)?);
        let shape: Vec<usize> = shape.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
        let tensor = StoredTensor {
            element: *element,
            key: key.clone(),
            stored: *stored,
            offset: self.whole(offset)?,
            shape,
            strides,
        };
        (tensor.shape.len() == tensor.strides.len()).then_some(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().message
    }

    #[test]
    fn what_torch_writes_is_read() {
        // {"a": tensor of shape [2, 3] over storage "0"}, as protocol 2 has it
        let pickle = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00aq\x02ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x06tq\x08QK\x00K\x02K\x03\x86q\x09K\x03K\x01\x86q\x0a\x89h\x00)Rq\x0btq\x0cRq\x0ds}q\x0eX\x09\x00\x00\x00_metadataq\x0fh\x00)Rq\x10sb.";
        let values = read(pickle).unwrap();
        let PickleValue::Dict(pairs) = &values[values.root] else { panic!("{values:?}") };
        let [(key, tensor)] = pairs[..] else { panic!("{pairs:?}") };
        assert_eq!(values[key], PickleValue::Text("a".into()));
        let PickleValue::Tensor(tensor) = &values[tensor] else { panic!("{values:?}") };
        assert_eq!((tensor.element.dtype, tensor.stored, &tensor.shape[..]), ("F32", 6, &[2, 3][..]));
        assert!(tensor.contiguous() && tensor.elements() == Some(6));
        let turned = StoredTensor { strides: vec![1, 2], ..tensor.clone() };
        assert!(!turned.contiguous());
        // an axis of one element may have any stride
        assert!(StoredTensor { shape: vec![1, 6], strides: vec![77, 1], ..tensor.clone() }.contiguous());
    }

    #[test]
    fn code_is_refused_by_its_name() {
        for pickle in [
            &b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."[..],
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
            // a name that only looks like one of those allowed
            b"\x80\x02ctorch._utils\n_rebuild_tensor\n.",
            b"\x80\x02cbuiltins\neval\n.",
        ] {
            let said = refused(pickle);
            assert!(said.contains("asks Python for `") && said.contains("nothing was run"), "{said}");
        }
        assert!(refused(b"\x80\x02cos\nsystem\n.").contains("`os.system`"));
        // instances, and whatever else has an instruction of its own
        assert!(refused(b"\x80\x02)\x81.").contains("instruction 0x81"));
        assert!(refused(b"(ios\nsystem\n.").contains("instruction 0x69"));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        for (pickle, said) in [
            (&b""[..], "1 bytes are due"),
            (b"\x80\x02", "1 bytes are due"),
            (b".", "a value is due"),
            (b"(.", "a value is due"),
            (b"t.", "a mark is due"),
            (b"\x80\x01.", "version 1"),
            (b"X\xff\xff\xff\xffabc", "4294967295 bytes are due"),
            (b"X\x01\x00\x00\x00\xff.", "no UTF-8"),
            (b"h\x05.", "never put away"),
            (b"K\x01K\x02s.", "a value is due"),
            (b"K\x01K\x02K\x03s.", "no dictionary"),
            (b"K\x01K\x02a.", "no list"),
            (b"K\x01NR.", "a call of what cannot be called"),
            (b"ccollections\nOrderedDict\nNR.", "a call without arguments"),
            (b"ccollections\nOrderedDict\nK\x01\x85R.", "other arguments"),
            (b"NQ.", "none to a storage"),
            (b"\x8a\x09.", "a number of 9 bytes"),
        ] {
            let found = refused(pickle);
            assert!(found.contains(said), "{said}: {found}");
        }
        // a long name of a storage, which each tensor would have a copy of
        let storage = |key: usize| {
            let key = [&(key as u32).to_le_bytes()[..], &vec![b'0'; key]].concat();
            let of = &b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX"[..];
            read(&[of, &key, b"X\x03\x00\x00\x00cpuK\x06tQ."].concat())
        };
        assert!(storage(MAX_KEY).is_ok());
        assert!(storage(MAX_KEY + 1).unwrap_err().message.contains("none to a storage"));
        // a dictionary that holds itself, and a tuple in a tuple as deep as can be written
        assert!(read(b"}q\x00X\x01\x00\x00\x00ah\x00s.").is_ok());
        let deep = [&b")"[..], &[0x85; 1 << 16], b"."].concat();
        drop(read(&deep).unwrap());
        let long = [&b"\x80\x02"[..], &[b'N'; MAX_VALUES + 1], b"."].concat();
        assert!(refused(&long).contains("instructions"));
        assert_eq!(read(b"\x8a\x01\xff.").map(|v| v[v.root].clone()), Ok(PickleValue::Int(-1)));
    }
}
