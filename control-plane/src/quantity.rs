//! Numbers with units, as people write and read them.

/// Why a text is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not begin with a whole number.
    #[error(
        "`{0}` is not a number of bytes; write a whole number with a unit, such as 512 KiB, 1 MiB or 4 GB"
    )]
    NotANumber(String),
    /// The unit is none of the known ones.
    #[error(
        "`{text}` has the unknown unit `{unit}`; known are B, KB, MB, GB, TB (1000) and KiB, MiB, GiB, TiB (1024)"
    )]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// The part after the number.
        unit: String,
    },
    /// It exceeds 2^64 - 1 bytes.
    #[error("`{0}` is more than 18446744073709551615 bytes")]
    TooLarge(String),
}

/// Reads a number of bytes: `1048576`, `1MiB`, `1 MiB`, `4 GB`. Units ignore case; `K`, `M`, `G`, `T` alone
/// count by 1024.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    let trimmed = text.trim();
    let digits_len = trimmed.bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
    let (digits, unit) = trimmed.split_at(digits_len);
    let digits = digits.replace('_', "");
    if digits.is_empty() {
        return Err(QuantityError::NotANumber(trimmed.into()));
    }
    let number: u64 = digits.parse().map_err(|_| QuantityError::TooLarge(trimmed.into()))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => {
            return Err(QuantityError::UnknownUnit { text: trimmed.into(), unit: unit.trim().into() });
        }
    };
    number.checked_mul(factor).ok_or_else(|| QuantityError::TooLarge(trimmed.into()))
}

/// Writes a number of bytes with three figures and a unit of 1024: `1.50 GiB`.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.995 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Writes a rate in bytes a second: `1.50 GiB/s`. An interval of no length gives a dash.
pub fn show_rate(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 { format!("{}/s", show_bytes((bytes as f64 / seconds) as u64)) } else { "-".into() }
}

/// Writes a number with three figures and a letter for thousands: `999`, `1.50k`, `12.3M`, `4.00G`.
pub fn show_thousands(number: f64) -> String {
    const LETTERS: [&str; 4] = ["k", "M", "G", "T"];
    if number < 999.5 {
        // A rate below ten is seldom a whole number.
        let decimals = if number < 9.95 && number.fract() != 0.0 { 1 } else { 0 };
        return format!("{number:.decimals$}");
    }
    let mut value = number / 1e3;
    let mut letter = 0;
    while value >= 999.5 && letter + 1 < LETTERS.len() {
        value /= 1e3;
        letter += 1;
    }
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", LETTERS[letter])
}

/// Writes a span of time in the unit that suits it: `850 ms`, `12.3 s`, `3 h 20 min`.
pub fn show_seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!("{} min {} s", seconds as u64 / 60, seconds as u64 % 60)
    } else {
        format!("{} h {} min", seconds as u64 / 3600, seconds as u64 % 3600 / 60)
    }
}
