//! A table as CSV, and curves as SVG: plain text.
//!
//! Our own, since a crate that plots brings fonts and rasters along, and this is a page.

use std::fmt::Write;

use dagmesh_core::limits::MAX_PLOT_POINTS;

/// Rows of numbers under names.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<f64>>,
}

impl Table {
    /// A table without rows.
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        Self { columns: columns.into_iter().map(str::to_owned).collect(), rows: Vec::new() }
    }

    /// One more row. Numbers beyond the columns are left out; missing ones are empty.
    pub fn row(&mut self, numbers: impl IntoIterator<Item = f64>) {
        self.rows.push(numbers.into_iter().take(self.columns.len()).collect());
    }

    /// The table as RFC 4180 has it, with a line of names. What is not a finite number is empty.
    pub fn to_csv(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|name| quoted(name)).collect();
        let mut text = names.join(",") + "\r\n";
        for row in &self.rows {
            let number = |at: usize| row.get(at).filter(|x| x.is_finite()).map_or(String::new(), f64::to_string);
            let cells: Vec<_> = (0..self.columns.len()).map(number).collect();
            text += &cells.join(",");
            text += "\r\n";
        }
        text
    }

    /// Each column but the first as a curve over the first.
    pub fn curves(&self) -> Vec<Curve> {
        let point = |row: &Vec<f64>, at: usize| Some((*row.first()?, *row.get(at)?));
        let curve = |(at, name): (usize, &String)| Curve {
            name: name.clone(),
            points: self.rows.iter().filter_map(|row| point(row, at)).collect(),
        };
        self.columns.iter().enumerate().skip(1).map(curve).collect()
    }
}

