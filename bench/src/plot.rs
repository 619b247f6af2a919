//! Plots as SVG: bars with whiskers, points on a logarithmic axis, and ratios against their requirements. Makes
//! text and touches nothing. Each has a separate background, for light and dark pages.

use std::fmt::Write as _;

use crate::stats::Spread;

/// Pixels: of the picture, above the first line and below the last, of a line, and of its contents.
const WIDTH: f64 = 960.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 36.0;
const LINE: f64 = 26.0;
const BAR: f64 = 14.0;
const DOT: f64 = 5.0;
const MARK: f64 = 20.0;
const CAP: f64 = 4.0;
const MARGIN: f64 = 16.0;
const GAP: f64 = 8.0;
/// Widest mean character of a label and of a note, in pixels; fonts differ.
const LABEL_CHARACTER: f64 = 7.2;
const NOTE_CHARACTER: f64 = 6.6;
/// Most labels of an axis.
const TICKS: f64 = 6.0;

const PAPER: &str = "#ffffff";
const INK: &str = "#1f2328";
const FAINT: &str = "#59636e";
const GRID: &str = "#d1d9e0";
/// Distinct for people who see few colours, and in print by their lightness.
const BLUE: &str = "#0072b2";
const ORANGE: &str = "#e69f00";
const RED: &str = "#d55e00";
const GREEN: &str = "#009e73";

/// A line of a plot.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) text: String,
    /// In smaller type behind it.
    pub(crate) note: &'static str,
    /// Something else than what the plot is about.
    pub(crate) is_peer: bool,
}

/// Values from pixel to pixel.
struct Axis {
    is_logarithmic: bool,
    from: f64,
    to: f64,
    left: f64,
    right: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_logarithmic { value.log10() } else { value };
        let part = (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from));
        self.left + part.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// Round values that lie on it.
    fn ticks(&self) -> Vec<f64> {
        let is_on = |tick: &f64| (self.from..=self.to).contains(tick);
        if !self.is_logarithmic {
            let step = round_up((self.to - self.from) / TICKS);
            return (0..).map(|i| f64::from(i) * step).skip_while(|tick| !is_on(tick)).take_while(is_on).collect();
        }
        let decades = self.from.log10().floor() as i32..=self.to.log10().ceil() as i32;
        let all = |digits: &'static [f64]| -> Vec<f64> {
            let ticks = decades.clone().flat_map(|decade| digits.iter().map(move |digit| digit * 10_f64.powi(decade)));
            ticks.filter(is_on).collect()
        };
        let ticks = all(&[1.0, 2.0, 5.0]);
        if ticks.len() as f64 <= 2.0 * TICKS { ticks } else { all(&[1.0]) }
    }
}

/// The next of 1, 2, 5, 10, 20 and so on.
fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * decade >= value * (1.0 - 1e-9));
    digit.unwrap_or(10.0) * decade
}

/// The picture while it is drawn.
struct Picture {
    body: String,
    left: f64,
    right: f64,
    lines: usize,
}

impl Picture {
    /// With the labels of its lines on the left, and room for notes of so many characters on the right.
    fn new(title: &str, subtitle: &str, labels: &[Label], characters: usize) -> Self {
        let longest = |of: fn(&Label) -> usize| labels.iter().map(of).max().unwrap_or(0) as f64;
        let notes = longest(|label| label.note.chars().count()) * NOTE_CHARACTER;
        let names = longest(|label| label.text.chars().count()) * LABEL_CHARACTER;
        let left = MARGIN + names + GAP + notes + GAP;
        let right = WIDTH - MARGIN - characters as f64 * NOTE_CHARACTER - GAP;
        let mut picture = Self { body: String::new(), left, right, lines: labels.len() };
        picture.text(MARGIN, 28.0, title, "font-size=\"17\" font-weight=\"600\"");
        picture.text(MARGIN, 48.0, subtitle, &format!("font-size=\"12\" fill=\"{FAINT}\""));
        for (line, label) in labels.iter().enumerate() {
            let y = middle(line) + 4.5;
            picture.text(left - GAP - notes - GAP, y, &label.text, "font-size=\"13\" text-anchor=\"end\"");
            let note = format!("font-size=\"11\" fill=\"{FAINT}\"");
            picture.text(left - GAP - notes, y, label.note, &note);
        }
        picture
    }

