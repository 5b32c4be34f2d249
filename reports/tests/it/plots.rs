//! Plots: a title on every mark, one mapping of colours and shapes, colours that everybody can tell apart, labels that
//! do not collide, no plot of one point; and the page's rules for phones and paper.
//!
//! In: synthetic runs. Out: verdicts. Must not: need a browser.

use std::collections::{BTreeMap, BTreeSet};

use ergometer_reports::{
    RecordedRun, Report,
    case::CaseKey,
    plot::{
        Plot, appearance,
        canvas::text_width,
        palette::{GRID, INK, MarkerShape, PALETTE, PAPER, Rgb, SERIES, SHAPES, SOFT},
        plots,
    },
    render::format,
};

use crate::synthetic::{self, Edit};

fn runs() -> Vec<(&'static str, RecordedRun)> {
    let mut named = synthetic::large();
    for case in &mut named.cases {
        case.case.key.model += "-with-a-name-that-goes-on-and-on";
        case.case.key.backend += "-and-so-does-its-backend";
        case.case.path = case.case.key.path();
    }
    vec![
        ("small", synthetic::small()),
        ("large", synthetic::large()),
        ("decided", synthetic::decided()),
        ("turns", synthetic::turns()),
        ("precisions", synthetic::precisions()),
        ("unmetered", synthetic::unmetered()),
        ("checked", synthetic::checked()),
        ("sixty", synthetic::sixty()),
        ("long names", named),
    ]
}

fn page(report: &Report) -> String {
    String::from_utf8((format("html").unwrap().render)(report).unwrap()[0].1.clone()).unwrap()
}

/// The inside of each group of marks of a picture.
fn marks(plot: &Plot) -> Vec<&str> {
    plot.svg.split("<g class=\"mark\">").skip(1).map(|rest| rest.split("</g>").next().unwrap()).collect()
}

#[test]
fn every_mark_has_a_title_and_no_plot_has_one_point() {
    for (name, run) in runs() {
        for plot in plots(&Report::new(run)).unwrap() {
            let marks = marks(&plot);
            assert!(marks.len() > 1, "{name}: {} has {} marks", plot.name, marks.len());
            for mark in &marks {
                let title = mark.strip_prefix("<title>").and_then(|t| t.split("</title>").next());
                assert!(title.is_some_and(|t| t.len() > 3), "{name}: {}: {mark}", plot.name);
            }
            // what is drawn of data, rims with paper inside, stands in a group or in the key above the frame
            assert!(!plot.svg.contains("NaN") && !plot.svg.contains("inf"), "{name}: {}", plot.name);
        }
    }
}

#[test]
fn one_case_is_no_plot_of_one_point() {
    let mut run = synthetic::small();
    run.cases.retain(|c| c.case.error.is_none());
    run.cases.sort_by_key(|c| c.case.key.family != "dense");
    run.cases.truncate(1);
    let names: Vec<String> = plots(&Report::new(run)).unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["latency"], "its blocks side by side, and nothing else");
}

#[test]
fn a_backend_looks_the_same_in_every_plot() {
    let mut run = synthetic::precisions();
    run.cases.extend(synthetic::large().cases.into_iter().filter(|c| c.case.key.backend != "native"));
    let report = Report::new(run);
    let look = appearance(&report);
    let keys: Vec<&CaseKey> = report.run.cases.iter().map(|c| &c.case.key).collect();
    let mut shapes = BTreeMap::new();
    for key in &keys {
        let shape = *shapes.entry(&key.backend).or_insert_with(|| look.shape(key));
        assert_eq!(shape, look.shape(key), "{}", key.backend);
    }
    assert_eq!(shapes.values().collect::<std::collections::HashSet<_>>().len(), shapes.len(), "{shapes:?}");
    // the mark of a case is drawn in its colour wherever it stands
    let by_path: BTreeMap<&str, &CaseKey> =
        report.run.cases.iter().map(|c| (c.case.path.as_str(), &c.case.key)).collect();
    let mut seen = 0;
    for plot in plots(&report).unwrap() {
        for mark in marks(&plot) {
            let title = mark.split("</title>").next().unwrap().trim_start_matches("<title>");
            let Some(key) = by_path.iter().find(|(path, _)| title.starts_with(&format!("{path}:"))).map(|f| f.1) else {
                continue;
            };
            assert!(mark.contains(&look.color(key).to_string()), "{}: {title}", plot.name);
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} marks of cases found");
}

/// Relative luminance and linear parts (WCAG 2, sRGB).
fn linear(Rgb(r, g, b): Rgb) -> [f64; 3] {
    [r, g, b].map(|c| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    })
}

fn contrast(a: Rgb, b: Rgb) -> f64 {
    let luminance = |c: Rgb| linear(c).iter().zip([0.2126, 0.7152, 0.0722]).map(|(c, w)| c * w).sum::<f64>() + 0.05;
    let (a, b) = (luminance(a), luminance(b));
    a.max(b) / a.min(b)
}

