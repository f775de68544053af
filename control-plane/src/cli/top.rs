//! `ioex top`.

use super::Place;
use clap::Args;

/// `ioex top`.
#[derive(Args, Debug, Clone)]
pub struct Top {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub place: Place,
    /// Seconds between two looks, over which rates are averages
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: f64,
    /// Look twice, print what there is, and end
    #[arg(long)]
    pub once: bool,
    /// Print JSON instead of drawing a screen: one object, or without --once one a line
    #[arg(long)]
    pub json: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("allowed is 0.1 to 3600".into()) }
}

pub(super) const TOP_EXAMPLES: &str = "\
q, Esc or Ctrl-C ends it. BUSY is the time that a shard is awake; what is lost, refused or cut short is named by its cause, as the \
metrics name it.

Examples:
  ioex top
  ioex top --interval 5
  ioex top --once
  ioex top --once --json | jq '.all_shards.busy_percent'
  ioex top --json --interval 60 >> node.jsonl";
