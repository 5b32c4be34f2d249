//! A worker's line taken apart: answers are handed on one by one, so that of a long line nothing is held but the line itself.
//!
//! In: the bytes of a line, what takes an answer. Out: the [`Message`], of `predictions` without its rows. Must not: hold a second answer, or
//! more numbers of `outputs` than a quarter of the line's bytes.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Message, PredictionRow, Predictions, begins, bounded};

/// Why a line is not taken.
#[derive(Debug)]
pub enum Refused<E> {
    /// It is no line of the protocol.
    Line(serde_json::Error),
    /// One of its answers was not taken.
    Answer(E),
}

/// Takes a line apart; `take` is given each answer of `predictions` as it is read.
///
/// # Errors
/// It is no message, or `take` refuses.
pub fn message<E>(line: &[u8], mut take: impl FnMut(PredictionRow) -> Result<(), E>) -> Result<Message, Refused<E>> {
    let _budget = bounded::Budget::of(line.len());
    let mut refused = None;
    let mut each = |row| match take(row) {
        Ok(()) => true,
        Err(why) => {
            refused = Some(why);
            false
        }
    };
    let read = if begins(line, b"\"predictions\"") {
        let mut from = serde_json::Deserializer::from_slice(line);
        let read = Line(&mut each).deserialize(&mut from);
        read.and_then(|block| from.end().map(|()| Message::Predictions(Predictions { block, rows: Vec::new() })))
    } else {
        serde_json::from_slice(line).map(|message| match message {
            // under a name with escapes, of a short line
            Message::Predictions(p) => {
                let _ = p.rows.into_iter().all(&mut each);
                Message::Predictions(Predictions { block: p.block, rows: Vec::new() })
            }
            message => message,
        })
    };
    match refused {
        Some(why) => Err(Refused::Answer(why)),
        None => read.map_err(Refused::Line),
    }
}

/// `false`: stop here.
type Each<'a> = &'a mut dyn FnMut(PredictionRow) -> bool;

/// `{"predictions": {...}}`; gives the block.
struct Line<'a>(Each<'a>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Kind {
    Predictions,
}

impl<'de> DeserializeSeed<'de> for Line<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u32, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Line<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of one key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u32, A::Error> {
        match map.next_key::<Kind>()? {
            Some(Kind::Predictions) => map.next_value_seed(Body(self.0)),
            None => Err(A::Error::custom("an empty map")),
        }
    }
}

/// `{"block": n, "rows": [...]}`.
struct Body<'a>(Each<'a>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Block,
    Rows,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u32, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("block and rows")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u32, A::Error> {
        let (mut block, mut rows) = (None, false);
        while let Some(field) = map.next_key()? {
            match field {
                Field::Block if block.is_none() => block = Some(map.next_value()?),
                Field::Rows if !std::mem::replace(&mut rows, true) => map.next_value_seed(Rows(&mut *self.0))?,
                Field::Other => drop(map.next_value::<serde::de::IgnoredAny>()?),
                Field::Block | Field::Rows => return Err(A::Error::custom("a key that comes twice")),
            }
        }
        match block {
            Some(block) if rows => Ok(block),
            Some(_) => Err(A::Error::missing_field("rows")),
            None => Err(A::Error::missing_field("block")),
        }
    }
}

/// The list of answers.
struct Rows<'a>(Each<'a>);

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of answers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(row) = seq.next_element()? {
            if !(self.0)(row) {
                return Err(A::Error::custom("an answer was refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(Message, Vec<PredictionRow>), Refused<u64>> {
        let mut rows = Vec::new();
        let message = message(line.as_bytes(), |row: PredictionRow| match row.example {
            9.. => Err(row.example),
            _ => {
                rows.push(row);
                Ok(())
            }
        })?;
        Ok((message, rows))
    }

    #[test]
    fn answers_are_those_that_the_whole_message_would_hold() {
        let row = |e: u64| format!(r#"{{"example":{e},"depth":1,"last":true,"answer":[1,2]}}"#);
        for line in [
            format!(r#"{{"predictions":{{"block":3,"rows":[{},{}]}}}}"#, row(0), row(1)),
            format!(r#" {{ "predictions" : {{"rows":[{},{}],"more":[[1]],"block":3 }} }} "#, row(0), row(1)),
            format!(r#"{{"\u0070redictions":{{"block":3,"rows":[{},{}]}}}}"#, row(0), row(1)),
            r#"{"predictions":{"block":3,"rows":[]}}"#.to_string(),
            r#"{"done":{"block":3}}"#.to_string(),
        ] {
            let Message::Predictions(whole) = serde_json::from_str(&line).unwrap() else {
                assert_eq!(read(&line).unwrap().0.block(), Some(3));
                continue;
            };
            let (message, rows) = read(&line).unwrap();
            assert_eq!((rows, message.block()), (whole.rows, Some(3)), "{line}");
        }
    }

    #[test]
    fn what_is_no_message_is_none_here_either() {
        let row = r#"{"example":0,"depth":1,"last":true,"answer":[1,2]}"#;
        for line in [
            r#"{"predictions":{"block":3}}"#.to_string(),
            format!(r#"{{"predictions":{{"rows":[{row}]}}}}"#),
            format!(r#"{{"predictions":{{"block":3,"block":3,"rows":[{row}]}}}}"#),
            format!(r#"{{"predictions":{{"block":3,"rows":[{row}],"rows":[{row}]}}}}"#),
            format!(r#"{{"predictions":{{"block":3,"rows":[{row}]}},"done":{{"block":3}}}}"#),
            format!(r#"{{"predictions":{{"block":3,"rows":[{row}]}}}} x"#),
            format!(r#"{{"predictions":{{"block":3,"rows":[{row}"#),
            r#"{"predictions":{"block":3,"rows":[7]}}"#.to_string(),
            r#"{"predictions":{"block":-3,"rows":[]}}"#.to_string(),
            r#"{"predictions":[]}"#.to_string(),
        ] {
            assert!(serde_json::from_str::<Message>(&line).is_err(), "{line}");
            assert!(matches!(read(&line), Err(Refused::Line(_))), "{line}");
        }
        let refused = r#"{"predictions":{"block":3,"rows":[{"example":9,"depth":1,"last":true,"answer":[]}, 7]}}"#;
        assert!(matches!(read(refused), Err(Refused::Answer(9))));
    }
}
