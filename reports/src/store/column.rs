//! A column of whole numbers with gaps, each held in as few bytes as the largest of them needs.
//!
//! In: numbers one by one. Out: the same numbers by place. Must not: lose a number or a gap, whatever it is.

use std::mem::take;

/// Numbers in the narrowest type that holds all of them. A number is held as its successor and a gap as 0, so that a
/// gap costs no more than a number; the last form is for a successor that no type has.
#[derive(Clone, Debug)]
pub(super) enum Column {
    One(Vec<u8>),
    Two(Vec<u16>),
    Four(Vec<u32>),
    Eight(Vec<u64>),
    Any(Vec<Option<u64>>),
}

impl Default for Column {
    fn default() -> Self {
        Self::One(Vec::new())
    }
}

/// A number as it is held, if the type has it.
fn held<T: TryFrom<u64>>(value: Option<u64>) -> Option<T> {
    let held = match value {
        None => 0,
        Some(value) => value.checked_add(1)?,
    };
    T::try_from(held).ok()
}

/// Puts a number at the end if the type has it; gives whether it has.
fn append<T: TryFrom<u64>>(column: &mut Vec<T>, value: Option<u64>) -> bool {
    held(value).map(|held| column.push(held)).is_some()
}

/// The same numbers in another type.
fn wider<T, U: From<T>>(column: Vec<T>) -> Vec<U> {
    column.into_iter().map(U::from).collect()
}

impl Column {
    /// Puts a number, or a gap, at the end.
    pub(super) fn push(&mut self, value: Option<u64>) {
        while !self.put(value) {
            self.widen();
        }
    }

    /// Puts it at the end if its type has it; gives whether it has.
    fn put(&mut self, value: Option<u64>) -> bool {
        match self {
            Self::One(column) => append(column, value),
            Self::Two(column) => append(column, value),
            Self::Four(column) => append(column, value),
            Self::Eight(column) => append(column, value),
            Self::Any(column) => {
                column.push(value);
                true
            }
        }
    }

    fn widen(&mut self) {
        *self = match take(self) {
            Self::One(column) => Self::Two(wider(column)),
            Self::Two(column) => Self::Four(wider(column)),
            Self::Four(column) => Self::Eight(wider(column)),
            Self::Eight(column) => Self::Any(column.into_iter().map(|held| held.checked_sub(1)).collect()),
            any => any,
        };
    }

    /// The number at a place, or the gap; none too where the column ends before it.
    pub(super) fn get(&self, place: usize) -> Option<u64> {
        let held: u64 = match self {
            Self::One(column) => column.get(place).copied()?.into(),
            Self::Two(column) => column.get(place).copied()?.into(),
            Self::Four(column) => column.get(place).copied()?.into(),
            Self::Eight(column) => *column.get(place)?,
            Self::Any(column) => return *column.get(place)?,
        };
        held.checked_sub(1)
    }

    /// Bytes that its numbers take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::One(column) => column.len(),
            Self::Two(column) => 2 * column.len(),
            Self::Four(column) => 4 * column.len(),
            Self::Eight(column) => 8 * column.len(),
            Self::Any(column) => size_of::<Option<u64>>() * column.len(),
        }
    }

    /// Gives back what is reserved for numbers to come.
    pub(super) fn shrink(&mut self) {
        match self {
            Self::One(column) => column.shrink_to_fit(),
            Self::Two(column) => column.shrink_to_fit(),
            Self::Four(column) => column.shrink_to_fit(),
            Self::Eight(column) => column.shrink_to_fit(),
            Self::Any(column) => column.shrink_to_fit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_column_is_as_wide_as_its_largest_number() {
        let width = |largest: u64| {
            let mut column = Column::default();
            [Some(0), None, Some(largest)].into_iter().for_each(|v| column.push(v));
            assert_eq!([0, 1, 2, 3].map(|i| column.get(i)), [Some(0), None, Some(largest), None]);
            match column {
                Column::One(_) => 1,
                Column::Two(_) => 2,
                Column::Four(_) => 4,
                Column::Eight(_) => 8,
                Column::Any(_) => 16,
            }
        };
        let most = [254, 255, 65_534, 65_535, u64::from(u32::MAX) - 1, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        assert_eq!(most.map(width), [1, 2, 2, 4, 4, 8, 8, 16]);
    }

    proptest! {
        #[test]
        fn every_number_and_gap_comes_back(
            values in prop::collection::vec((any::<u64>(), 0u32..64, any::<bool>()), 0..200)
        ) {
            let values: Vec<Option<u64>> = values.into_iter().map(|(v, by, there)| there.then_some(v >> by)).collect();
            let mut column = Column::default();
            values.iter().for_each(|v| column.push(*v));
            column.shrink();
            let back: Vec<Option<u64>> = (0..values.len()).map(|i| column.get(i)).collect();
            prop_assert_eq!(back, values);
        }
    }
}
