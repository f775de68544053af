//! Quantities and core lists as people write them.

use control_plane::cores::Cores;
use control_plane::quantity::{QuantityError, parse_bytes, show_bytes, show_seconds, show_thousands};

#[test]
fn bytes_with_units() {
    for (text, bytes) in [
        ("0", 0),
        ("1048576", 1 << 20),
        ("1MiB", 1 << 20),
        (" 1 mib ", 1 << 20),
        ("64k", 64 << 10),
        ("4 GB", 4_000_000_000),
    ] {
        assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
    }
    assert!(matches!(parse_bytes(""), Err(QuantityError::NotANumber(_))));
    assert!(matches!(parse_bytes("-1"), Err(QuantityError::NotANumber(_))));
    assert!(matches!(parse_bytes("1.5 MiB"), Err(QuantityError::UnknownUnit { .. })));
    assert!(matches!(parse_bytes("99999999999999999999"), Err(QuantityError::TooLarge(_))));
    assert!(matches!(parse_bytes("99999999 TiB"), Err(QuantityError::TooLarge(_))));
}

#[test]
fn quantities_shown() {
    let shown = [0, 1023, 1024, 1536, 10 << 20, 1 << 30, (1 << 30) - 1, u64::MAX].map(show_bytes);
    assert_eq!(
        shown,
        ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 MiB", "1.00 GiB", "1.00 GiB", "16384 PiB"]
    );
    let shown = [0.25, 12.34, 75.0, 7384.0].map(show_seconds);
    assert_eq!(shown, ["250 ms", "12.3 s", "1 min 15 s", "2 h 3 min"]);
    let shown = [0.0, 0.25, 7.0, 42.4, 999.4, 999.6, 12_345.0, 999_600.0, 4e9, 1e18].map(show_thousands);
    assert_eq!(shown, ["0", "0.2", "7", "42", "999", "1.00k", "12.3k", "1.00M", "4.00G", "1000000T"]);
}

#[test]
fn core_lists_round_trip() {
    for (text, shown) in
        [("all", "all"), ("0", "0"), ("0-3,8", "0-3,8"), ("3,1,2,2", "1-3"), ("5,0-1,7", "0-1,5,7")]
    {
        let cores: Cores = text.parse().unwrap();
        assert_eq!(cores.to_string(), shown);
        assert_eq!(cores.to_string().parse(), Ok(cores));
    }
    for wrong in ["", "a", "1-", "3-1", "0,,1", "9999999"] {
        assert!(wrong.parse::<Cores>().is_err(), "{wrong}");
    }
}