    fn text(&mut self, x: f64, y: f64, text: &str, style: &str) {
        let _ = writeln!(self.body, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>", escaped(text));
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), style: &str) {
        let _ = writeln!(self.body, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>");
    }

    fn dot(&mut self, x: f64, y: f64, colour: &str, is_filled: bool) {
        let fill = if is_filled { colour } else { PAPER };
        let _ = writeln!(
            self.body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DOT}\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
    }

    fn grid(&mut self, axis: &Axis, name: impl Fn(f64) -> String) {
        let bottom = self.bottom();
        for tick in axis.ticks() {
            let x = axis.at(tick);
            self.line((x, TOP), (x, bottom), &format!("stroke=\"{GRID}\""));
            let style = format!("font-size=\"11\" text-anchor=\"middle\" fill=\"{FAINT}\"");
            self.text(x, bottom + 18.0, &name(tick), &style);
        }
    }

    /// A line from the lowest to the highest, with an end at each.
    fn whiskers(&mut self, axis: &Axis, line: usize, spread: Spread) {
        let (y, low, high) = (middle(line), axis.at(spread.lowest), axis.at(spread.highest));
        let style = format!("stroke=\"{INK}\" stroke-width=\"1.5\"");
        self.line((low, y), (high, y), &style);
        for x in [low, high] {
            self.line((x, y - CAP), (x, y + CAP), &style);
        }
    }

    /// Names of colours, in a row above the lines.
    fn legend(&mut self, entries: &[(&str, &str, bool)]) {
        let (mut x, y) = (self.left, TOP - 16.0);
        for (colour, text, is_filled) in entries {
            self.dot(x + DOT, y - 4.0, colour, *is_filled);
            self.text(x + 2.0 * DOT + GAP, y, text, &format!("font-size=\"12\" fill=\"{FAINT}\""));
            x += 2.0 * DOT + GAP + text.chars().count() as f64 * NOTE_CHARACTER + 2.0 * GAP;
        }
    }

    fn bottom(&self) -> f64 {
        TOP + self.lines as f64 * LINE
    }

    fn finish(self) -> String {
        let height = self.bottom() + BOTTOM;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" fill=\"{INK}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"{PAPER}\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// The middle of a line, in pixels from above.
fn middle(line: usize) -> f64 {
    TOP + (line as f64 + 0.5) * LINE
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A bar to the median of each line, and whiskers from the lowest to the highest.
pub(crate) fn bars(title: &str, subtitle: &str, lines: &[(Label, Spread)], decimals: usize) -> String {
    let labels: Vec<_> = lines.iter().map(|(label, _)| label.clone()).collect();
    let figures: Vec<_> = lines.iter().map(|(_, spread)| grouped(spread.median, decimals)).collect();
    let widest = figures.iter().map(String::len).max().unwrap_or(0);
    let mut picture = Picture::new(title, subtitle, &labels, widest);
    let to = lines.iter().map(|(_, spread)| spread.highest).fold(f64::MIN_POSITIVE, f64::max);
    let axis = Axis { is_logarithmic: false, from: 0.0, to, left: picture.left, right: picture.right };
    picture.grid(&axis, |tick| grouped(tick, 0));
    picture.legend(&[(BLUE, "this service", true), (ORANGE, "what it is measured beside", true)]);
    for (line, ((label, spread), figure)) in lines.iter().zip(&figures).enumerate() {
        let (y, width) = (middle(line) - BAR / 2.0, axis.at(spread.median) - axis.left);
        let colour = if label.is_peer { ORANGE } else { BLUE };
        let _ = writeln!(
            picture.body,
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>",
            axis.left
        );
        picture.whiskers(&axis, line, *spread);
        picture.text(axis.at(spread.highest) + GAP, middle(line) + 4.0, figure, "font-size=\"12\"");
    }
    picture.finish()
}

/// Some figures a line, in microseconds, as points on a logarithmic axis.
pub(crate) fn latencies(title: &str, subtitle: &str, names: [&str; 3], lines: &[(Label, [f64; 3])]) -> String {
    let colours = [BLUE, ORANGE, RED];
    let labels: Vec<_> = lines.iter().map(|(label, _)| label.clone()).collect();
    let mut picture = Picture::new(title, subtitle, &labels, 0);
    let all = || lines.iter().flat_map(|(_, figures)| figures).copied();
    let (lowest, highest) = (all().fold(f64::INFINITY, f64::min), all().fold(1.0, f64::max));
    let axis = Axis {
        is_logarithmic: true,
        from: lowest.min(highest).max(1.0) / 1.2,
        to: highest * 1.2,
        left: picture.left,
        right: picture.right,
    };
    picture.grid(&axis, time);
    let legend: Vec<_> = colours.into_iter().zip(names).map(|(colour, name)| (colour, name, true)).collect();
    picture.legend(&legend);
    for (line, (_, figures)) in lines.iter().enumerate() {
        let y = middle(line);
        picture.line((axis.at(figures[0]), y), (axis.at(figures[2]), y), &format!("stroke=\"{FAINT}\""));
        // The median last, for where they fall together it is the one to see.
        for (figure, colour) in figures.iter().zip(colours).rev() {
            picture.dot(axis.at(*figure), y, colour, true);
        }
    }
    picture.finish()
}

/// A ratio and its requirement, as times better than it must be.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) spread: Spread,
    pub(crate) aim: f64,
    pub(crate) holds: bool,
    /// The same in its own figures.
    pub(crate) note: String,
}

/// Each ratio as a point with whiskers, to the right of the line of what it must be, or not.
pub(crate) fn targets(title: &str, subtitle: &str, targets: &[Target]) -> String {
    let label = |target: &Target| Label { text: target.name.clone(), note: "", is_peer: false };
    let labels: Vec<_> = targets.iter().map(label).collect();
    let widest = targets.iter().map(|target| target.note.chars().count()).max().unwrap_or(0);
    let mut picture = Picture::new(title, subtitle, &labels, widest);
    let all = || targets.iter().flat_map(|target| [target.spread.lowest, target.spread.highest, target.aim, 1.0]);
    let axis = Axis {
        is_logarithmic: true,
        from: all().fold(0.9, f64::min) / 1.1,
        to: all().fold(1.1, f64::max) * 1.1,
        left: picture.left,
        right: picture.right,
    };
    picture.grid(&axis, |tick| format!("{tick}×"));
    picture.legend(&[(GREEN, "holds", true), (RED, "does not hold", false)]);
    let bottom = picture.bottom();
    picture.line((axis.at(1.0), TOP), (axis.at(1.0), bottom), &format!("stroke=\"{INK}\" stroke-width=\"2\""));
    for (line, target) in targets.iter().enumerate() {
        let (y, aim) = (middle(line), axis.at(target.aim));
        picture.line((aim, y - MARK / 2.0), (aim, y + MARK / 2.0), &format!("stroke=\"{FAINT}\" stroke-width=\"3\""));
        picture.whiskers(&axis, line, target.spread);
        picture.dot(axis.at(target.spread.median), y, if target.holds { GREEN } else { RED }, target.holds);
        let right = picture.right + GAP;
        picture.text(right, y + 4.0, &target.note, "font-size=\"12\"");
    }
    picture.finish()
}

/// With a comma between thousands.
fn grouped(figure: f64, decimals: usize) -> String {
    let text = format!("{figure:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// Microseconds in a readable unit.
fn time(microseconds: f64) -> String {
    match microseconds {
        us if us < 1e3 => format!("{us} us"),
        us if us < 1e6 => format!("{} ms", us / 1e3),
        us => format!("{} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(is_logarithmic: bool, from: f64, to: f64) -> Axis {
        Axis { is_logarithmic, from, to, left: 100.0, right: 300.0 }
    }

    #[test]
    fn values_lie_where_they_should() {
        let linear = axis(false, 0.0, 10.0);
        assert_eq!([linear.at(0.0), linear.at(5.0), linear.at(10.0)], [100.0, 200.0, 300.0]);
        let logarithmic = axis(true, 1.0, 100.0);
        assert_eq!([logarithmic.at(1.0), logarithmic.at(10.0), logarithmic.at(100.0)], [100.0, 200.0, 300.0]);
        // Points off the axis stay in the picture.
        assert_eq!([linear.at(-1.0), linear.at(11.0)], [100.0, 300.0]);
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(axis(false, 0.0, 89_364.0).ticks(), [0.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0]);
        assert_eq!(axis(false, 0.0, 6.0).ticks(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(axis(true, 0.4, 6.0).ticks(), [0.5, 1.0, 2.0, 5.0]);
        assert_eq!(axis(true, 90.0, 1.2e4).ticks(), [1e2, 2e2, 5e2, 1e3, 2e3, 5e3, 1e4]);
        assert_eq!(axis(true, 5.0, 1.2e7).ticks(), [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7]);
    }

    #[test]
    fn a_bar_is_as_long_as_its_figure() {
        let bar = |text: &str, figure| {
            let label = Label { text: text.to_owned(), note: "fast", is_peer: false };
            (label, Spread { lowest: figure, median: figure, highest: figure })
        };
        let svg = bars("a < b", "units", &[bar("one", 1_000.0), bar("two", 2_000.0)], 0);
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<rect x"))
            .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths.len(), 2);
        assert!((widths[1] - 2.0 * widths[0]).abs() < 0.2, "{widths:?}");
        assert!(svg.contains("a &lt; b") && svg.contains(">2,000<"), "{svg}");
    }

    #[test]
    fn what_does_not_hold_is_hollow_and_left_of_what_it_must_be() {
        let target = |median, holds| Target {
            name: "ratio".to_owned(),
            spread: Spread { lowest: median, median, highest: median },
            aim: 2.0,
            holds,
            note: String::new(),
        };
        let svg = targets("ratios", "", &[target(0.5, false), target(4.0, true)]);
        let dots: Vec<&str> = svg.lines().filter(|line| line.starts_with("<circle")).skip(2).collect();
        let x = |dot: &str| dot.split('"').nth(1).unwrap().parse::<f64>().unwrap();
        let must =
            svg.lines().find(|line| line.ends_with("stroke-width=\"2\"/>") && line.starts_with("<line")).unwrap();
        assert!(x(dots[0]) < x(must) && x(must) < x(dots[1]), "{svg}");
        assert!(dots[0].contains(&format!("fill=\"{PAPER}\"")) && dots[1].contains(&format!("fill=\"{GREEN}\"")));
    }

    #[test]
    fn figures_are_written_as_one_says_them() {
        let written = [grouped(1_234_567.0, 0), grouped(999.0, 0), grouped(12_345.67, 1), grouped(0.25, 2)];
        assert_eq!(written, ["1,234,567", "999", "12,345.7", "0.25"]);
        assert_eq!([time(20.0), time(2e3), time(5e5), time(2e6)], ["20 us", "2 ms", "500 ms", "2 s"]);
    }
}
