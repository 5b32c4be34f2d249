//! Every plot as a file of its own, on white.
//!
//! In: a [`Report`]. Out: `plots/<name>.svg`. Must not: draw; the plots are made in [`plot`](crate::plot).

use super::Files;
use crate::{
    plot::{Plot, plots},
    report::Report,
};

/// Makes `plots/*.svg`.
pub fn render(report: &Report) -> Files {
    Ok(files(&plots(report)?))
}

/// Plots that are at hand, as files.
pub fn files(plots: &[Plot]) -> Vec<(String, Vec<u8>)> {
    plots.iter().map(|plot| (format!("plots/{}.svg", plot.name), on_white(plot).into_bytes())).collect()
}

/// The plot's SVG with a white ground, and 4x4 as it is written: some fonts make a sum of it.
pub fn on_white(plot: &Plot) -> String {
    let start = plot.svg.find('>').unwrap_or(0);
    let (head, rest) = plot.svg.split_at(start);
    let ground = "<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>";
    format!("{head} style=\"font-variant-ligatures: no-contextual\">\n{ground}{}", rest.get(1..).unwrap_or_default())
}