#[test]
fn text_and_marks_stand_out_on_light_and_dark_ground() {
    let dark = |c: Rgb| PALETTE.iter().find(|p| p.0 == c).unwrap().1;
    for turn in [|c| c, dark as fn(Rgb) -> Rgb] {
        let paper = turn(PAPER);
        for text in [INK, SOFT] {
            assert!(contrast(turn(text), paper) >= 4.5, "text {text} at {:.2}", contrast(turn(text), paper));
        }
        for mark in SERIES {
            assert!(contrast(turn(mark), paper) >= 3.0, "mark {mark} at {:.2}", contrast(turn(mark), paper));
        }
        assert!(contrast(turn(GRID), paper) < 3.0, "the grid is no data");
    }
}

/// CIE L*a*b* of linear parts.
fn lab([r, g, b]: [f64; 3]) -> [f64; 3] {
    let f = |t: f64| if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
    let x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047);
    let y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
    let z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// Machado, Oliveira and Fernandes 2009, full severity: normal, protan, deutan, tritan.
const EYES: [[[f64; 3]; 3]; 4] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
];

#[test]
fn every_kind_of_colour_vision_tells_the_series_apart() {
    let seen = |color: Rgb, eye: &[[f64; 3]; 3]| {
        let parts = linear(color);
        lab(eye.map(|row| row.iter().zip(parts).map(|(m, c)| m * c).sum::<f64>().clamp(0.0, 1.0)))
    };
    let twins = SERIES.map(|c| PALETTE.iter().find(|p| p.0 == c).unwrap().1);
    for colors in [SERIES, twins] {
        for eye in &EYES {
            for (i, a) in colors.iter().enumerate() {
                for b in &colors[..i] {
                    let (p, q) = (seen(*a, eye), seen(*b, eye));
                    let apart = p.iter().zip(q).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt();
                    assert!(apart > 12.0, "{a} and {b}: {apart:.1}");
                }
            }
        }
    }
}

/// Boxes of the upright texts of a picture: left, top, right, bottom, words.
fn boxes(plot: &Plot) -> Vec<([f64; 4], String)> {
    let attribute = |text: &str, name: &str| {
        let from = text.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
        text[from..].split('"').next().unwrap().to_owned()
    };
    let number = |text: &str, name: &str| attribute(text, name).parse::<f64>().unwrap();
    let texts = plot.svg.split("<text").skip(1).map(|t| t.split("</text>").next().unwrap());
    texts
        .filter(|t| !t.contains("rotate"))
        .map(|t| {
            let words = t.split('>').nth(1).unwrap().replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
            // narrower and lower than the words are drawn, so that a touch is no collision
            let (x, y, size) = (number(t, "x"), number(t, "y"), number(t, "font-size"));
            let width = 0.86 * text_width(&words, size);
            let left = match attribute(t, "text-anchor").as_str() {
                "start" => x,
                "middle" => x - width / 2.0,
                _ => x - width,
            };
            ([left, y - 0.35 * size, left + width, y + 0.35 * size], words)
        })
        .collect()
}

#[test]
fn labels_do_not_collide() {
    let mut texts = 0;
    for (name, run) in runs() {
        for plot in plots(&Report::new(run)).unwrap() {
            let boxes = boxes(&plot);
            texts += boxes.len();
            for (i, (a, first)) in boxes.iter().enumerate() {
                for (b, second) in &boxes[..i] {
                    let apart = a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
                    assert!(apart, "{name}: {}: `{first}` lies on `{second}`", plot.name);
                }
            }
        }
    }
    assert!(texts > 300, "{texts} texts");
}

