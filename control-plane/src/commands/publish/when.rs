//! When a list expires and a lease ends, as people write it.

/// Seconds since 1970 of `text`: a span from `now_s` on (`90d`, `12h`, `2y`; units s, min, h, d, w, y), or the beginning
/// of a day in UTC (`2027-12-31`). `flag` is where it was given.
pub fn parse_expiry(flag: &str, text: &str, now_s: u64) -> Result<u64, String> {
    let wrong =
        || format!("{flag}: `{text}` is no span such as 90d, 12h or 2y, and no day such as 2027-12-31");
    let expires_s = match text.splitn(3, '-').collect::<Vec<_>>()[..] {
        [year, month, day] => day_s(year, month, day).ok_or_else(wrong)?,
        _ => {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = text.split_at(digits);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let unit_s = match unit.trim() {
                "s" => 1,
                "min" => 60,
                "h" => 3600,
                "d" => 86_400,
                "w" => 7 * 86_400,
                "y" => 365 * 86_400,
                _ => return Err(wrong()),
            };
            number.checked_mul(unit_s).and_then(|span_s| now_s.checked_add(span_s)).ok_or_else(wrong)?
        }
    };
    if expires_s <= now_s {
        return Err(format!("{flag}: {text} is not in the future"));
    }
    Ok(expires_s)
}

/// The first second of a day of the Gregorian calendar, in UTC.
fn day_s(year: &str, month: &str, day: &str) -> Option<u64> {
    let (year, month, day): (u64, u64, u64) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let before = &lengths[..month as usize - 1];
    if day == 0 || day > lengths[month as usize - 1] {
        return None;
    }
    let leap_days = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let days = (year - 1970) * 365 + leap_days(year) - leap_days(1970) + before.iter().sum::<u64>() + day - 1;
    Some(days * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_days() {
        assert_eq!(parse_expiry("--expires", "90d", 1000), Ok(1000 + 90 * 86_400));
        assert_eq!(parse_expiry("--expires", "12h", 0), Ok(12 * 3600));
        // As `date -u -d 2027-12-31 +%s` says; and a leap day.
        assert_eq!(parse_expiry("--expires", "2027-12-31", 0), Ok(1_830_211_200));
        assert_eq!(parse_expiry("--expires", "2028-02-29", 0), Ok(1_835_395_200));
        for wrong in
            ["", "90", "d", "2027-02-29", "2027-13-01", "2027-1", "1 fortnight", "99999999999999999999y"]
        {
            assert!(parse_expiry("--expires", wrong, 0).is_err(), "{wrong}");
        }
        assert!(parse_expiry("--expires", "2020-01-01", 1_800_000_000).unwrap_err().contains("future"));
    }
}
