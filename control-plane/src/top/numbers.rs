//! The engine's counters by name: what they are, and what they have grown by.

use std::collections::{BTreeMap, HashMap};

/// A series such as `ioex_receive_dropped_total{shard="0",cause="socket_buffer"}`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Series<'a> {
    /// The family's name.
    pub(super) family: &'a str,
    /// The shard that counted, if one did.
    pub(super) shard: Option<usize>,
    /// The value of the other label, mostly a cause; empty if there is none.
    pub(super) cause: &'a str,
}

impl<'a> Series<'a> {
    pub(super) fn parse(text: &'a str) -> Series<'a> {
        let (family, labels) = text.split_once('{').unwrap_or((text, ""));
        let mut series = Series { family, shard: None, cause: "" };
        for label in labels.trim_end_matches('}').split(',') {
            let Some((name, value)) = label.split_once('=') else { continue };
            let value = value.trim_matches('"');
            match name {
                "shard" => series.shard = value.parse().ok(),
                _ => series.cause = value,
            }
        }
        series
    }
}

/// The counters of two looks at one engine, `seconds` apart.
pub(super) struct Numbers<'a> {
    families: HashMap<&'a str, Vec<Number<'a>>>,
    seconds: f64,
}

/// A series in both looks.
struct Number<'a> {
    series: Series<'a>,
    before: u64,
    after: u64,
}

impl<'a> Numbers<'a> {
    pub(super) fn new(before: &'a [(String, u64)], after: &'a [(String, u64)], seconds: f64) -> Numbers<'a> {
        let before: HashMap<_, _> = before.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let mut families: HashMap<_, Vec<_>> = HashMap::new();
        for (name, after) in after {
            let series = Series::parse(name);
            let before = before.get(name.as_str()).copied().unwrap_or(0);
            families.entry(series.family).or_default().push(Number { series, before, after: *after });
        }
        Numbers { families, seconds }
    }

    /// How many shards count.
    pub(super) fn shards(&self) -> usize {
        self.families
            .values()
            .flatten()
            .filter_map(|number| number.series.shard)
            .max()
            .map_or(0, |last| last + 1)
    }

    /// The value of a family now, over what `is_wanted` takes of it.
    pub(super) fn now(&self, family: &str, is_wanted: impl Fn(Series<'_>) -> bool) -> u64 {
        self.of(family).iter().filter(|number| is_wanted(number.series)).map(|number| number.after).sum()
    }

    /// What a family has grown by in a second.
    pub(super) fn per_s(&self, family: &str, is_wanted: impl Fn(Series<'_>) -> bool) -> f64 {
        self.rate(self.of(family).iter().filter(|number| is_wanted(number.series)).map(Number::grown).sum())
    }

    /// Every cause of a loss that has been counted, over all shards: family, cause, how often in all, how often a second.
    pub(super) fn losses(&self) -> Vec<(String, String, u64, f64)> {
        let mut losses: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        for number in self.families.values().flatten().filter(|number| number.after > 0) {
            let Some(family) = loss(number.series) else { continue };
            let (total, grown) = losses.entry((family, number.series.cause)).or_default();
            *total += number.after;
            *grown += number.grown();
        }
        let show = |((family, cause), (total, grown)): ((&str, &str), (u64, u64))| {
            (family.replace('_', " "), cause.replace('_', " "), total, self.rate(grown))
        };
        losses.into_iter().map(show).collect()
    }

    fn of(&self, family: &str) -> &[Number<'a>] {
        self.families.get(family).map(Vec::as_slice).unwrap_or_default()
    }

    fn rate(&self, grown: u64) -> f64 {
        if self.seconds > 0.0 { grown as f64 / self.seconds } else { 0.0 }
    }
}

impl Number<'_> {
    fn grown(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }
}

/// The middle of the family's name, if the series counts what was lost, refused or cut short.
fn loss(series: Series<'_>) -> Option<&str> {
    const FAMILIES: [&str; 7] =
        ["dropped", "refused", "failed", "errors", "exhausted", "quota_hits", "damage"];
    const RESULTS: [&str; 4] = ["failed", "full", "rejected", "refused"];
    let middle = series.family.strip_prefix("ioex_")?.strip_suffix("_total")?;
    let is_loss = FAMILIES.iter().any(|end| middle.ends_with(end)) || RESULTS.contains(&series.cause);
    is_loss.then_some(middle)
}
