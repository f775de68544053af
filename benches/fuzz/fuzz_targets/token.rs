//! A capability token as it comes in a request: text, COSE, claims, signature.
#![no_main]

use identity::{SecretKey, Uid, token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let audience = Uid::from_bytes([7; 32]);
    if let Ok(claims) = token::verify(data, 1_800_000_000, &audience, |_| true) {
        // What verifies was signed by its issuer: only with the key of the seeds can the fuzzer make one.
        assert_eq!(claims.issuer, SecretKey::from_seed([1; 32]).uid());
        assert_eq!(claims.audience, audience);
    }
    let _ = token::from_text(data);
});
