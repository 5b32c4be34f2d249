//! A drawing surface in points that writes SVG, and the few colours and sizes of every plot.
//!
//! In: shapes and text. Out: SVG without a background, so that a page can put it on its own. Must not: use a colour outside [`PALETTE`],
//! which the page's style sheet turns for dark screens.

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::error::ReportError;

/// Text and data that carry the message.
pub const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
/// Axis text and quiet labels.
pub const SOFT: RGBColor = RGBColor(0x66, 0x66, 0x66);
/// Lines that only guide the eye.
pub const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
/// The Pareto front.
pub const FRONT: RGBColor = RGBColor(0xa0, 0xa0, 0xa0);
/// Halo around marks, inside of hollow marks.
pub const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// Colours of series, apart for every kind of colour vision (Okabe and Ito 2008), the yellow left out as too light on white.
pub const SERIES: [RGBColor; 6] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
/// Every colour that may appear.
pub const PALETTE: [RGBColor; 11] =
    [INK, SOFT, GRID, FRONT, PAPER, SERIES[0], SERIES[1], SERIES[2], SERIES[3], SERIES[4], SERIES[5]];

/// Fonts by preference; the first is shipped.
pub const FONTS: &str = "Inter, Helvetica, Arial, sans-serif";

/// Size of axis text and labels, points.
pub const TEXT: f64 = 11.0;

/// plotters draws on whole numbers; this many make a point.
const SCALE: f64 = 8.0;

/// Where text stands relative to its position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    /// Begins there.
    Start,
    /// Is centred there.
    Middle,
    /// Ends there.
    End,
}

/// Shape of a mark.
#[expect(missing_docs, reason = "the names say it")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Wedge,
    Bar,
}

/// All shapes, in the order in which they are given out.
pub const SHAPES: [Shape; 6] =
    [Shape::Circle, Shape::Square, Shape::Triangle, Shape::Diamond, Shape::Wedge, Shape::Bar];

/// The surface.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    error: Option<String>,
}

/// Draws a plot of this size in points; `what` names it in errors.
pub fn draw(what: &str, width: f64, height: f64, paint: impl FnOnce(&mut Canvas)) -> Result<String, ReportError> {
    let mut svg = String::new();
    let size = ((width * SCALE) as u32, (height * SCALE) as u32);
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let mut canvas = Canvas { area, error: None };
        paint(&mut canvas);
        if let Some(error) = canvas.error {
            return Err(ReportError::render(what, error));
        }
        canvas.area.present().map_err(|e| ReportError::render(what, e))?;
    }
    // shown at its size in points; the view box keeps the fine coordinates
    let fine = format!("width=\"{}\" height=\"{}\"", size.0, size.1);
    Ok(svg.replacen(&fine, &format!("width=\"{width}\" height=\"{height}\""), 1))
}

fn fine((x, y): (f64, f64)) -> (i32, i32) {
    ((x * SCALE).round() as i32, (y * SCALE).round() as i32)
}

fn stroke(color: RGBColor, alpha: f64, width: f64) -> ShapeStyle {
    color.mix(alpha).stroke_width((width * SCALE).round() as u32)
}

impl Canvas<'_> {
    fn keep<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) {
        if let Err(error) = result {
            self.error.get_or_insert(error.to_string());
        }
    }

    /// A line through points.
    pub fn line(&mut self, points: &[(f64, f64)], color: RGBColor, alpha: f64, width: f64) {
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        let result = self.area.draw(&PathElement::new(points, stroke(color, alpha, width)));
        self.keep(result);
    }

    /// A filled area.
    pub fn area(&mut self, points: &[(f64, f64)], color: RGBColor, alpha: f64) {
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        let result = self.area.draw(&Polygon::new(points, color.mix(alpha).filled()));
        self.keep(result);
    }

    /// A filled box between two corners.
    pub fn rectangle(&mut self, from: (f64, f64), to: (f64, f64), color: RGBColor, alpha: f64) {
        let result = self.area.draw(&Rectangle::new([fine(from), fine(to)], color.mix(alpha).filled()));
        self.keep(result);
    }

    /// A dot of this radius.
    pub fn dot(&mut self, centre: (f64, f64), radius: f64, color: RGBColor, alpha: f64) {
        let radius = (radius * SCALE).round() as i32;
        let result = self.area.draw(&Circle::new(fine(centre), radius, color.mix(alpha).filled()));
        self.keep(result);
    }

    /// A mark with a halo; hollow ones have a rim only.
    pub fn mark(&mut self, centre: (f64, f64), shape: Shape, size: f64, color: RGBColor, hollow: bool) {
        self.shape(centre, shape, size + 1.0, PAPER);
        self.shape(centre, shape, size, color);
        if hollow {
            self.shape(centre, shape, size - 1.5, PAPER);
        }
    }

    fn shape(&mut self, centre: (f64, f64), shape: Shape, size: f64, color: RGBColor) {
        let corners: &[(f64, f64)] = match shape {
            Shape::Circle => return self.dot(centre, size, color, 1.0),
            Shape::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            Shape::Triangle => &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
            Shape::Diamond => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
            Shape::Wedge => &[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
            Shape::Bar => &[(-1.3, -0.5), (1.3, -0.5), (1.3, 0.5), (-1.3, 0.5)],
        };
        let corners: Vec<_> = corners.iter().map(|(x, y)| (centre.0 + x * size, centre.1 + y * size)).collect();
        self.area(&corners, color, 1.0);
    }

    /// Text whose middle line passes through the position.
    pub fn text(&mut self, text: &str, at: (f64, f64), size: f64, color: RGBColor, anchor: Anchor) {
        self.any_text(text, at, size, color, anchor, FontTransform::None);
    }

    /// Text that runs upwards, centred at the position.
    pub fn upright(&mut self, text: &str, at: (f64, f64), size: f64, color: RGBColor) {
        self.any_text(text, at, size, color, Anchor::Middle, FontTransform::Rotate270);
    }

    fn any_text(
        &mut self,
        text: &str,
        at: (f64, f64),
        size: f64,
        color: RGBColor,
        anchor: Anchor,
        turn: FontTransform,
    ) {
        let horizontal = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        // plotters writes a font size of size / 1.24
        let font = FontDesc::new(FontFamily::Name(FONTS), size * 1.24 * SCALE, FontStyle::Normal).transform(turn);
        let style = TextStyle::from(font).color(&color).pos(Pos::new(horizontal, VPos::Center));
        // control characters are not allowed in XML, not even escaped
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let result = self.area.draw(&Text::new(text, fine(at), style));
        self.keep(result);
    }
}

/// About how wide a text is in Inter, points.
pub fn text_width(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '·' => 0.28,
            'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '-' => 0.39,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.88,
            '0'..='9' => 0.63,
            c if c.is_uppercase() => 0.7,
            c if c as u32 > 0x2000 => 1.0,
            _ => 0.59,
        })
        .sum();
    ems * size
}

/// The text, cut with an ellipsis where it is wider than `room`.
pub fn fitted(text: &str, size: f64, room: f64) -> String {
    if text_width(text, size) <= room {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        if text_width(&cut, size) + size * 1.6 > room {
            break;
        }
        cut.push(c);
    }
    cut + "…"
}