fn quoted(name: &str) -> String {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

/// A line through points, from left to right.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Its points; those that are not finite are left out, and of many some ([`MAX_PLOT_POINTS`]).
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 450.0;
/// Room for names and numbers: left, right, above, below.
const MARGIN: (f64, f64, f64, f64) = (70.0, 20.0, 40.0, 50.0);
/// Colours that those who cannot tell red from green can tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Draws curves over one another, with axes and a legend, as an SVG of 800 by 450.
pub fn svg(title: &str, x_name: &str, y_name: &str, curves: &[Curve]) -> String {
    let (left, right, above, below) = MARGIN;
    let all = || curves.iter().flat_map(finite);
    let xs = Axis::over(all().map(|(x, _)| x), left, WIDTH - right);
    // A curve that starts at 1,000 of 1,001 would look as if it rose from nothing.
    let ys = Axis::over(all().map(|(_, y)| y).chain([0.0]), HEIGHT - below, above);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut draw = |line: String| {
        text += &line;
        text.push('\n');
    };
    let middle = (left + WIDTH - right) / 2.0;
    draw(format!("<text x=\"{middle}\" y=\"22\" text-anchor=\"middle\" font-size=\"15\">{}</text>", escaped(title)));
    draw(format!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 12.0, escaped(x_name)));
    let centre = HEIGHT / 2.0;
    draw(format!(
        "<text x=\"16\" y=\"{centre}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {centre})\">{}</text>",
        escaped(y_name)
    ));
    for (value, x) in xs.ticks() {
        draw(format!("<path d=\"M{x:.1} {above}V{:.1}\" stroke=\"#ddd\"/>", HEIGHT - below));
        draw(format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>", HEIGHT - below + 18.0));
    }
    for (value, y) in ys.ticks() {
        draw(format!("<path d=\"M{left} {y:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - right));
        draw(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", left - 6.0, y + 4.0));
    }
    for ((n, curve), colour) in (0_u32..).zip(curves).zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        for (x, y) in thinned(curve) {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            // Writing into a String cannot fail.
            let _ = write!(path, "{letter}{:.1} {:.1}", xs.place(x), ys.place(y));
        }
        draw(format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"));
        let y = above + 16.0 + 16.0 * f64::from(n);
        draw(format!("<text x=\"{}\" y=\"{y}\" fill=\"{colour}\">{}</text>", left + 10.0, escaped(&curve.name)));
    }
    text + "</svg>\n"
}

fn finite(curve: &Curve) -> impl Iterator<Item = (f64, f64)> + '_ {
    curve.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
}

/// Evenly spread points, the first and the last among them.
fn thinned(curve: &Curve) -> impl Iterator<Item = (f64, f64)> + '_ {
    let count = finite(curve).count();
    let step = count.div_ceil(MAX_PLOT_POINTS - 1).max(1);
    finite(curve).enumerate().filter(move |(n, _)| n % step == 0 || n + 1 == count).map(|(_, point)| point)
}

/// From numbers to places on the paper.
struct Axis {
    min: f64,
    max: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (min, max) = values.fold((f64::MAX, f64::MIN), |(min, max), value| (min.min(value), max.max(value)));
        match min < max {
            true => Self { min, max, start, end },
            // One value, or none.
            false => Self { min: if min == f64::MAX { 0.0 } else { min }, max: max.max(0.0) + 1.0, start, end },
        }
    }

    fn place(&self, value: f64) -> f64 {
        // Divided first: the ends may be as far apart as numbers are.
        let span = self.max / 2.0 - self.min / 2.0;
        self.start + (value / 2.0 - self.min / 2.0) / span * (self.end - self.start)
    }

    /// Round numbers, about six, and where they stand.
    fn ticks(&self) -> Vec<(f64, f64)> {
        let rough = (self.max - self.min) / 6.0;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * unit).find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.min / step).ceil();
        let values = (0..=10).map(|n| (first + f64::from(n)) * step);
        // A multiple of 0.1 has digits that nobody wants to read.
        let short = |value: f64| (value / unit * 10.0).round() / 10.0 * unit;
        let tidy = |value: f64| format!("{:.10e}", short(value)).parse().unwrap_or(value);
        values.filter(|value| *value <= self.max).map(|value| (tidy(value), self.place(value))).collect()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_csv_with_its_names() {
        let mut table = Table::new(["time_s", "nodes, \"all\""]);
        table.row([0.5, 3.0]);
        table.row([1.0, f64::NAN, 7.0]);
        table.row([2.0]);
        assert_eq!(table.to_csv(), "time_s,\"nodes, \"\"all\"\"\"\r\n0.5,3\r\n1,\r\n2,\r\n");
        assert_eq!(table.curves()[0].points.len(), 2);
    }

    #[test]
    fn curves_are_drawn_within_the_paper_between_round_numbers() {
        let line = |name: &str, n: u32| Curve {
            name: name.into(),
            points: (0..=n).map(|x| (f64::from(x) / f64::from(n) * 60.0, f64::from(x))).collect(),
        };
        let text = svg("A <title>", "seconds", "nodes", &[line("few", 10), line("many", 100_000)]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(text.contains("A &lt;title&gt;") && text.contains(">few<") && text.contains(">60</text>"), "{text}");
        assert!(text.contains("M70.0 400.0L") && text.contains("L780.0 40.0\""), "from corner to corner");
        assert!(text.matches('L').count() <= 10 + MAX_PLOT_POINTS);
        for (tag, end) in [("<text", "</text>"), ("<path", "/>")] {
            assert!(text.matches(tag).count() <= text.matches(end).count());
        }
    }

    #[test]
    fn odd_curves_are_drawn_too() {
        for points in [
            vec![],
            vec![(5.0, 5.0)],
            vec![(-3.0, -3.0), (-3.0, -3.0)],
            vec![(0.0, f64::NAN), (f64::INFINITY, 1.0)],
            vec![(f64::MIN, f64::MIN), (f64::MAX, f64::MAX)],
        ] {
            let text = svg("", "", "", &[Curve { name: String::new(), points: points.clone() }]);
            let path = text.lines().find(|line| line.contains("fill=\"none\"")).expect("a curve");
            assert!(!path.contains("NaN") && !path.contains("inf"), "{points:?}: {path}");
        }
    }
}
