//! Every plot as PNG: the SVG, rendered with the shipped font alone, so that every machine makes the same picture.
//!
//! In: a [`Report`]. Out: `plots/<name>.png`. Must not: use a font of the system.

use std::sync::Arc;

use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

use super::{Files, svg::on_white};
use crate::{error::ReportError, plot::plots, report::Report};

/// Inter, under the SIL Open Font License (fonts/Inter-LICENSE.txt).
const FONT: &[u8] = include_bytes!("../../fonts/Inter-Regular.otf");

/// Pixels a point.
const ZOOM: f32 = 3.0;

/// Largest edge in pixels; a plot of very many rows is rendered smaller instead of filling the memory.
const MAX_EDGE: f32 = 12_000.0;

/// Makes `plots/*.png`.
pub fn render(report: &Report) -> Files {
    let mut fonts = Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family("Inter");
    let options = Options { fontdb: Arc::new(fonts), font_family: "Inter".into(), ..Options::default() };
    let mut files = Vec::new();
    for plot in plots(report)? {
        files.push((format!("plots/{}.png", plot.name), rasterise(&plot.name, &on_white(&plot), &options)?));
    }
    Ok(files)
}

fn rasterise(name: &str, svg: &str, options: &Options) -> Result<Vec<u8>, ReportError> {
    let tree = Tree::from_str(svg, options).map_err(|e| ReportError::render(name, e))?;
    let size = tree.size();
    let zoom = ZOOM.min(MAX_EDGE / size.height()).min(MAX_EDGE / size.width());
    let (width, height) = ((size.width() * zoom).ceil() as u32, (size.height() * zoom).ceil() as u32);
    let mut picture = Pixmap::new(width, height).ok_or_else(|| ReportError::render(name, "an empty picture"))?;
    resvg::render(&tree, Transform::from_scale(zoom, zoom), &mut picture.as_mut());
    picture.encode_png().map_err(|e| ReportError::render(name, e))
}
