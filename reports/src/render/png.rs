//! Every plot as PNG: the SVG, rendered with the shipped font alone, so that every machine makes the same picture.
//!
//! In: a [`Report`]. Out: `plots/<name>.png`. Must not: use a font of the system.

use std::sync::Arc;

use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

use super::{Files, svg::on_white};
use crate::{
    error::ReportError,
    plot::{Plot, plots},
    report::Report,
};

/// Inter, under the SIL Open Font License (fonts/Inter-LICENSE.txt).
const FONT: &[u8] = include_bytes!("../../fonts/Inter-Regular.otf");

/// Pixels a point.
const ZOOM: f32 = 3.0;

/// Largest edge in pixels; a plot of very many rows is rendered smaller instead of filling the memory.
const MAX_EDGE: f32 = 12_000.0;

/// Makes `plots/*.png`.
pub fn render(report: &Report) -> Files {
    files(&plots(report)?)
}

/// Plots that are at hand, as files.
pub fn files(plots: &[Plot]) -> Files {
    let mut fonts = Database::new();
    fonts.load_font_data(without_ligatures(FONT));
    fonts.set_sans_serif_family("Inter");
    let options = Options { fontdb: Arc::new(fonts), font_family: "Inter".into(), ..Options::default() };
    let mut files = Vec::new();
    for plot in plots {
        files.push((format!("plots/{}.png", plot.name), rasterise(&plot.name, &on_white(plot), &options)?));
    }
    Ok(files)
}

/// The font without its table of substitutions, which makes a sum of a name like 6x6. The table's name in the directory
/// is changed to one that nobody asks for and that keeps the directory in order.
fn without_ligatures(font: &[u8]) -> Vec<u8> {
    let mut font = font.to_vec();
    let tables = font.get(4..6).map_or(0, |n| usize::from(u16::from_be_bytes([n[0], n[1]])));
    for entry in font.chunks_exact_mut(4).skip(3).step_by(4).take(tables).filter(|tag| *tag == b"GSUB") {
        entry.copy_from_slice(b"GSUC");
    }
    font
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The picture of a text, by the font as it is or as it is used.
    fn picture(text: &str, font: Vec<u8>) -> Vec<u8> {
        let mut fonts = Database::new();
        fonts.load_font_data(font);
        fonts.set_sans_serif_family("Inter");
        let options = Options { fontdb: Arc::new(fonts), font_family: "Inter".into(), ..Options::default() };
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"90\" height=\"20\"><text x=\"2\" y=\"14\" font-size=\"12\">{text}</text></svg>"
        );
        rasterise("text", &svg, &options).unwrap()
    }

    #[test]
    fn a_name_with_an_x_is_no_sum() {
        let sum = "6\u{d7}6";
        assert_eq!(picture("6x6", FONT.to_vec()), picture(sum, FONT.to_vec()), "the font has the ligature");
        assert_ne!(picture("6x6", without_ligatures(FONT)), picture(sum, without_ligatures(FONT)));
        assert!(
            !picture("", without_ligatures(FONT)).eq(&picture("6x6", without_ligatures(FONT))),
            "nothing was drawn"
        );
    }
}
