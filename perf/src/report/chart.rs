//! A chart of horizontal bars with their spread, as SVG.

use std::fmt::Write;

use crate::statistics::Spread;

/// Sizes in SVG user units, which are pixels at a zoom of one.
const WIDTH: f64 = 760.0;
const LABELS_WIDTH: f64 = 230.0;
const VALUES_WIDTH: f64 = 70.0;
const HEAD_HEIGHT: f64 = 58.0;
const ROW_HEIGHT: f64 = 26.0;
const BAR_HEIGHT: f64 = 16.0;

/// A bar: the median, with a line from the smallest to the largest sample.
pub struct Bar {
    /// What it stands for. The project's own bars begin with its name and are shown in another colour.
    pub label: String,
    /// Its length.
    pub spread: Spread,
}

/// Bars on one scale.
pub struct Chart {
    /// Title.
    pub title: String,
    /// Unit, and which side is better.
    pub unit: String,
    /// Bars from top to bottom.
    pub bars: Vec<Bar>,
}

impl Chart {
    /// The chart as an SVG document that reads on light and dark pages.
    pub fn svg(&self) -> String {
        let height = HEAD_HEIGHT + ROW_HEIGHT * self.bars.len() as f64 + 12.0;
        let longest = self.bars.iter().map(|b| b.spread.max).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LABELS_WIDTH - VALUES_WIDTH) / longest;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
             <style>text{{fill:#24292f}}.bar{{fill:#8c959f}}.own{{fill:#0969da}}.range{{stroke:#24292f;stroke-width:1.5}}\
             @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.range{{stroke:#e6edf3}}}}</style>\n\
             <title>{title}</title>\n<text x=\"8\" y=\"22\" font-size=\"16\" font-weight=\"600\">{title}</text>\n\
             <text x=\"8\" y=\"42\">{unit}; the line runs from the smallest to the largest sample</text>\n",
            title = escape(&self.title),
            unit = escape(&self.unit),
        );
        for (i, bar) in self.bars.iter().enumerate() {
            let Spread { median, min, max, .. } = bar.spread;
            let top = HEAD_HEIGHT + ROW_HEIGHT * i as f64;
            let middle = top + BAR_HEIGHT / 2.0;
            let class = if bar.label.starts_with("ioex") { "bar own" } else { "bar" };
            let x = |value: f64| LABELS_WIDTH + value * scale;
            let _ = write!(
                svg,
                "<text x=\"{label_x}\" y=\"{text_y}\" text-anchor=\"end\">{label}</text>\n\
                 <rect class=\"{class}\" x=\"{LABELS_WIDTH}\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\"/>\n\
                 <line class=\"range\" x1=\"{x1:.1}\" y1=\"{middle}\" x2=\"{x2:.1}\" y2=\"{middle}\"/>\n\
                 <text x=\"{value_x:.1}\" y=\"{text_y}\">{median}</text>\n",
                label_x = LABELS_WIDTH - 8.0,
                text_y = middle + 4.5,
                label = escape(&bar.label),
                width = median * scale,
                x1 = x(min),
                x2 = x(max),
                value_x = x(max) + 8.0,
                median = value(median),
            );
        }
        svg + "</svg>\n"
    }
}

/// Three decimals, or none where they would say nothing.
fn value(value: f64) -> String {
    if value >= 10_000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
