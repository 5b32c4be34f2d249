//! Lines across a plot of accuracy at what rules without a model score.
//!
//! In: names and shares. Out: lines and their names on the canvas. Must not: let two names overlap; a name without room
//! is left to the caption, which has them all.

use super::{
    axis::{PlotArea, PlotAxis},
    canvas::{Anchor, Canvas, TEXT, fitted, text_width},
    palette::{Dash, SOFT},
};

/// Draws them; gives the boxes (left, top, right, bottom) that their names take.
pub fn draw(canvas: &mut Canvas, frame: &PlotArea, axis: &PlotAxis, baselines: &[(String, f64)]) -> Vec<[f64; 4]> {
    let mut order: Vec<&(String, f64)> = baselines.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut taken: Vec<[f64; 4]> = Vec::new();
    for (name, share) in order {
        let y = frame.y(axis, *share);
        let title = format!("without a model, {name}: {:.1} %", 100.0 * share);
        canvas.titled(&title, |canvas| {
            canvas.dashed(&[(frame.left, y), (frame.right, y)], SOFT, 0.8, 0.75, Dash::Short);
        });
        let name = fitted(name, TEXT, 0.6 * (frame.right - frame.left));
        let width = text_width(&name, TEXT);
        // above its line, or below it where another name is above
        for middle in [y - 7.0, y + 7.5] {
            let place = [frame.right - width - 4.0, middle - 6.0, frame.right, middle + 6.0];
            let free = taken.iter().all(|t| place[3] <= t[1] || place[1] >= t[3]);
            if free && place[1] >= frame.top && place[3] <= frame.bottom + 1.0 {
                canvas.label(&name, (frame.right - 2.0, middle), SOFT, Anchor::End);
                taken.push(place);
                break;
            }
        }
    }
    taken
}
