//! What of a line is kept: heads of texts, so many entries of a map, so many elements of a list.
//!
//! In: one value of a line, as it is parsed. Out: the value, cut and saying so, or the error that a list is too long. Must not: hold what it
//! does not keep; a line costs about twice its size in memory, its own bytes included.
//!
//! Numbers of a line may take as many bytes as the line has (a value of f32 is written in four characters at least, the comma included; a
//! short line may hold 65,536 of any length).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use ergometer_reports::case::LayerRouting;
use ergometer_suites::{Answer, AnswerKind};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Bytes of a text that are kept.
pub const MAX_TEXT: usize = 4096;
/// Bytes of a name: a key of a map, a program, a metric, a layer.
pub const MAX_NAME: usize = 200;
/// Entries of a map that are kept.
pub const MAX_ENTRIES: usize = 256;
/// Most numbers of one list: as many as a line can hold with eight characters for each.
pub const MAX_NUMBERS: usize = super::MAX_LINE / 8;
/// Most lists in a list: states, layers.
pub const MAX_LISTS: usize = 4096;
/// Most answers in one line.
pub const MAX_ANSWERS: usize = 1 << 20;
/// Most cells of one answer.
pub const MAX_CELLS: usize = 1 << 20;

/// Numbers that a short line may hold, however short they are written.
const FEW_NUMBERS: usize = 1 << 16;

thread_local! {
    /// Bytes of numbers that what is read now may still come to.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// While it lives, the numbers of a line together take no more bytes than the line itself.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn of(line: usize) -> Self {
        Self(LEFT.replace(line.max(8 * FEW_NUMBERS)))
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Longest word about what was left out: a head with it is taken as it is where it comes again.
const CUT: usize = 48;

/// The head of a text of at most `most` bytes, with a word about what was left out.
pub fn head(text: &str, most: usize) -> String {
    if text.len() <= most || (text.len() <= most + CUT && text.contains(" ... (cut off: ")) {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    format!("{} ... (cut off: {} bytes)", &text[..end], text.len())
}

/// A text that is copied only as far as it is kept.
struct Head(usize);

impl Visitor<'_> for Head {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(head(text, self.0))
    }
}

/// A text of at most `N` bytes.
struct Kept<const N: usize>(String);

impl<'de, const N: usize> Deserialize<'de> for Kept<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Head(N)).map(Self)
    }
}

pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Kept::<MAX_TEXT>::deserialize(from).map(|k| k.0)
}

pub(super) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Kept::<MAX_NAME>::deserialize(from).map(|k| k.0)
}

pub(super) fn some_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Kept<MAX_TEXT>>::deserialize(from)?.map(|k| k.0))
}

pub(super) fn some_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Kept<MAX_NAME>>::deserialize(from)?.map(|k| k.0))
}

struct Texts;

impl<'de> Visitor<'de> for Texts {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut kept, mut more) = (BTreeMap::new(), 0u64);
        while kept.len() < MAX_ENTRIES {
            let Some((key, value)) = map.next_entry::<Kept<MAX_NAME>, Kept<MAX_TEXT>>()? else { return Ok(kept) };
            kept.insert(key.0, value.0);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            more += 1;
        }
        if more > 0 {
            kept.insert("cut off".into(), format!("{more} more entries"));
        }
        Ok(kept)
    }
}

pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    from.deserialize_map(Texts)
}

/// A list of at most `most` elements, taken one by one as `T` and kept as `U`.
struct List<T, U> {
    most: usize,
    /// Bytes that an element takes of what the line has; 0 where answers are read one by one.
    cost: usize,
    keep: fn(T) -> U,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, U> Visitor<'de> for List<T, U> {
    type Value = Vec<U>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a list of at most {} elements", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<U>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = seq.next_element::<T>()? {
            if all.len() == self.most {
                return Err(A::Error::custom(format!("a list of more than {} elements", self.most)));
            }
            let left = LEFT.get().checked_sub(self.cost);
            LEFT.set(left.ok_or_else(|| A::Error::custom("more numbers than a line of this length can hold"))?);
            if all.len() == all.capacity() {
                // by a quarter and not by double: a long list holds little that it does not use
                all.reserve_exact((all.len() / 4).max(16));
            }
            all.push((self.keep)(one));
        }
        all.shrink_to_fit();
        Ok(all)
    }
}

fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, U>(
    from: D,
    most: usize,
    keep: fn(T) -> U,
) -> Result<Vec<U>, D::Error> {
    from.deserialize_seq(List { most, cost: size_of::<U>(), keep, of: PhantomData })
}

/// Numbers, with `null` (what serialisers make of it) for a value that is none.
struct Floats(Vec<f32>);

impl<'de> Deserialize<'de> for Floats {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        list(from, MAX_NUMBERS, |v: Option<f32>| v.unwrap_or(f32::NAN)).map(Self)
    }
}

