//! A list of processor cores as the kernel writes it: `0-3,8`.

use std::fmt;
use std::str::FromStr;

/// The cores that the engine's shards run on, one shard a core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// Every core that this process may run on.
    #[default]
    All,
    /// These, in ascending order and without repeats; never empty.
    List(Vec<usize>),
}

/// The largest core number that a list may name; the kernel's own limit (CONFIG_NR_CPUS) is 8192 on x86-64.
pub const CORE_MAX: usize = 8191;

impl FromStr for Cores {
    type Err = String;

    /// Reads `all`, or numbers and ranges separated by commas.
    fn from_str(text: &str) -> Result<Cores, String> {
        if text.trim() == "all" {
            return Ok(Cores::All);
        }
        let wrong = |part: &str| format!("`{part}` is neither a core's number nor a range such as 0-3");
        let mut cores = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| wrong(part))?;
            let last: usize = last.trim().parse().map_err(|_| wrong(part))?;
            if last < first {
                return Err(format!("the range `{part}` runs backwards"));
            }
            if last > CORE_MAX {
                return Err(format!("core {last} is beyond the largest number, {CORE_MAX}"));
            }
            cores.extend(first..=last);
        }
        cores.sort_unstable();
        cores.dedup();
        Ok(Cores::List(cores))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cores::List(cores) = self else { return f.write_str("all") };
        let mut rest = cores.as_slice();
        let mut separator = "";
        while let Some(&first) = rest.first() {
            let run = rest.iter().enumerate().take_while(|&(i, &core)| core == first + i).count();
            match run {
                1 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{}", first + run - 1)?,
            }
            separator = ",";
            rest = &rest[run..];
        }
        Ok(())
    }
}
