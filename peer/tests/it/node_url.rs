//! Node URLs: what they accept, give back, and teach.

use identity::{SecretKey, Uid};
use peer::{NodeUrl, NodeUrlError};
use proptest::prelude::*;

fn uid() -> Uid {
    SecretKey::from_seed([3; 32]).uid()
}

#[test]
fn gives_back_what_it_read() {
    for text in [
        "https://node.example:4433".to_owned(),
        "https://127.0.0.1:1".to_owned(),
        "https://[2001:db8::1]:65535".to_owned(),
        format!("https://{}@[::1]:4433", uid()),
    ] {
        assert_eq!(text.parse::<NodeUrl>().unwrap().to_string(), text);
    }
    let url: NodeUrl = format!("HTTPS://{}@Node.Example:4433/", uid()).parse().unwrap();
    assert_eq!(url.to_string(), format!("https://{}@node.example:4433", uid()));
    assert_eq!(url.uid(), Some(&uid()));
    assert_eq!(url.authority(), "node.example:4433");
    assert_eq!((url.host().as_str(), url.port()), ("node.example", 4433));
}

#[test]
fn says_what_is_wrong_and_what_to_write() {
    let error = |text: &str| text.parse::<NodeUrl>().unwrap_err();
    assert!(matches!(error("http://a:1"), NodeUrlError::Scheme { .. }));
    assert!(matches!(error("node.example:4433"), NodeUrlError::Scheme { .. }));
    assert!(matches!(error("https://abc@a:1"), NodeUrlError::Uid { .. }));
    assert!(matches!(error("https://"), NodeUrlError::NoHost { .. }));
    assert!(matches!(error("https://:4433"), NodeUrlError::NoHost { .. }));
    assert!(matches!(error("https://::1:4433"), NodeUrlError::Host { .. }));
    assert!(matches!(error("https://[::1:4433"), NodeUrlError::Host { .. }));
    assert!(matches!(error("https://a b:4433"), NodeUrlError::Host { .. }));
    assert!(matches!(error("https://a:0"), NodeUrlError::Port { .. }));
    assert!(matches!(error("https://a:+1"), NodeUrlError::Port { .. }));
    assert!(matches!(error("https://a:65536"), NodeUrlError::Port { .. }));
    assert!(matches!(error("https://a:1/b3/00"), NodeUrlError::Path { .. }));
    assert!(error("https://a").to_string().contains("write https://a:4433"));
    assert!(error("https://[::1]").to_string().contains("write https://[::1]:4433"));
}

proptest! {
    #[test]
    fn never_panics(text in "(https://)?[ -~é]{0,60}") {
        if let Ok(url) = text.parse::<NodeUrl>() {
            prop_assert_eq!(url.to_string().parse::<NodeUrl>().unwrap(), url);
        }
    }
}
