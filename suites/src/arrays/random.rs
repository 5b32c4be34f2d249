//! Random inputs: for throughput alone, since nothing is right or wrong about what comes out.
//!
//! In: kinds, shapes and ranges. Out: the same arrays for the same seed on every machine. Must not: be called data.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::elements::{MAX_BYTES, Number};
use super::scorer::Scorer;
use crate::answer::AnswerKind;
use crate::array::{Array, ElementKind};
use crate::error::SuiteError;
use crate::task::{Example, ExampleSet};

/// One random input.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomInput {
    name: String,
    kind: ElementKind,
    shape: Vec<usize>,
    /// Least and largest; of floating point the largest is not met.
    range: (f64, f64),
}

impl RandomInput {
    /// Numbers of this kind and shape, evenly from this range: where nothing is said 0 to 1, and whole numbers 0 or 1.
    ///
    /// # Errors
    /// A range that is none, or beyond the kind.
    pub fn new(
        name: &str,
        kind: ElementKind,
        shape: Vec<usize>,
        range: Option<(f64, f64)>,
    ) -> Result<Self, SuiteError> {
        let range = range.unwrap_or((0.0, 1.0));
        for end in [range.0, range.1] {
            let real = matches!(kind, ElementKind::F32 | ElementKind::F16 | ElementKind::F64);
            // beyond 2^63 no kind of whole numbers has it either
            let whole = !real && end.fract() == 0.0 && end.abs() < 2f64.powi(63);
            let number = if whole { Number::Whole(end as i64) } else { Number::Real(end) };
            number.put(kind, &mut Vec::new()).map_err(|why| {
                SuiteError::new(format!("an end of its range {why}")).hint("write two numbers that its `kind` holds")
            })?;
        }
        if range.0 > range.1 {
            return Err(SuiteError::new(format!("its range begins at {} and ends at {}", range.0, range.1))
                .hint("write the least first: `range = [0, 1]`"));
        }
        Ok(Self { name: name.to_owned(), kind, shape, range })
    }

    fn array(&self, random: &mut impl Rng) -> Array {
        let elements: usize = self.shape.iter().product();
        let (least, most) = self.range;
        let mut bytes = Vec::with_capacity(elements * self.kind.bytes());
        for _ in 0..elements {
            let number = match self.kind {
                // 53 bits, as many as a number of 64 bits holds
                ElementKind::F32 | ElementKind::F16 | ElementKind::F64 => {
                    Number::Real(least + (most - least) * (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64)
                }
                _ => Number::Whole(random.random_range(least as i64..=most as i64)),
            };
            // within the ends, which the kind holds
            if number.put(self.kind, &mut bytes).is_err() {
                bytes.extend(vec![0; self.kind.bytes()]);
            }
        }
        Array { kind: self.kind, shape: self.shape.clone(), bytes: bytes.into() }
    }
}

/// The examples.
///
/// # Errors
/// More bytes than are held.
pub fn examples(
    inputs: &[RandomInput],
    count: usize,
    seed: u64,
    output: Option<String>,
) -> Result<ExampleSet, SuiteError> {
    let wide: usize = inputs.iter().map(|i| i.shape.iter().product::<usize>() * i.kind.bytes()).sum();
    if wide.saturating_mul(count) > MAX_BYTES {
        return Err(SuiteError::new(format!("{count} examples of {wide} bytes are more than {} GiB", MAX_BYTES >> 30))
            .at("`random`")
            .hint("ask for fewer `examples`, or for smaller shapes"));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let example = |i: usize| Example {
        arrays: inputs.iter().map(|input| input.array(&mut random)).collect(),
        cluster: i as u64,
        ..Example::default()
    };
    Ok(ExampleSet {
        examples: (0..count).map(example).collect(),
        puzzle_ids: 1,
        notes: vec!["Throughput only: the inputs are random numbers, and no answer is right or wrong.".into()],
        inputs: inputs.iter().map(|i| i.name.clone()).collect(),
        reads: Scorer::Nothing.reading(output, None),
        answers: Some(AnswerKind::Tokens),
        scorer: Some(Scorer::Nothing),
        ..ExampleSet::default()
    })
}
