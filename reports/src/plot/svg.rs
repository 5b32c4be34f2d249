//! What plotters draws on: SVG with dashes, rims and groups that have a title.
//!
//! In: lines, areas, circles and texts of plotters' elements, in hundredths of a point. Out: SVG in points. Must not:
//! measure a font, or write text unescaped.

use std::{convert::Infallible, fmt::Write};

use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontTransform,
    text_anchor::HPos,
};

use super::palette::{Dash, FONTS, Rgb, escaped};

/// Units of plotters' whole coordinates in a point.
const UNITS: f64 = 100.0;

/// A length in points as plotters has it.
pub fn units(length: f64) -> i32 {
    (length * UNITS).round() as i32
}

/// The backend.
#[derive(Debug)]
pub struct Svg {
    text: String,
    size: (u32, u32),
    /// How lines are broken.
    pub dash: Dash,
    /// Colour and width, in units, of what runs around areas, circles and letters.
    pub rim: Option<(Rgb, u32)>,
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl Svg {
    /// An empty one of this size in points.
    pub fn new(width: f64, height: f64) -> Self {
        let size = (units(width).unsigned_abs(), units(height).unsigned_abs());
        let mut svg = Self { text: String::new(), size, dash: Dash::Whole, rim: None };
        let (w, h) = (fine(width), fine(height));
        svg.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" font-family=\"{FONTS}\">\n"
        ));
        svg
    }

    /// Begins a group of marks with words that a pointer or a screen reader brings up.
    pub fn open(&mut self, title: &str) {
        self.put(format_args!("<g class=\"mark\"><title>{}</title>\n", escaped(title)));
    }

    /// Ends the group.
    pub fn close(&mut self) {
        self.text += "</g>\n";
    }

    /// The whole picture; nothing is left here.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.text) + "</svg>\n"
    }

    fn put(&mut self, text: std::fmt::Arguments) {
        // writing to a String does not fail
        let _ = self.text.write_fmt(text);
    }

    /// Attributes of the rim, with a space before them.
    fn rim(&self) -> String {
        let look = |(color, width)| format!(" stroke=\"{color}\" stroke-width=\"{}\"", point(width));
        self.rim.map_or_else(String::new, look)
    }
}

/// A length to a hundredth of a point.
fn fine(length: f64) -> String {
    let text = format!("{length:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Units as points.
fn point(units: impl Into<f64>) -> String {
    fine(units.into() / UNITS)
}

fn path(points: impl IntoIterator<Item = BackendCoord>) -> String {
    points.into_iter().map(|(x, y)| format!("{},{}", point(x), point(y))).collect::<Vec<_>>().join(" ")
}

/// The colour, and an attribute that is left out where nothing shines through.
fn look(BackendColor { rgb: (r, g, b), alpha }: BackendColor) -> (Rgb, String) {
    let opacity = if alpha < 1.0 { format!(" opacity=\"{}\"", fine(alpha)) } else { String::new() };
    (Rgb(r, g, b), opacity)
}

impl DrawingBackend for Svg {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        self.draw_rect((x, y), (x + 1, y + 1), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S, fill: bool) -> Drawn {
        let corners = [from, (to.0, from.1), to, (from.0, to.1)];
        if fill { self.fill_polygon(corners, style) } else { self.draw_path(corners.into_iter().chain([from]), style) }
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, points: I, style: &S) -> Drawn {
        let (color, opacity) = look(style.color());
        let (width, path) = (point(style.stroke_width()), path(points));
        let dash = match self.dash.lengths() {
            "" => String::new(),
            lengths => format!(" stroke-dasharray=\"{lengths}\""),
        };
        self.put(format_args!(
            "<polyline fill=\"none\" stroke=\"{color}\"{opacity} stroke-width=\"{width}\"{dash} points=\"{path}\"/>\n"
        ));
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(&mut self, centre: BackendCoord, radius: u32, style: &S, fill: bool) -> Drawn {
        let (color, opacity) = look(style.color());
        let (x, y, r) = (point(centre.0), point(centre.1), point(radius));
        let look = if fill {
            format!("fill=\"{color}\"{opacity}{}", self.rim())
        } else {
            format!("fill=\"none\" stroke=\"{color}\"{opacity} stroke-width=\"{}\"", point(style.stroke_width()))
        };
        self.put(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" {look}/>\n"));
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, points: I, style: &S) -> Drawn {
        let (color, opacity) = look(style.color());
        let (path, rim) = (path(points), self.rim());
        if rim.is_empty() {
            self.put(format_args!("<polygon fill=\"{color}\"{opacity} points=\"{path}\"/>\n"));
        } else {
            self.put(format_args!("<polygon points=\"{path}\" fill=\"{color}\"{opacity}{rim}/>\n"));
        }
        Ok(())
    }

    /// The middle line of the text passes through the position, whatever the vertical anchor.
    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, at: BackendCoord) -> Drawn {
        let anchor = match style.anchor().h_pos {
            HPos::Left => "start",
            HPos::Center => "middle",
            HPos::Right => "end",
        };
        let (x, y) = (point(at.0), point(at.1));
        let turn = match style.transform() {
            FontTransform::None => String::new(),
            FontTransform::Rotate90 => format!(" transform=\"rotate(90 {x} {y})\""),
            FontTransform::Rotate180 => format!(" transform=\"rotate(180 {x} {y})\""),
            FontTransform::Rotate270 => format!(" transform=\"rotate(-90 {x} {y})\""),
        };
        let (color, opacity) = look(style.color());
        let halo = match self.rim() {
            rim if rim.is_empty() => rim,
            rim => format!("{rim} stroke-linejoin=\"round\" paint-order=\"stroke\""),
        };
        let (size, dy, text) = (point(style.size()), point(0.36 * style.size()), escaped(text));
        self.put(format_args!(
            "<text x=\"{x}\" y=\"{y}\" dy=\"{dy}\" font-size=\"{size}\" fill=\"{color}\"{opacity} text-anchor=\"{anchor}\"{turn}{halo}>{text}</text>\n"
        ));
        Ok(())
    }
}
