//! A drawing surface in points that plotters draws as SVG.
//!
//! In: shapes and text. Out: SVG without a background, so that a page can put it on its own. Must not: use a colour
//! outside the palette, which the page's style sheet turns for dark screens, or write text unescaped.

use std::{cell::RefCell, rc::Rc};

use plotters::{
    coord::Shift,
    drawing::DrawingArea,
    element::{Circle, Drawable, PathElement, PointCollection, Polygon, Rectangle, Text},
    style::{
        FontDesc, FontFamily, FontStyle, FontTransform, RGBAColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};
use plotters_backend::{BackendColor, BackendCoord};

use super::palette::{Dash, FONTS, Fill, MarkerShape, PAPER, Rgb};
use super::svg::{Svg, units};

/// Size of axis text and labels, points.
pub const TEXT: f64 = 11.0;

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

/// The surface.
pub struct Canvas {
    svg: Rc<RefCell<Svg>>,
    area: DrawingArea<Svg, Shift>,
}

/// Draws a plot of this size in points.
pub fn draw(width: f64, height: f64, paint: impl FnOnce(&mut Canvas)) -> String {
    let svg = Rc::new(RefCell::new(Svg::new(width, height)));
    let area = DrawingArea::from(&svg);
    let mut canvas = Canvas { svg, area };
    paint(&mut canvas);
    canvas.svg.borrow_mut().finish()
}

/// A place as plotters has it.
fn place((x, y): (f64, f64)) -> BackendCoord {
    (units(x), units(y))
}

fn places(points: &[(f64, f64)]) -> Vec<BackendCoord> {
    points.iter().copied().map(place).collect()
}

/// A style of plotters' elements; the width is that of a line.
fn style(Rgb(r, g, b): Rgb, alpha: f64, width: f64) -> ShapeStyle {
    ShapeStyle { color: RGBAColor(r, g, b, alpha), filled: true, stroke_width: units(width).unsigned_abs() }
}

impl Canvas {
    fn put<'a, E: Drawable<Svg>>(&self, element: &'a E)
    where
        &'a E: PointCollection<'a, BackendCoord>,
    {
        // writing to a String does not fail, and nobody else holds it meanwhile
        let _ = self.area.draw(element);
    }

    /// What belongs together, with words that a pointer or a screen reader brings up.
    pub fn titled(&mut self, title: &str, paint: impl FnOnce(&mut Self)) {
        self.svg.borrow_mut().open(title);
        paint(self);
        self.svg.borrow_mut().close();
    }

    /// A line through points.
    pub fn line(&mut self, points: &[(f64, f64)], color: Rgb, alpha: f64, width: f64) {
        self.put(&PathElement::new(places(points), style(color, alpha, width)));
    }

    /// The same in dashes.
    pub fn dashed(&mut self, points: &[(f64, f64)], color: Rgb, alpha: f64, width: f64, dash: Dash) {
        self.svg.borrow_mut().dash = dash;
        self.line(points, color, alpha, width);
        self.svg.borrow_mut().dash = Dash::Whole;
    }

    /// A filled area.
    pub fn area(&mut self, points: &[(f64, f64)], color: Rgb, alpha: f64) {
        self.put(&Polygon::new(places(points), style(color, alpha, 0.0)));
    }

    /// A filled box between two corners.
    pub fn rectangle(&mut self, from: (f64, f64), to: (f64, f64), color: Rgb, alpha: f64) {
        self.put(&Rectangle::new([place(from), place(to)], style(color, alpha, 0.0)));
    }

    /// A dot of this radius.
    pub fn dot(&mut self, centre: (f64, f64), radius: f64, color: Rgb, alpha: f64) {
        self.put(&Circle::new(place(centre), units(radius), style(color, alpha, 0.0)));
    }

    /// A mark with a halo; one that is not full has a rim and paper inside.
    pub fn mark(&mut self, centre: (f64, f64), shape: MarkerShape, size: f64, color: Rgb, fill: Fill) {
        let outer = corners(centre, shape, size);
        // two strokes would leave no halo around a rim
        self.rim(centre, &outer, size, (PAPER, PAPER, 2.0));
        match fill {
            Fill::Full => self.rim(centre, &outer, size, (color, color, 0.3)),
            Fill::Hollow | Fill::Dotted => self.rim(centre, &outer, size, (PAPER, color, 1.3)),
        }
        if fill == Fill::Dotted {
            self.dot(centre, 1.3, color, 1.0);
        }
    }

    /// Where a line stops, on average: a stroke across it, unlike any mark of a case.
    pub fn stop(&mut self, (x, y): (f64, f64), color: Rgb) {
        let across = [(x, y - 6.0), (x, y + 6.0)];
        self.line(&across, PAPER, 1.0, 5.0);
        self.line(&across, color, 1.0, 2.4);
    }

    fn rim(&mut self, centre: (f64, f64), corners: &[(f64, f64)], size: f64, (fill, stroke, width): (Rgb, Rgb, f64)) {
        self.svg.borrow_mut().rim = Some((stroke, units(width).unsigned_abs()));
        if corners.is_empty() {
            self.dot(centre, size, fill, 1.0);
        } else {
            self.area(corners, fill, 1.0);
        }
        self.svg.borrow_mut().rim = None;
    }

    /// Text whose middle line passes through the position.
    pub fn text(&mut self, text: &str, at: (f64, f64), size: f64, color: Rgb, anchor: Anchor) {
        self.any_text(text, at, size, color, anchor, FontTransform::None);
    }

    /// Text among data: a halo keeps the lines that pass by off its letters.
    pub fn label(&mut self, text: &str, at: (f64, f64), color: Rgb, anchor: Anchor) {
        self.svg.borrow_mut().rim = Some((PAPER, units(3.0).unsigned_abs()));
        self.text(text, at, TEXT, color, anchor);
        self.svg.borrow_mut().rim = None;
    }

    /// Text that runs upwards, centred at the position.
    pub fn upright(&mut self, text: &str, at: (f64, f64), size: f64, color: Rgb) {
        self.any_text(text, at, size, color, Anchor::Middle, FontTransform::Rotate270);
    }

    fn any_text(&self, text: &str, at: (f64, f64), size: f64, color: Rgb, anchor: Anchor, turn: FontTransform) {
        let across = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let font = FontDesc::new(FontFamily::Name(FONTS), f64::from(units(size)), FontStyle::Normal).transform(turn);
        let Rgb(r, g, b) = color;
        let style =
            TextStyle { font, color: BackendColor { alpha: 1.0, rgb: (r, g, b) }, pos: Pos::new(across, VPos::Center) };
        self.put(&Text::new(text, place(at), style));
    }
}

