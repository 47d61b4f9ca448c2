//! Lines between two axes, as SVG.

use maud::{Markup, html};

use super::scale::Scale;

/// Room for the labels, in user units: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (58.0, 16.0, 8.0, 24.0);

/// One chart.
pub struct Plot<'a> {
    /// For those who hear the page.
    pub title: &'a str,
    /// In user units, which are pixels where there is room.
    pub size: (f64, f64),
    pub x: Scale,
    pub y: Scale,
    pub lines: Vec<Line>,
    /// What is told of a place on the x axis: its beginning, its end, and the words.
    pub columns: Vec<(f64, f64, String)>,
}

/// One line of a chart.
pub struct Line {
    /// Its colour, by a class of the style sheet.
    pub class: String,
    pub points: Vec<(f64, f64)>,
    /// Places on it that tell their value.
    pub dots: Vec<(f64, f64, String)>,
    pub is_earlier: bool,
}

impl Plot<'_> {
    pub fn draw(&self) -> Markup {
        let (width, height) = self.size;
        html! {
            svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(self.title) {
                (self.axes())
                @for line in self.lines.iter().filter(|line| line.is_earlier) { (self.line(line)) }
                @for line in self.lines.iter().filter(|line| !line.is_earlier) { (self.line(line)) }
                @for (from, to, words) in &self.columns {
                    rect.column x=(short(self.across(*from))) y=(MARGIN.2)
                        width=(short((self.across(*to) - self.across(*from)).max(1.0)))
                        height=(height - MARGIN.2 - MARGIN.3) {
                        title { (words) }
                    }
                }
            }
        }
    }

    fn axes(&self) -> Markup {
        let (width, height) = self.size;
        let (left, right, bottom) = (MARGIN.0, width - MARGIN.1, height - MARGIN.3);
        html! {
            @for (value, label) in &self.y.ticks {
                @let y = self.up(*value);
                line.grid x1=(left) x2=(right) y1=(short(y)) y2=(short(y)) {}
                text x=(left - 6.0) y=(short(y + 4.0)) text-anchor="end" { (label) }
            }
            @for (value, label) in &self.x.ticks {
                @let x = self.across(*value);
                line.grid x1=(short(x)) x2=(short(x)) y1=(MARGIN.2) y2=(bottom) {}
                text x=(short(x)) y=(bottom + 16.0) text-anchor=(if x > right - 12.0 { "end" } else { "middle" }) { (label) }
            }
        }
    }

    fn line(&self, line: &Line) -> Markup {
        let class = format!("line {}{}", line.class, if line.is_earlier { " earlier" } else { "" });
        let mut path = String::new();
        for (index, (x, y)) in line.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            path.push_str(&format!("{command}{} {}", short(self.across(*x)), short(self.up(*y))));
        }
        html! {
            @if line.points.len() > 1 { path class=(class) d=(path) {} }
            // A single point has no length to be seen.
            @else if let Some((x, y)) = line.points.first() {
                circle class=(format!("dot {}", line.class)) cx=(short(self.across(*x))) cy=(short(self.up(*y))) r="3" {}
            }
            @for (x, y, words) in &line.dots {
                circle class=(format!("dot {}", line.class)) cx=(short(self.across(*x))) cy=(short(self.up(*y))) r="3" {
                    title { (words) }
                }
            }
        }
    }

    fn across(&self, value: f64) -> f64 {
        MARGIN.0 + self.x.place(value) * (self.size.0 - MARGIN.0 - MARGIN.1)
    }

    fn up(&self, value: f64) -> f64 {
        let bottom = self.size.1 - MARGIN.3;
        bottom - self.y.place(value) * (bottom - MARGIN.2)
    }
}

/// A tenth of a pixel is enough.
fn short(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
