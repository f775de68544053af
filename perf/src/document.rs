//! The JSON document that a scenario writes: what was measured, where, and which promises hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::statistics::{Spread, median_interval};

/// One run of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Which scenario.
    pub scenario: String,
    /// Whether it was a `--quick` run, whose figures mean nothing.
    pub quick: bool,
    /// Where it ran.
    pub machine: Machine,
    /// Commit of the working copy, with `-dirty` if it had changes.
    pub commit: String,
    /// Wall time of the whole scenario in seconds.
    pub seconds: f64,
    /// What was measured.
    pub subjects: Vec<Subject>,
    /// What was promised, and whether it holds.
    pub promises: Vec<Promise>,
    /// What a reader must know to judge the figures.
    pub notes: Vec<String>,
}

/// Where a scenario ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Processor model.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// Kernel release.
    pub kernel: String,
}

/// A program under test with its parameters, and what was measured of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// Name.
    pub name: String,
    /// Version of the program or library.
    pub version: String,
    /// Parameters of the measurement.
    pub parameters: BTreeMap<String, Value>,
    /// Metrics by name; the unit is in the name.
    pub metrics: BTreeMap<String, Spread>,
}

/// A figure that must be reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Promise {
    /// What is promised.
    pub name: String,
    /// The figure to reach.
    pub goal: f64,
    /// Which side of the goal is good.
    pub better: Better,
    /// The figure that decides: of a ratio that end of its confidence interval which is nearer to failing.
    pub measured: Option<f64>,
    /// Median of the samples.
    pub median: Option<f64>,
    /// 95 % confidence interval of the median, where there are samples enough for one.
    pub interval: Option<[f64; 2]>,
    /// Samples or pairs.
    pub n: usize,
    /// Whether it holds. A promise that was not measured does not hold.
    pub holds: bool,
}

/// Which side of a goal is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// At most the goal.
    Lower,
    /// At least the goal.
    Higher,
}

impl Promise {
    /// Judges by samples: the worse end of the interval decides or, below six samples, the worst sample.
    pub fn judge(name: impl Into<String>, goal: f64, better: Better, samples: &[f64]) -> Self {
        let interval = median_interval(samples);
        let spread = Spread::of(samples);
        let measured = spread.map(|s| match (better, interval) {
            (Better::Lower, Some([_, high])) => high,
            (Better::Higher, Some([low, _])) => low,
            (Better::Lower, None) => s.max,
            (Better::Higher, None) => s.min,
        });
        let holds = measured.is_some_and(|m| match better {
            Better::Lower => m <= goal,
            Better::Higher => m >= goal,
        });
        let median = spread.map(|s| s.median);
        Self { name: name.into(), goal, better, measured, median, interval, n: samples.len(), holds }
    }
}

impl Document {
    /// Whether everything promised holds; a quick run judges nothing.
    pub fn succeeded(&self) -> bool {
        self.quick || self.promises.iter().all(|p| p.holds)
    }

    /// Writes the document, pretty-printed.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Reads a document.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a document of this program", path.display()))
    }
}

impl Machine {
    /// The machine that this process runs on.
    pub fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|l| l.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory_kib: u64 = memory.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (memory_kib + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// Commit of the working copy that this program was built from. On a machine that does not have it, as that of `perf/vm/run`,
/// `PERF_COMMIT` names it.
pub fn commit() -> String {
    if let Ok(commit) = std::env::var("PERF_COMMIT") {
        return commit;
    }
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    // Recorded results do not change what is measured.
    let changes = git(&["status", "--porcelain", "--", ":/", ":!/perf/results", ":!/perf/REPORT.md"]);
    if changes.is_some_and(|c| c.is_empty()) { head } else { head + "-dirty" }
}

/// Version of a crate in this workspace's lock file.
pub fn crate_version(name: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let entry = lock.split("[[package]]").find(|e| e.contains(&format!("\nname = \"{name}\"\n")));
    let version = entry.and_then(|e| e.split("version = \"").nth(1)?.split('"').next());
    version.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_end_of_the_interval_decides() {
        let samples: Vec<f64> = (0..20).map(|i| 1.0 + f64::from(i) / 100.0).collect();
        let promise = Promise::judge("ratio", 1.10, Better::Lower, &samples);
        assert!(promise.median.unwrap() < 1.10, "{promise:?}");
        assert!(!promise.holds, "the upper end, 1.14, is above the goal: {promise:?}");
        assert!(Promise::judge("ratio", 1.145, Better::Lower, &samples).holds);
        assert!(Promise::judge("ratio", 1.045, Better::Higher, &samples).holds);
        assert!(!Promise::judge("ratio", 1.055, Better::Higher, &samples).holds);
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        assert!(!Promise::judge("ratio", 1.0, Better::Lower, &[]).holds);
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(crate_version("quiche").starts_with("0."));
        assert_eq!(crate_version("no-such-crate"), "unknown");
    }
}