pub(super) fn floats<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
    Floats::deserialize(from).map(|f| f.0)
}

pub(super) fn lists<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<f32>>, D::Error> {
    list(from, MAX_LISTS, |f: Floats| f.0)
}

/// An answer: a list of tokens, or an object whose one key says what else it is.
struct AnswerOf;

/// Numbers of an answer, with `null` for a value that is none.
struct Numbers(Vec<f64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        list(from, MAX_NUMBERS, |v: Option<f64>| v.unwrap_or(f64::NAN)).map(Self)
    }
}

impl<'de> Visitor<'de> for AnswerOf {
    type Value = Answer;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of tokens, or an object of one key: class, text, numbers or likelihoods")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Answer, A::Error> {
        let cells = List { most: MAX_CELLS, cost: 0, keep: |token: u32| token, of: PhantomData };
        cells.visit_seq(seq).map(Answer::Tokens)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Answer, A::Error> {
        let Some(kind) = map.next_key::<AnswerKind>()? else { return Err(A::Error::custom("an answer without a key")) };
        let answer = match kind {
            AnswerKind::Tokens => return Err(A::Error::custom("tokens are written as a list")),
            AnswerKind::Class => Answer::Class(map.next_value()?),
            // an answer that is cut would be another one
            AnswerKind::Text => Answer::Text(map.next_value()?),
            AnswerKind::Numbers => Answer::Numbers(map.next_value::<Numbers>()?.0),
            AnswerKind::Likelihoods => Answer::Likelihoods(map.next_value::<Numbers>()?.0),
        };
        if matches!(&answer, Answer::Text(text) if text.len() > MAX_CELLS) {
            return Err(A::Error::custom(format!("a text of more than {MAX_CELLS} bytes")));
        }
        match map.next_key::<IgnoredAny>()? {
            Some(_) => Err(A::Error::custom("an answer of two keys")),
            None => Ok(answer),
        }
    }
}

pub(super) fn answer<'de, D: Deserializer<'de>>(from: D) -> Result<Answer, D::Error> {
    from.deserialize_any(AnswerOf)
}

/// As [`answer`] reads it.
pub(super) fn write_answer<S: Serializer>(answer: &Answer, to: S) -> Result<S::Ok, S::Error> {
    fn one<S: Serializer>(to: S, kind: AnswerKind, value: &impl Serialize) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry(&kind, value)?;
        map.end()
    }
    match answer {
        Answer::Tokens(tokens) => tokens.serialize(to),
        Answer::Class(class) => one(to, AnswerKind::Class, class),
        Answer::Text(text) => one(to, AnswerKind::Text, text),
        Answer::Numbers(numbers) => one(to, AnswerKind::Numbers, numbers),
        Answer::Likelihoods(choices) => one(to, AnswerKind::Likelihoods, choices),
    }
}

pub(super) fn answers<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    from.deserialize_seq(List { most: MAX_ANSWERS, cost: 0, keep: |row: T| row, of: PhantomData })
}

/// A layer of `routed`, whose lists count as those of all lines do.
#[derive(serde::Deserialize)]
struct Layer {
    layer: Kept<MAX_NAME>,
    top_k: u32,
    #[serde(deserialize_with = "counts")]
    load: Vec<u64>,
    #[serde(deserialize_with = "numbers")]
    probability: Vec<f64>,
}

fn counts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
    list(from, MAX_NUMBERS, |n: u64| n)
}

pub(super) fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    list(from, MAX_NUMBERS, |n: f64| n)
}

pub(super) fn requests<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<super::RequestTimes>, D::Error> {
    list(from, MAX_ANSWERS, |r: super::RequestTimes| r)
}

pub(super) fn some_tokens<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u32>>, D::Error> {
    /// Tokens that are written, bounded as an answer is.
    struct WrittenTokens(Vec<u32>);
    impl<'de> Deserialize<'de> for WrittenTokens {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            list(from, MAX_CELLS, |token: u32| token).map(Self)
        }
    }
    Ok(Option::<WrittenTokens>::deserialize(from)?.map(|t| t.0))
}

