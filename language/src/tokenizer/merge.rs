//! Merging neighbours of a text until no pair is left: the loop that byte-pair encoding and SentencePiece share.
//!
//! In: a text cut into characters; the order of a pair, if it merges at all. Out: the pieces that are left. Must not: know
//! what an order is.
//!
//! The pair with the least order merges first, of equal ones the leftmost. A queue holds the pairs; each merge adds two,
//! so that a text of n characters takes n log n steps.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

/// None as an index.
const NONE: usize = usize::MAX;

struct Piece {
    /// In the text; empty once it was merged into the one before.
    range: Range<usize>,
    before: usize,
    after: usize,
}

/// The pieces of a text after all merges, in order. `order(left, right)` is asked for neighbours.
pub(super) fn merged<O: Ord>(text: &str, order: impl Fn(&str, &str) -> Option<O>) -> Vec<Range<usize>> {
    let ends = text.char_indices().map(|(at, c)| at..at + c.len_utf8());
    let mut pieces: Vec<Piece> = ends
        .enumerate()
        .map(|(i, range)| Piece { range, before: i.checked_sub(1).unwrap_or(NONE), after: i + 1 })
        .collect();
    if let Some(last) = pieces.last_mut() {
        last.after = NONE;
    }
    let mut queue = BinaryHeap::new();
    let ask = |pieces: &[Piece], left: usize, right: usize, queue: &mut BinaryHeap<_>| {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&pieces[left].range, &pieces[right].range);
        if let Some(order) = order(&text[a.clone()], &text[b.clone()]) {
            queue.push(Reverse((order, left, right, b.end)));
        }
    };
    (1..pieces.len()).for_each(|right| ask(&pieces, right - 1, right, &mut queue));
    while let Some(Reverse((_, left, right, end))) = queue.pop() {
        // what was merged meanwhile is no longer this pair; a piece only ever grows to the right
        let (a, b) = (&pieces[left].range, &pieces[right].range);
        if a.is_empty() || b.is_empty() || pieces[left].after != right || b.end != end {
            continue;
        }
        let after = pieces[right].after;
        pieces[right].range = end..end;
        pieces[left].range.end = end;
        pieces[left].after = after;
        if after != NONE {
            pieces[after].before = left;
        }
        let before = pieces[left].before;
        ask(&pieces, before, left, &mut queue);
        ask(&pieces, left, after, &mut queue);
    }
    pieces.into_iter().map(|p| p.range).filter(|r| !r.is_empty()).collect()
}