/// Corners of a shape; none: a circle.
fn corners((x, y): (f64, f64), shape: MarkerShape, size: f64) -> Vec<(f64, f64)> {
    let turned = |n: u32, radius: &dyn Fn(u32) -> f64, first: f64| {
        let corner = |i: u32| {
            let angle = std::f64::consts::TAU * f64::from(i) / f64::from(n) + first;
            (radius(i) * angle.cos(), radius(i) * angle.sin())
        };
        (0..n).map(corner).collect::<Vec<_>>()
    };
    let up = -std::f64::consts::FRAC_PI_2;
    let plus = |a: f64| {
        let (t, l) = (0.38, 1.2);
        let arms = [
            (-t, -l),
            (t, -l),
            (t, -t),
            (l, -t),
            (l, t),
            (t, t),
            (t, l),
            (-t, l),
            (-t, t),
            (-l, t),
            (-l, -t),
            (-t, -t),
        ];
        arms.map(|(x, y): (f64, f64)| (x * a.cos() - y * a.sin(), x * a.sin() + y * a.cos())).to_vec()
    };
    let corners = match shape {
        MarkerShape::Circle => Vec::new(),
        MarkerShape::Square => vec![(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        MarkerShape::Triangle => vec![(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        MarkerShape::Diamond => vec![(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
        MarkerShape::Wedge => vec![(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
        MarkerShape::Plus => plus(0.0),
        MarkerShape::Cross => plus(std::f64::consts::FRAC_PI_4),
        MarkerShape::Bar => vec![(-1.3, -0.5), (1.3, -0.5), (1.3, 0.5), (-1.3, 0.5)],
        MarkerShape::Post => vec![(-0.5, -1.3), (0.5, -1.3), (0.5, 1.3), (-0.5, 1.3)],
        MarkerShape::Hexagon => turned(6, &|_| 1.1, up),
        MarkerShape::Star => turned(10, &|i| if i % 2 == 0 { 1.45 } else { 0.6 }, up),
    };
    corners.into_iter().map(|(dx, dy)| (x + dx * size, y + dy * size)).collect()
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