/// Straight pieces of lines that carry data or guide the eye to it: from, to. The grid and the axes are none.
fn lines(plot: &Plot) -> Vec<[(f64, f64); 2]> {
    let drawn = plot.svg.split("<polyline").skip(1).map(|t| t.split("/>").next().unwrap());
    let quiet = [GRID, SOFT].map(|c| format!("stroke=\"{c}\""));
    drawn
        // axes and their ticks are whole and quiet, slanted lines of a roofline are not whole
        .filter(|t| !t.contains(&quiet[0]) && (!t.contains(&quiet[1]) || t.contains("dasharray")))
        .flat_map(|t| {
            let points = t.split("points=\"").nth(1).unwrap().trim_end_matches('"');
            let number = |p: &str| p.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
            let points: Vec<(f64, f64)> = points.split(' ').map(number).collect();
            points.windows(2).map(|w| [w[0], w[1]]).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn no_line_passes_through_a_label() {
    let mut seen = 0;
    for (name, run) in runs() {
        for plot in plots(&Report::new(run)).unwrap() {
            let lines = lines(&plot);
            seen += lines.len();
            for (place, words) in boxes(&plot) {
                // letters stand on the rule of their row, which their halo interrupts
                if words.len() == 1 && plot.name.starts_with("memory") {
                    continue;
                }
                let crossed = lines.iter().find(|[a, b]| {
                    (0..=100).map(|i| f64::from(i) / 100.0).any(|t| {
                        let (x, y) = (a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1));
                        (place[0]..place[2]).contains(&x) && (place[1]..place[3]).contains(&y)
                    })
                });
                assert!(crossed.is_none(), "{name}: {}: {crossed:?} passes through `{words}` {place:?}", plot.name);
            }
        }
    }
    assert!(seen > 1000, "{seen} lines");
}

#[test]
fn letters_among_data_have_a_halo() {
    let drawn = plots(&Report::new(synthetic::large())).unwrap();
    let memory = drawn.iter().find(|p| p.name.starts_with("memory")).unwrap();
    let letters: Vec<&str> = memory.svg.split("<text").filter(|t| t.contains(">w</text>")).collect();
    assert!(letters.len() > 1);
    assert!(
        letters[1..].iter().all(|t| t.contains("paint-order=\"stroke\"")),
        "those of the rows, not that of the key"
    );
}

#[test]
fn captions_speak_of_the_intervals_that_the_records_have() {
    for (name, run) in runs() {
        let report = Report::new(run);
        for plot in plots(&report).unwrap() {
            let caption = &plot.caption;
            let text = format!("{name}: {}: {caption}", plot.name);
            // none of the shipped methods is one over order statistics but that of speed-ups
            assert!(!caption.contains("order statistics of the median"), "{text}");
            let bars = caption.contains("Bars: 95 %") || caption.contains("Bands: 95 %");
            let none = caption.contains("No bars: ") || caption.contains("No bands: ");
            let plain = ["latency", "memory"].iter().any(|p| plot.name.starts_with(p));
            assert!(plain || bars != none, "{text}");
            if name == "checked" && ["speedup", "roofline", "throughput"].iter().any(|p| plot.name.starts_with(p)) {
                assert!(none, "{text}");
            }
            if plot.name.starts_with("accuracy-latency") {
                let method = match name {
                    "checked" => "none of median latency, n = 1",
                    "small" | "unmetered" | "decided" | "large" | "long names" | "precisions" => {
                        "median latency: t interval over"
                    }
                    _ => continue,
                };
                assert!(caption.contains(method) && caption.contains("accuracy: "), "{text}");
            }
        }
    }
}

#[test]
fn a_mark_has_one_meaning() {
    assert!(!SHAPES.contains(&MarkerShape::Circle), "a circle stands for no backend");
    for (name, run) in runs() {
        let report = Report::new(run);
        for plot in plots(&report).unwrap().iter().filter(|p| p.name.starts_with("accuracy-depth")) {
            // paper inside of a rim is another precision or batch, so that a halting rule is shown otherwise
            let hollow = format!("fill=\"{PAPER}\" stroke=\"");
            let rims = plot.svg.split(&hollow).skip(1).filter(|rest| !rest.starts_with(&PAPER.to_string()));
            assert_eq!(rims.count(), 0, "{name}: {}", plot.name);
        }
    }
}

#[test]
fn the_page_is_made_for_screens_phones_and_paper() {
    let page = page(&Report::new(synthetic::decided()));
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(
        at("class=\"strip\"") < at("id=\"plots\"") && at("id=\"plots\"") < at("id=\"results\""),
        "strip, plots, tables"
    );
    assert!(at("id=\"results\"") < at("id=\"more-plots\"") && at("id=\"more-plots\"") < at("id=\"cases\""));
    let print = &page[at("@media print")..at("</style>")];
    for rule in [
        "break-inside: avoid",
        "details:not([open], .printed) { display: none; }",
        ".plots { display: block; orphans: 1; widows: 1; }",
        "thead, .group { break-after: avoid; }",
    ] {
        assert!(print.contains(rule), "{rule}");
    }
    assert!(!page.contains("beforeprint"), "what is folded stays folded on paper");
    assert!(page.contains("<span class=\"whole\">2000-01-01T00:00:00Z</span>"), "a date is not broken");
    // no phone on paper: narrow rules are of screens
    assert!(page.matches("max-width: 760px").count() == 1 && page.contains("@media screen and (max-width: 760px)"));
    assert!(page.contains("@media screen and (prefers-color-scheme: dark)"), "paper is white");
    assert!(page.contains("data-label=\"right by first attempts\""), "attempts have their names on a phone");
}

#[test]
fn a_thousand_cases_make_a_page_that_says_what_it_leaves_out() {
    let mut run = synthetic::small();
    let one = run.cases[0].clone();
    run.cases.clear();
    for i in 0..1000 {
        let mut case = one.clone();
        case.samples.retain(|s| s.iteration.is_none_or(|i| i < 3));
        case.case.key.model = format!("model-{i:04}");
        case.case.path = case.case.key.path();
        case.case.id = format!("{i:08x}{}", "cd".repeat(28));
        case.case.accuracy_from = Some(case.case.id.clone());
        run.cases.push(case);
    }
    let page = page(&Report::new(run));
    assert!(page.contains("200 of 1000 cases are on this page") && page.contains("href=\"../records.csv\""));
    assert!(page.len() < 4 << 20, "{} bytes", page.len());
    let ids: BTreeSet<&str> = page.split(" id=\"").skip(1).map(|t| t.split('"').next().unwrap()).collect();
    for link in page.split("href=\"#").skip(1).map(|t| t.split('"').next().unwrap()) {
        assert!(ids.contains(link), "#{link} leads nowhere");
    }
}