pub(super) fn layers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<LayerRouting>, D::Error> {
    list(from, MAX_LISTS, |l: Layer| LayerRouting {
        layer: l.layer.0,
        top_k: l.top_k,
        load: l.load,
        probability: l.probability,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Loaded, Message};
    use super::*;

    #[test]
    fn texts_are_cut_and_say_so() {
        let long = "é".repeat(1 << 20);
        for line in [
            format!(r#"{{"failed":{{"kind":"model","message":"{long}"}}}}"#),
            format!(r#"{{"unavailable":{{"what":"{long}","reason":"{long}","hint":"{long}"}}}}"#),
            format!(r#"{{"hello":{{"protocol":1,"name":"{long}","version":"{long}"}}}}"#),
            // with an escape, which takes another way through the parser
            format!(r#"{{"hello":{{"protocol":1,"name":"\n{long}","version":"\n{long}"}}}}"#),
            format!(
                r#"{{"loaded":{{"seconds":0,"isa":"{long}","versions":{{"{long}":"{long}"}},"options":{{"{long}":"{long}"}}}}}}"#
            ),
        ] {
            let kept = serde_json::to_string(&serde_json::from_str::<Message>(&line).unwrap()).unwrap();
            assert!(kept.len() < 5 * (MAX_TEXT + 100), "{} bytes", kept.len());
            assert!(kept.contains("... (cut off: 209715"), "{}", &kept[kept.len() - 100..]);
        }
        assert_eq!(head("ab", 2), "ab");
        assert_eq!(head("aé", 2), "a ... (cut off: 3 bytes)");
    }

    #[test]
    fn answers_of_every_kind_are_read_back_and_others_refused() {
        let row = |answer: Answer| super::super::PredictionRow {
            example: 0,
            depth: 1,
            last: true,
            halt_logit: None,
            answer,
            written: None,
        };
        for (answer, written) in [
            (Answer::Tokens(vec![1, 2]), "[1,2]"),
            (Answer::Class(3), r#"{"class":3}"#),
            (Answer::Text("\"a\nb".into()), r#"{"text":"\"a\nb"}"#),
            (Answer::Numbers(vec![0.5, -1.0]), r#"{"numbers":[0.5,-1.0]}"#),
            (Answer::Likelihoods(vec![-2.5]), r#"{"likelihoods":[-2.5]}"#),
        ] {
            let line = serde_json::to_string(&row(answer.clone())).unwrap();
            assert!(line.ends_with(&format!(r#""answer":{written}}}"#)), "{line}");
            assert_eq!(serde_json::from_str::<super::super::PredictionRow>(&line).unwrap().answer, answer);
        }
        let long = format!(r#"{{"text":"{}"}}"#, "a".repeat(MAX_CELLS + 1));
        for wrong in [
            "{}",
            r#"{"tokens":[1]}"#,
            r#"{"class":-1}"#,
            r#"{"class":1,"text":""}"#,
            r#"{"other":1}"#,
            "7",
            "null",
            long.as_str(),
        ] {
            let line = format!(r#"{{"example":0,"depth":1,"last":true,"answer":{wrong}}}"#);
            assert!(serde_json::from_str::<super::super::PredictionRow>(&line).is_err(), "{line:.60}");
        }
    }

    #[test]
    fn maps_and_lists_end() {
        let entries: Vec<String> = (0..300).map(|i| format!(r#""k{i:03}":"v""#)).collect();
        let line = format!(r#"{{"seconds":1,"versions":{{{}}}}}"#, entries.join(","));
        let loaded: Loaded = serde_json::from_str(&line).unwrap();
        assert_eq!((loaded.versions.len(), loaded.versions["cut off"].as_str()), (257, "44 more entries"));
        let message = |line: String| serde_json::from_str::<Message>(&line).unwrap_err().to_string();
        let row = |answer: &str| format!(r#"{{"example":0,"depth":1,"last":true,"answer":[{answer}0]}}"#);
        let cells = row(&"0,".repeat(MAX_CELLS));
        assert!(message(format!(r#"{{"predictions":{{"block":0,"rows":[{cells}]}}}}"#)).contains("1048576 elements"));
        let many = format!("{}[]", "[],".repeat(MAX_LISTS));
        assert!(
            message(format!(r#"{{"outputs":{{"step":1,"logits":[],"states":[{many}]}}}}"#)).contains("4096 elements")
        );
        let line = r#"{"outputs":{"step":1,"logits":[1,null,0.5],"states":[[1],[]]}}"#;
        let Message::Outputs(outputs) = serde_json::from_str(line).unwrap() else { panic!() };
        assert!(outputs.logits[1].is_nan() && outputs.states == [vec![1.0], vec![]]);
        // many lists of the shortest numbers, each of them allowed
        let list = "0,".repeat(1 << 18);
        for (kind, least) in [
            (format!(r#""outputs":{{"step":1,"logits":[],"states":[[{list}0],[{list}0]]}}"#), true),
            (
                format!(
                    r#""routed":{{"block":1,"layers":[{{"layer":"a","top_k":1,"load":[{list}0],"probability":[]}}]}}"#
                ),
                true,
            ),
            (r#""outputs":{"step":1,"logits":[0.5,0.25],"states":[[0,1]]}"#.to_string(), false),
        ] {
            let read = super::super::line::message(format!("{{{kind}}}").as_bytes(), |_| Ok::<(), ()>(()));
            assert_eq!(read.is_err(), least, "{}", &kind[..40]);
        }
    }
}
