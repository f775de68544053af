//! The node's own certificate.

use control_plane::certificate::{CertificateError, Facts, Names, Outcome, ensure};
use control_plane::data_directory::DataDirectory;
use identity::SecretKey;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

const NINE_YEARS_AND_A_DAY: Duration = Duration::from_secs((9 * 365 + 1) * 86_400);

fn names(names: &[&str]) -> Names {
    let required: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    let all =
        required.iter().cloned().chain(["localhost".into(), "127.0.0.1".into(), "::1".into()]).collect();
    Names { all, required }
}

fn facts(directory: &DataDirectory) -> Facts {
    Facts::of_pem(&std::fs::read(directory.certificate()).unwrap()).unwrap()
}

#[test]
fn it_is_bound_to_the_uid_and_names_the_node() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    let key = SecretKey::from_seed([7; 32]);
    let outcome =
        ensure(&directory, &key, &names(&["relay.example.com", "2001:db8::7"]), SystemTime::now()).unwrap();
    assert_eq!(outcome, Outcome::Created);
    let mode = std::fs::metadata(directory.certificate_key()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let facts = facts(&directory);
    assert_eq!(facts.bound_to, Some(Ok(key.uid())));
    let expected = ["127.0.0.1", "2001:db8::7", "::1", "localhost", "relay.example.com"];
    assert_eq!(facts.names.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn it_is_kept_until_names_dates_or_uid_no_longer_fit() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    let key = SecretKey::from_seed([7; 32]);
    let now = SystemTime::now();
    ensure(&directory, &key, &names(&["a.example"]), now).unwrap();
    let first = std::fs::read(directory.certificate()).unwrap();
    let first_key = std::fs::read(directory.certificate_key()).unwrap();

    assert_eq!(ensure(&directory, &key, &names(&["a.example"]), now).unwrap(), Outcome::Kept);
    assert_eq!(ensure(&directory, &key, &names(&[]), now).unwrap(), Outcome::Kept);
    assert_eq!(std::fs::read(directory.certificate()).unwrap(), first);

    let renewed = |reason: &str| Outcome::Renewed { reason: reason.into() };
    let more = names(&["a.example", "b.example"]);
    assert_eq!(ensure(&directory, &key, &more, now).unwrap(), renewed("it lacked b.example"));
    assert_eq!(
        ensure(&directory, &key, &more, now + NINE_YEARS_AND_A_DAY).unwrap(),
        renewed("it would have ended within a year")
    );
    let other = SecretKey::from_seed([8; 32]);
    let outcome = ensure(&directory, &other, &more, now).unwrap();
    assert_eq!(outcome, renewed(&format!("it was bound to another UID, {}", key.uid())));
    assert_eq!(facts(&directory).bound_to, Some(Ok(other.uid())));
    assert_eq!(std::fs::read(directory.certificate_key()).unwrap(), first_key, "renewing keeps the key");
}

#[test]
fn what_the_operator_put_there_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    let theirs = rcgen::generate_simple_self_signed(vec!["relay.example.com".into()]).unwrap();
    std::fs::write(directory.certificate(), theirs.cert.pem()).unwrap();
    let key = SecretKey::from_seed([7; 32]);

    let half = ensure(&directory, &key, &names(&[]), SystemTime::now()).unwrap_err();
    assert!(matches!(half, CertificateError::Half { .. }), "{half}");

    std::fs::write(directory.certificate_key(), theirs.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(directory.certificate_key(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let outcome = ensure(&directory, &key, &names(&["b.example"]), SystemTime::now()).unwrap();
    assert_eq!(outcome, Outcome::Foreign);
    assert_eq!(std::fs::read_to_string(directory.certificate()).unwrap(), theirs.cert.pem());
}

#[test]
fn a_first_start_that_was_cut_short_is_completed() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    let key = SecretKey::from_seed([7; 32]);
    ensure(&directory, &key, &names(&[]), SystemTime::now()).unwrap();
    std::fs::remove_file(directory.certificate()).unwrap();
    assert_eq!(ensure(&directory, &key, &names(&[]), SystemTime::now()).unwrap(), Outcome::Created);
    assert_eq!(facts(&directory).bound_to, Some(Ok(key.uid())));
}

#[test]
fn damage_is_named_and_not_papered_over() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(root.path()).unwrap();
    let key = SecretKey::from_seed([7; 32]);
    ensure(&directory, &key, &names(&[]), SystemTime::now()).unwrap();
    std::fs::write(directory.certificate(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let error = ensure(&directory, &key, &names(&[]), SystemTime::now()).unwrap_err();
    assert!(matches!(error, CertificateError::Malformed { .. }), "{error}");
}
