//! The Prometheus text format, version 0.0.4.

use std::fmt::Write;

/// Whether a number only grows.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Families one after the other, each with its samples.
#[derive(Debug, Default)]
pub struct Text {
    text: String,
    family: String,
}

impl Text {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}");
        self.begin(name, kind);
    }

    /// A sample of the family that was begun last. Values of labels are this program's own and need no escapes.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.text.push_str(&self.family);
        for (i, (name, label)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{label}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family of one sample without labels.
    pub fn number(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// A sample as another program names it, labels and all. Those of a family come one after the other.
    pub fn series(&mut self, series: &str, value: u64) {
        let name = series.split_once('{').map_or(series, |(name, _)| name);
        if name != self.family {
            self.begin(name, if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge });
        }
        let _ = writeln!(self.text, "{series} {value}");
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        self.family = name.into();
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Text};

    #[test]
    fn every_family_is_named_once_before_its_samples() {
        let mut text = Text::default();
        text.number("ioex_a", Kind::Gauge, "One.", 1);
        text.family("ioex_b_total", Kind::Counter, "By cause.");
        text.sample(&[("cause", "x"), ("shard", "0")], 2);
        text.series("ioex_c_total{shard=\"0\"}", 3);
        text.series("ioex_c_total{shard=\"1\"}", 4);
        text.series("ioex_d", 5);
        assert_eq!(
            text.finish(),
            "# HELP ioex_a One.\n# TYPE ioex_a gauge\nioex_a 1\n\
             # HELP ioex_b_total By cause.\n# TYPE ioex_b_total counter\nioex_b_total{cause=\"x\",shard=\"0\"} 2\n\
             # TYPE ioex_c_total counter\nioex_c_total{shard=\"0\"} 3\nioex_c_total{shard=\"1\"} 4\n\
             # TYPE ioex_d gauge\nioex_d 5\n"
        );
    }
}
