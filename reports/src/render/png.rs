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
    let options = options();
    let mut files = Vec::new();
    for plot in plots {
        files.push((format!("plots/{}.png", plot.name), rasterise(&plot.name, &on_white(plot), &options)?));
    }
    Ok(files)
}

/// The shipped font and no other.
fn options() -> Options<'static> {
    let mut fonts = Database::new();
    fonts.load_font_data(without_ligatures(FONT));
    fonts.set_sans_serif_family("Inter");
    Options { fontdb: Arc::new(fonts), font_family: "Inter".into(), ..Options::default() }
}

/// A line of text of letters, digits and blanks, black on white in the shipped font: so many rows of grey pixels, as wide
/// as the text. `None`: it cannot be drawn.
pub fn grey_line(text: &str, height: u32) -> Option<Vec<u8>> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ') {
        return None;
    }
    // the widest letter is no wider than a line is high
    let (most, size) = (height * text.len() as u32, 0.7 * f64::from(height));
    let (left, base) = (0.15 * f64::from(height), 0.76 * f64::from(height));
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{most}\" height=\"{height}\">\
         <rect width=\"{most}\" height=\"{height}\" fill=\"white\"/>\
         <text x=\"{left}\" y=\"{base}\" font-family=\"Inter\" font-size=\"{size}\">{text}</text></svg>"
    );
    let tree = Tree::from_str(&svg, &options()).ok()?;
    let mut picture = Pixmap::new(most, height)?;
    resvg::render(&tree, Transform::default(), &mut picture.as_mut());
    let grey: Vec<u8> = picture.pixels().iter().map(|p| p.red()).collect();
    let last = grey.iter().enumerate().filter(|(_, p)| **p < 255).map(|(i, _)| i % most as usize).max()?;
    let width = (last + 1 + left as usize).min(most as usize);
    Some(grey.chunks_exact(most as usize).flat_map(|row| row[..width].to_vec()).collect())
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
    fn a_line_of_text_is_as_wide_as_it_is_long() {
        let [short, long] = ["Berlin", "Berlin harbour 17"].map(|text| grey_line(text, 48).unwrap());
        assert!(short.len() % 48 == 0 && long.len() > 2 * short.len() && long.len() < 4 * short.len());
        assert!(short[0] == 255 && short.iter().filter(|p| **p < 64).count() > 300, "black on white");
        assert_eq!((grey_line("", 48), grey_line("<b>", 48), grey_line(" ", 48)), (None, None, None));
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
