//! The cores that shards run on: a list as the kernel writes it (`0-3,8`).

use rustix::thread::{CpuSet, sched_getaffinity};
use std::fmt;
use std::io;
use std::str::FromStr;

/// Cores by number, ascending, without repeats, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(Vec<usize>);

impl Cores {
    /// Every core that this process may run on.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn allowed() -> io::Result<Cores> {
        let set = sched_getaffinity(None)?;
        Ok(Cores((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()))
    }

    /// The numbers.
    #[must_use]
    pub fn numbers(&self) -> &[usize] {
        &self.0
    }

    /// Those that are not in `allowed`.
    #[must_use]
    pub fn beyond(&self, allowed: &Cores) -> Option<Cores> {
        let rest: Vec<usize> = self.0.iter().copied().filter(|core| !allowed.0.contains(core)).collect();
        (!rest.is_empty()).then_some(Cores(rest))
    }
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(list: &str) -> Result<Cores, String> {
        let wrong = |part: &str| format!("`{part}` is neither a core's number nor a range such as 0-3");
        let mut cores = Vec::new();
        for part in list.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| wrong(part))?;
            let last: usize = last.trim().parse().map_err(|_| wrong(part))?;
            if last < first {
                return Err(format!("the range `{part}` runs backwards"));
            }
            if last >= CpuSet::MAX_CPU {
                return Err(format!("core {last} is beyond the largest number, {}", CpuSet::MAX_CPU - 1));
            }
            cores.extend(first..=last);
        }
        cores.sort_unstable();
        cores.dedup();
        Ok(Cores(cores))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for core in &self.0 {
            write!(f, "{separator}{core}")?;
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!("3,0-1, 1".parse::<Cores>().unwrap().numbers(), [0, 1, 3]);
        for wrong in ["", "a", "1-", "3-1", "0,,1", "99999"] {
            assert!(wrong.parse::<Cores>().is_err(), "{wrong:?}");
        }
    }
}
