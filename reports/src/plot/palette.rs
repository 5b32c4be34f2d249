//! The few colours, dashes, shapes and fills of every plot, and text as SVG has it.
//!
//! In: text. Out: constants; escaped text. Must not: draw.

use crate::clean;

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl std::fmt::Display for Rgb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{:02X}{:02X}{:02X}", self.0, self.1, self.2)
    }
}

/// Text and data that carry the message.
pub const INK: Rgb = Rgb(0x22, 0x22, 0x22);
/// Axis text and quiet labels.
pub const SOFT: Rgb = Rgb(0x5c, 0x5c, 0x5c);
/// Lines that only guide the eye.
pub const GRID: Rgb = Rgb(0xe4, 0xe4, 0xe4);
/// The Pareto front.
pub const FRONT: Rgb = Rgb(0x8c, 0x8c, 0x8c);
/// Halo around marks, inside of hollow marks.
pub const PAPER: Rgb = Rgb(0xff, 0xff, 0xff);
/// Colours of series. The hues are those of Okabe and Ito (2008), darkened until each stands out from white by 3 to 1,
/// and chosen so that any two differ for every kind of colour vision, the first few most; shapes and dashes say the
/// same.
pub const SERIES: [Rgb; 7] = [
    Rgb(0x1f, 0x5f, 0xa8),
    Rgb(0xa8, 0x43, 0x00),
    Rgb(0x44, 0x44, 0x44),
    Rgb(0xcc, 0x5f, 0xa0),
    Rgb(0x3f, 0x9b, 0xd8),
    Rgb(0x00, 0x86, 0x6a),
    Rgb(0xb0, 0x7d, 0x00),
];
/// Every colour that may appear, with its twin on dark ground.
pub const PALETTE: [(Rgb, Rgb); 12] = [
    (INK, Rgb(0xe8, 0xe6, 0xe3)),
    (SOFT, Rgb(0xa9, 0xa7, 0xa3)),
    (GRID, Rgb(0x34, 0x36, 0x3a)),
    (FRONT, Rgb(0x80, 0x82, 0x86)),
    (PAPER, Rgb(0x17, 0x18, 0x1b)),
    (SERIES[0], Rgb(0x4f, 0x8f, 0xe0)),
    (SERIES[1], Rgb(0xe6, 0x6a, 0x1f)),
    (SERIES[2], Rgb(0xff, 0xff, 0xfe)),
    (SERIES[3], Rgb(0xd8, 0x6f, 0xae)),
    (SERIES[4], Rgb(0xa8, 0xdc, 0xff)),
    (SERIES[5], Rgb(0x3d, 0xd6, 0xa8)),
    (SERIES[6], Rgb(0xf0, 0xd0, 0x3c)),
];

/// Fonts by preference; the first is shipped.
pub const FONTS: &str = "Inter, Helvetica, Arial, sans-serif";

/// Shape of a mark.
#[expect(missing_docs, reason = "the names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkerShape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Wedge,
    Plus,
    Bar,
    Cross,
    Hexagon,
    Post,
    Star,
}

/// The shapes that stand for something, in the order in which they are given out. A circle stands for nothing but its
/// case.
pub const SHAPES: [MarkerShape; 10] = [
    MarkerShape::Square,
    MarkerShape::Triangle,
    MarkerShape::Diamond,
    MarkerShape::Wedge,
    MarkerShape::Plus,
    MarkerShape::Bar,
    MarkerShape::Cross,
    MarkerShape::Star,
    MarkerShape::Post,
    MarkerShape::Hexagon,
];

/// What is inside of a mark's rim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Its colour.
    Full,
    /// Nothing.
    Hollow,
    /// A dot.
    Dotted,
}

/// All fills, in the order in which they are given out.
pub const FILLS: [Fill; 3] = [Fill::Full, Fill::Hollow, Fill::Dotted];

/// How a line is broken.
#[expect(missing_docs, reason = "the names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dash {
    Whole,
    Long,
    Short,
    DashDot,
    Dots,
}

/// All dashes, in the order in which they are given out.
pub const DASHES: [Dash; 5] = [Dash::Whole, Dash::Long, Dash::Short, Dash::DashDot, Dash::Dots];

impl Dash {
    /// Lengths of dashes and gaps, as SVG has them.
    pub fn lengths(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Long => "9 4",
            Self::Short => "4 3",
            Self::DashDot => "8 3 1.5 3",
            Self::Dots => "1.5 3",
        }
    }
}

/// Text as XML has it, without what cannot be seen.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in clean::clean(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}
