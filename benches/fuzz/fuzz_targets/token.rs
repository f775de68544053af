//! A capability token as it comes in a request: text, COSE, claims, signature. The seeds are the contract's vectors.
#![no_main]

use std::sync::LazyLock;

use identity::{Uid, token};
use libfuzzer_sys::fuzz_target;

/// A time at which the vectors are valid.
const NOW_S: u64 = 1_800_003_600;

static ISSUER: LazyLock<Uid> = LazyLock::new(|| uid("FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"));
static AUDIENCE: LazyLock<Uid> = LazyLock::new(|| uid("3WTypo2uYrwMHJ5yFFwUPX6T25n39PwNwke7pz22P4Ut"));

fuzz_target!(|data: &[u8]| {
    if let Ok(claims) = token::verify(data, NOW_S, &AUDIENCE, |_| true) {
        // Whatever verifies was signed: without a key only the vectors themselves do.
        assert_eq!(claims.issuer, *ISSUER);
        assert_eq!(claims.audience, *AUDIENCE);
    }
    let _ = token::from_text(data);
});

fn uid(text: &str) -> Uid {
    text.parse().expect("a UID of the vectors")
}
