//! Long-term credentials held against RFC 8489 section 9.2.4, by a client that answers challenges.

use std::net::SocketAddr;

use proptest::prelude::*;
use relay::policy::{RELAY_REALM_LEN_MAX, RelayPolicy, RelayUser};
use relay::stun::{
    AttributeType, AuthError, Authenticated, Authenticator, Class, Credentials, CredentialsError, Expiry,
    Integrity, Message, Method, Nonces, PasswordAlgorithm, StaticUser, TransactionId, Writer, rest_password,
    stranger_reply_bytes_max, user_hash,
};

const REALM: &str = "example.org";
const NOW_S: u64 = 1_800_000_000;
const NONCE_LIFETIME_S: u64 = 3600;
const SECRET: &[u8] = b"the secret in use";
const OLD_SECRET: &[u8] = b"the secret before it";
const SHA256: [u8; 4] = [0, 2, 0, 0];
const MD5: [u8; 4] = [0, 1, 0, 0];

#[test]
fn a_challenge_is_at_most_three_and_a_half_times_the_request() {
    let allocate = Client::default().first_request();
    assert_eq!(allocate.len(), 28, "the shortest Allocate");
    for (realm, len) in
        [("r", 88), ("twelve bytes", 96), ("relay.example.com", 92), ("relay.of.our.example.com", 96)]
    {
        let credentials = Credentials::new(realm, [], [SECRET.to_vec()]).expect("a good realm");
        let answer = Server::with(credentials).refuse(&allocate, AuthError::NoIntegrity).expect("it fits");
        assert_eq!(answer.len(), len, "{realm}");
        assert!(answer.len() <= stranger_reply_bytes_max(allocate.len()));
        let answer = Message::decode(&answer).expect("the server wrote it");
        assert_eq!((answer.class(), answer.method()), (Class::Error, Method::Allocate));
        assert_eq!(answer.find(AttributeType::ERROR_CODE), Some([0, 0, 4, 1].as_slice()));
        assert_eq!(answer.text(AttributeType::REALM), Ok(Some(realm)));
        // A realm of more than twelve bytes leaves no room for the list, and the nonce does not announce it.
        let list = answer.find(AttributeType::PASSWORD_ALGORITHMS);
        assert_eq!(list, (realm.len() <= 12).then_some([0, 2, 0, 0, 0, 1, 0, 0].as_slice()));
        let nonce = answer.text(AttributeType::NONCE).expect("text").expect("it is there");
        assert!(nonce.starts_with(if list.is_some() { "obMatJos2AAAB" } else { "obMatJos2AAAA" }));
        assert!(answer.find(AttributeType::SOFTWARE).is_none());
    }
    // FINGERPRINT comes back, and both have it.
    let with_fingerprint = Client { fingerprint: true, ..Client::default() }.first_request();
    let answer = Server::default().refuse(&with_fingerprint, AuthError::NoIntegrity).expect("it fits");
    assert!(answer.len() <= stranger_reply_bytes_max(with_fingerprint.len()));
    assert!(Message::decode(&answer).expect("the server wrote it").has_fingerprint());
}

#[test]
fn a_request_too_short_for_a_challenge_gets_400() {
    let mut out = [0; 20];
    let mut server = Server::default();
    let bare = Writer::new(&mut out, Class::Request, Method::Refresh, TransactionId([1; 12])).finish();
    let bare = bare.expect("it fits");
    let answer = server.refuse(bare, AuthError::NoIntegrity).expect("28 of 70 bytes");
    assert_eq!(answer.len(), 28);
    let answer = Message::decode(&answer).expect("the server wrote it");
    assert_eq!(answer.find(AttributeType::ERROR_CODE), Some([0, 0, 4, 0].as_slice()));
    // A stream's client has proved its address: it gets the challenge, however short its request.
    let request = Message::decode(bare).expect("it is well-formed");
    let mut out = [0; 200];
    let Server { authenticator, credentials } = &mut server;
    let error = AuthError::NoIntegrity;
    let answer = authenticator.refuse(&request, error, credentials, NOW_S, client(), &mut out);
    assert_eq!(answer.map(<[u8]>::len), Some(96));
    let nothing = authenticator.refuse(&request, error, credentials, NOW_S, client(), &mut out[..27]);
    assert_eq!(nothing, None);
}

#[test]
fn md5_as_old_clients_do() {
    let mut server = Server::default();
    let bytes = Client::default().request(&server.challenge());
    let authenticated = server.authenticate(&bytes).expect("the password is right");
    assert_eq!(authenticated.user, "alice");
    assert_eq!(authenticated.expires_s, None);
    assert_eq!(authenticated.reply_key.integrity, Integrity::Sha1);
    assert_eq!(authenticated.reply_key.key.algorithm(), PasswordAlgorithm::Md5);

    // The answer is protected with the same key.
    let request = Message::decode(&bytes).expect("the client wrote it");
    let mut out = [0; 100];
    let mut writer = Writer::success(&mut out, &request);
    writer.lifetime_s(600);
    let answer = writer.seal(&request, Some(&authenticated.reply_key)).expect("it fits");
    let answer = Message::decode(answer).expect("the server wrote it");
    assert_eq!(answer.integrity(), Some(Integrity::Sha1));
    assert!(answer.verify_integrity(&alice().keys.md5, 32));
}

#[test]
fn sha256_and_the_list() {
    let mut server = Server::default();
    let nonce = server.challenge();
    let list = vec![0, 2, 0, 0, 0, 1, 0, 0];
    let client = Client { list: Some(list.clone()), algorithm: Some(SHA256.to_vec()), ..Client::default() };
    let bytes = client.request(&nonce);
    let authenticated = server.authenticate(&bytes).expect("the password is right");
    assert_eq!(authenticated.reply_key.integrity, Integrity::Sha256);
    assert_eq!(authenticated.reply_key.key.as_bytes(), alice().keys.sha256);
    // MD5 chosen from the whole list is the client's affair; the answer has SHA-256 all the same.
    let client = Client { list: Some(list), algorithm: Some(MD5.to_vec()), ..Client::default() };
    let bytes = client.request(&nonce);
    let authenticated = server.authenticate(&bytes).expect("the password is right");
    assert_eq!(authenticated.reply_key.integrity, Integrity::Sha256);
    assert_eq!(authenticated.reply_key.key.as_bytes(), alice().keys.md5);
    // Later requests may go without the list, with the strongest.
    let client = Client { algorithm: Some(SHA256.to_vec()), ..Client::default() };
    assert!(server.authenticate(&client.request(&nonce)).is_ok());
}

#[test]
fn bidding_down_is_seen() {
    let mut server = Server::default();
    let nonce = server.challenge();
    let whole = vec![0, 2, 0, 0, 0, 1, 0, 0];
    let cases = [
        (Some(vec![0, 1, 0, 0]), Some(MD5.to_vec())),
        (Some(vec![0, 1, 0, 0, 0, 2, 0, 0]), Some(MD5.to_vec())),
        (Some(whole.clone()), None),
        (None, Some(MD5.to_vec())),
        (Some(whole.clone()), Some(vec![0, 3, 0, 0])),
        (Some(whole.clone()), Some(vec![0, 2, 0, 1, 9, 0, 0, 0])),
        (Some(whole), Some(vec![])),
    ];
    for (list, algorithm) in cases {
        let client = Client { list, algorithm, ..Client::default() };
        let bytes = client.request(&nonce);
        assert_eq!(server.authenticate(&bytes), Err(AuthError::PasswordAlgorithms), "{client:?}");
        let answer = server.refuse(&bytes, AuthError::PasswordAlgorithms).expect("it fits");
        assert_eq!(answer.len(), 28, "400 and nothing else");
    }
    // Whoever takes the announcement out of the nonce breaks its MAC: the client is told anew what there is.
    let stripped = nonce.replacen("obMatJos2AAAD", "obMatJos2AAAA", 1);
    assert_ne!(stripped, nonce);
    assert_eq!(server.authenticate(&Client::default().request(&stripped)), Err(AuthError::StaleNonce));
    assert_eq!(server.authenticate(&Client::default().request(&nonce[13..])), Err(AuthError::StaleNonce));
}

#[test]
fn userhash_only_while_all_users_are_static() {
    let hash = Some(user_hash("alice", REALM).to_vec());
    let by_hash = Client { name: None, user_hash: hash, ..Client::default() };
    let mut server = Server::default();
    let nonce = server.challenge();
    assert!(nonce.starts_with("obMatJos2AAAD"), "it is announced");
    let bytes = by_hash.request(&nonce);
    assert_eq!(server.authenticate(&bytes).expect("the password is right").user, "alice");
    let wrong = Client { user_hash: Some(vec![1; 32]), ..by_hash.clone() };
    assert_eq!(server.authenticate(&wrong.request(&nonce)), Err(AuthError::UnknownUser));
    let short = Client { user_hash: Some(vec![1; 31]), ..by_hash.clone() };
    assert_eq!(server.authenticate(&short.request(&nonce)), Err(AuthError::UnknownUser));

    let mut server = Server::with(both());
    let nonce = server.challenge();
    assert!(nonce.starts_with("obMatJos2AAAB"), "it is not announced");
    assert_eq!(server.authenticate(&by_hash.request(&nonce)), Err(AuthError::UnknownUser));
    assert!(server.authenticate(&Client::default().request(&nonce)).is_ok(), "names still do");
}

#[test]
fn expiring_user_names_of_every_secret() {
    let mut server = Server::with(both());
    let nonce = server.challenge();
    let expires_s = NOW_S + 1;
    for (secret, name, user) in [
        (SECRET, format!("{expires_s}:bob"), "bob"),
        (OLD_SECRET, format!("{expires_s}:bob"), "bob"),
        (SECRET, format!("{expires_s}:a:b"), "a:b"),
        (SECRET, expires_s.to_string(), "1800000001"),
    ] {
        let client = Client {
            name: Some(name.clone()),
            password: rest_password(secret, &name).to_string(),
            ..Client::default()
        };
        let bytes = client.request(&nonce);
        let authenticated = server.authenticate(&bytes).expect("the password is right");
        assert_eq!((authenticated.user, authenticated.expires_s), (user, Some(expires_s)));
    }
    // A password of a static user's name, of another secret, and of another expiry.
    let name = format!("{expires_s}:bob");
    let later = format!("{}:bob", expires_s + 1);
    for password in
        [rest_password(b"another", &name), rest_password(SECRET, &later), rest_password(SECRET, "bob")]
    {
        let client = Client { name: Some(name.clone()), password: password.to_string(), ..Client::default() };
        assert_eq!(server.authenticate(&client.request(&nonce)), Err(AuthError::WrongIntegrity));
    }
    for name in
        ["bob", "", ":bob", "+1900000000:bob", "18446744073709551616:bob", "-1:bob", "0x7fffffffff:bob"]
    {
        let password = rest_password(SECRET, name).to_string();
        let client = Client { name: Some(name.to_owned()), password, ..Client::default() };
        assert_eq!(server.authenticate(&client.request(&nonce)), Err(AuthError::UnknownUser), "{name:?}");
    }
}

#[test]
fn password_of_an_expiring_user_name() {
    // printf 1433895918:ninefingers | openssl dgst -sha1 -hmac north -binary | base64
    assert_eq!(*rest_password(b"north", "1433895918:ninefingers"), *"jy8hTxmOO7UtEKXqSkSlvakPVYA=");
}

#[test]
fn expiry_ends_what_starts_a_session() {
    let mut server = Server::with(both());
    let nonce = server.challenge();
    let name = format!("{NOW_S}:bob");
    let client =
        Client { password: rest_password(SECRET, &name).to_string(), name: Some(name), ..Client::default() };
    let bytes = client.request(&nonce);
    assert_eq!(server.authenticate(&bytes), Err(AuthError::Expired));
    let request = Message::decode(&bytes).expect("the client wrote it");
    let Server { authenticator, credentials } = &mut server;
    let waived = authenticator.authenticate(&request, credentials, NOW_S, self::client(), Expiry::Waived);
    assert_eq!(waived.map(|authenticated| authenticated.user), Ok("bob"));
}

#[test]
fn what_is_missing_or_wrong() {
    let mut server = Server::default();
    let nonce = server.challenge();
    let cases = [
        (Client { name: None, ..Client::default() }, AuthError::Incomplete),
        (Client { realm: None, ..Client::default() }, AuthError::Incomplete),
        (Client { has_nonce: false, ..Client::default() }, AuthError::Incomplete),
        (Client { realm: Some("example.com"), ..Client::default() }, AuthError::UnknownUser),
        (Client { name: Some("mallory".to_owned()), ..Client::default() }, AuthError::UnknownUser),
        (Client { password: "wrong".to_owned(), ..Client::default() }, AuthError::WrongIntegrity),
    ];
    for (client, error) in cases {
        let bytes = client.request(&nonce);
        assert_eq!(server.authenticate(&bytes), Err(error), "{client:?}");
        assert!(server.authenticator.counts().refused(error) > 0);
    }
    assert_eq!(server.authenticate(&Client::default().first_request()), Err(AuthError::NoIntegrity));
    assert_eq!(server.authenticator.counts().authenticated, 0);
    assert!(server.authenticate(&Client::default().request(&nonce)).is_ok());
    assert_eq!(server.authenticator.counts().authenticated, 1);
    let counts = server.authenticator.counts();
    assert_eq!(AuthError::ALL.map(|error| counts.refused(error)), [1, 3, 0, 2, 0, 0, 1]);

    let codes = AuthError::ALL.map(|error| error.code().get());
    assert_eq!(codes, [401, 400, 400, 401, 401, 438, 401]);
}

#[test]
fn a_truncated_mac_is_not_enough() {
    let mut server = Server::default();
    let nonce = server.challenge();
    let bytes =
        Client { mac_len: Some(16), algorithm: Some(SHA256.to_vec()), ..Client::default() }.request(&nonce);
    let request = Message::decode(&bytes).expect("16 bytes are a valid length");
    assert!(request.verify_integrity(&alice().keys.sha256, 16), "and the MAC is right");
    assert_eq!(server.authenticate(&bytes), Err(AuthError::WrongIntegrity));
}

#[test]
fn nonces_grow_stale_and_belong_to_an_address() {
    // Over the hour in which the key changes, and in 2106, when four bytes of seconds wrap.
    for start_s in [NOW_S, NOW_S - NOW_S % 3600 - 1, (1 << 32) - 10, 0] {
        let mut server = Server::default();
        let nonce = server.challenge_at(start_s, client());
        let bytes = Client::default().request(&nonce);
        let mut at = |now_s, from| {
            let request = Message::decode(&bytes).expect("the client wrote it");
            let Server { authenticator, credentials } = &mut server;
            authenticator.authenticate(&request, credentials, now_s, from, Expiry::Enforced).map(|_| ())
        };
        assert_eq!(at(start_s, client()), Ok(()));
        assert_eq!(at(start_s + NONCE_LIFETIME_S - 1, client()), Ok(()));
        assert_eq!(at(start_s + NONCE_LIFETIME_S, client()), Err(AuthError::StaleNonce));
        assert_eq!(at(start_s + (1 << 33), client()), Err(AuthError::StaleNonce));
        assert_eq!(at(start_s.saturating_sub(60), client()), Ok(()), "the clock was set back a minute");
        if start_s > 0 {
            assert_eq!(at(start_s - 61, client()), Err(AuthError::StaleNonce), "and by more");
        }
        for from in ["198.51.100.7:4001", "198.51.100.8:4000", "[2001:db8::1]:4000"] {
            assert_eq!(at(start_s, from.parse().expect("an address")), Err(AuthError::StaleNonce), "{from}");
        }
    }
}

#[test]
fn shards_share_nonces_through_the_key_alone() {
    let nonce = Server::default().challenge();
    let bytes = Client::default().request(&nonce);
    assert!(Server::default().authenticate(&bytes).is_ok(), "another shard");
    let authenticator = Authenticator::new(Nonces::new([9; 32], NONCE_LIFETIME_S));
    let mut other = Server { authenticator, ..Server::default() };
    assert_eq!(other.authenticate(&bytes), Err(AuthError::StaleNonce), "another node");
}

#[test]
fn a_stale_nonce_is_answered_with_a_new_one() {
    let mut server = Server::default();
    let old = server.challenge_at(NOW_S - NONCE_LIFETIME_S, client());
    let bytes = Client::default().request(&old);
    let error = server.authenticate(&bytes).expect_err("it is an hour old");
    let answer = server.refuse(&bytes, error).expect("it fits");
    let answer = Message::decode(&answer).expect("the server wrote it");
    assert_eq!(answer.find(AttributeType::ERROR_CODE), Some([0, 0, 4, 38].as_slice()));
    assert!(answer.find(AttributeType::PASSWORD_ALGORITHMS).is_some());
    let new = answer.text(AttributeType::NONCE).expect("text").expect("it is there");
    assert!(server.authenticate(&Client::default().request(new)).is_ok());
}

#[test]
fn a_new_lifetime_holds_for_old_nonces() {
    let mut server = Server::default();
    let old = server.challenge_at(NOW_S - NONCE_LIFETIME_S, client());
    let bytes = Client::default().request(&old);
    server.authenticator.set_nonce_lifetime_s(2 * NONCE_LIFETIME_S);
    assert!(server.authenticate(&bytes).is_ok());
    server.authenticator.set_nonce_lifetime_s(60);
    assert_eq!(server.authenticate(&bytes), Err(AuthError::StaleNonce));
}

#[test]
fn what_a_policy_names() {
    let keys = alice().keys;
    let user = RelayUser { name: "alice".to_owned(), key_md5: keys.md5, key_sha256: keys.sha256 };
    let policy = RelayPolicy { realm: REALM.to_owned(), users: vec![user], ..RelayPolicy::default() };
    let mut server = Server::with(Credentials::try_from(&policy).expect("a good policy"));
    let nonce = server.challenge();
    assert!(server.authenticate(&Client::default().request(&nonce)).is_ok());
    // What the policy's own check lets through in length, credentials do.
    for realm_len in [1, RELAY_REALM_LEN_MAX] {
        let policy = RelayPolicy { realm: "r".repeat(realm_len), ..RelayPolicy::default() };
        assert!(policy.check().is_ok() && Credentials::try_from(&policy).is_ok());
    }
}

#[test]
fn credentials_that_cannot_be_used() {
    let new = |realm: &str, users: Vec<StaticUser>, secrets: Vec<Vec<u8>>| {
        Credentials::new(realm, users, secrets).map(|_| ())
    };
    assert_eq!(new("", vec![], vec![]), Err(CredentialsError::RealmLength { len: 0 }));
    assert_eq!(new(&"r".repeat(25), vec![], vec![]), Err(CredentialsError::RealmLength { len: 25 }));
    for realm in ["a \"b\"", "a\\b", "a\nb", "soft\u{ad}", "ⅳ"] {
        assert_eq!(
            new(realm, vec![], vec![]),
            Err(CredentialsError::RealmCharacters { realm: realm.to_owned() })
        );
    }
    assert_eq!(new("r", vec![], vec![vec![]]), Err(CredentialsError::EmptySecret));
    assert_eq!(new("r", vec![], vec![vec![1]; 17]), Err(CredentialsError::TooManySecrets { count: 17 }));
    assert_eq!(
        new("r", vec![alice(), alice()], vec![]),
        Err(CredentialsError::UserTwice { name: "alice".to_owned() })
    );
    for name in [String::new(), "n".repeat(509)] {
        let user = StaticUser { name: name.clone(), ..alice() };
        assert_eq!(new("r", vec![user], vec![]), Err(CredentialsError::UserNameLength { name }));
    }
    let refused = StaticUser::derive("alice", REALM, "bell\u{7}");
    assert!(matches!(refused, Err(CredentialsError::Prepare { what: "the password", .. })), "{refused:?}");
    let printed = format!("{:?}; {:?}", alice(), both());
    let hidden = r#"StaticUser { name: "alice", keys: UserKeys(hidden) }; Credentials { realm: "example.org", users: 1, "#;
    assert_eq!(printed, format!("{hidden}secrets: 2, .. }}"), "keys and secrets are not printed");
}

#[test]
fn nobody_is_let_in_without_credentials() {
    let mut server = Server::with(Credentials::default());
    let name = format!("{}:bob", NOW_S + 60);
    let client = Client {
        password: rest_password(b"", &name).to_string(),
        name: Some(name),
        realm: Some(""),
        ..Client::default()
    };
    let nonce = server.challenge();
    assert_eq!(server.authenticate(&client.request(&nonce)), Err(AuthError::UnknownUser));
}

proptest! {
    /// Whatever one byte of a right request is changed into, it is refused, and the answer stays within its bound.
    #[test]
    fn a_changed_request_is_refused(at in any::<prop::sample::Index>(), change in 1_u8.., sha256 in any::<bool>()) {
        let mut server = Server::default();
        let nonce = server.challenge();
        let algorithm = sha256.then(|| SHA256.to_vec());
        let mut bytes = Client { algorithm, ..Client::default() }.request(&nonce);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        if let Ok(request) = Message::decode(&bytes) {
            // The MAC covers everything before it, and everything else is the MAC.
            let error = server.authenticate(&bytes);
            prop_assert!(error.is_err());
            if let (Err(error), Class::Request) = (error, request.class()) {
                let answer = server.refuse(&bytes, error).expect("a 400 always fits");
                prop_assert!(answer.len() <= stranger_reply_bytes_max(bytes.len()));
                prop_assert!(Message::decode(&answer).is_ok());
            }
        }
    }

    /// Without the key nobody gets in, with whatever attributes.
    #[test]
    fn guesses_are_refused(
        name in "[0-9]{0,12}:?[a-z]{0,6}",
        nonce in "(obMatJos2)?[a-zA-Z0-9_-]{0,30}",
        mac in any::<[u8; 20]>(),
    ) {
        let mut out = [0; 300];
        let mut writer = Writer::new(&mut out, Class::Request, Method::Allocate, TransactionId([1; 12]));
        writer
            .attribute(AttributeType::USERNAME, name.as_bytes())
            .attribute(AttributeType::REALM, REALM.as_bytes())
            .attribute(AttributeType::NONCE, nonce.as_bytes())
            .attribute(AttributeType::MESSAGE_INTEGRITY, &mac);
        let bytes = writer.finish().expect("it fits").to_vec();
        prop_assert!(Server::with(both()).authenticate(&bytes).is_err());
    }
}

/// The server of these tests: its authenticator and who may relay.
struct Server {
    authenticator: Authenticator,
    credentials: Credentials,
}

impl Default for Server {
    /// One static user, no secrets.
    fn default() -> Self {
        Self::with(Credentials::new(REALM, [alice()], []).expect("a good realm"))
    }
}

impl Server {
    fn with(credentials: Credentials) -> Self {
        Self { authenticator: Authenticator::new(Nonces::new([3; 32], NONCE_LIFETIME_S)), credentials }
    }

    fn authenticate<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Authenticated<'a>, AuthError> {
        let request = Message::decode(bytes).expect("the client wrote it");
        let Self { authenticator, credentials } = self;
        authenticator.authenticate(&request, credentials, NOW_S, client(), Expiry::Enforced)
    }

    /// The answer as it goes to somebody behind a datagram.
    fn refuse(&mut self, bytes: &[u8], error: AuthError) -> Option<Vec<u8>> {
        let request = Message::decode(bytes).expect("the client wrote it");
        let mut out = [0xaa; 2000];
        let max = stranger_reply_bytes_max(bytes.len());
        self.authenticator
            .refuse(&request, error, &self.credentials, NOW_S, client(), &mut out[..max])
            .map(<[u8]>::to_vec)
    }

    /// A nonce, as a first request gets it.
    fn challenge(&mut self) -> String {
        self.challenge_at(NOW_S, client())
    }

    fn challenge_at(&mut self, now_s: u64, client: SocketAddr) -> String {
        let first = Client::default().first_request();
        let request = Message::decode(&first).expect("the client wrote it");
        let mut out = [0; 500];
        let Self { authenticator, credentials } = self;
        let error = AuthError::NoIntegrity;
        let answer = authenticator.refuse(&request, error, credentials, now_s, client, &mut out);
        let answer = Message::decode(answer.expect("it fits")).expect("the server wrote it");
        answer.text(AttributeType::NONCE).expect("text").expect("it is there").to_owned()
    }
}

/// What a client puts into a request, right unless a test says otherwise.
#[derive(Clone, Debug)]
struct Client {
    name: Option<String>,
    user_hash: Option<Vec<u8>>,
    password: String,
    realm: Option<&'static str>,
    has_nonce: bool,
    list: Option<Vec<u8>>,
    algorithm: Option<Vec<u8>>,
    /// Cuts MESSAGE-INTEGRITY-SHA256.
    mac_len: Option<usize>,
    fingerprint: bool,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            name: Some("alice".to_owned()),
            user_hash: None,
            password: "open sesame".to_owned(),
            realm: Some(REALM),
            has_nonce: true,
            list: None,
            algorithm: None,
            mac_len: None,
            fingerprint: false,
        }
    }
}

impl Client {
    fn first_request(&self) -> Vec<u8> {
        let mut out = [0; 100];
        let mut writer = Writer::new(&mut out, Class::Request, Method::Allocate, TransactionId([5; 12]));
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        if self.fingerprint {
            writer.fingerprint();
        }
        writer.finish().expect("it fits").to_vec()
    }

    fn request(&self, nonce: &str) -> Vec<u8> {
        let mut out = [0; 1000];
        let mut writer = Writer::new(&mut out, Class::Request, Method::Allocate, TransactionId([6; 12]));
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        let attributes = [
            (AttributeType::USERNAME, self.name.as_ref().map(|name| name.as_bytes())),
            (AttributeType::USERHASH, self.user_hash.as_deref()),
            (AttributeType::REALM, self.realm.map(str::as_bytes)),
            (AttributeType::NONCE, self.has_nonce.then_some(nonce.as_bytes())),
            (AttributeType::PASSWORD_ALGORITHMS, self.list.as_deref()),
            (AttributeType::PASSWORD_ALGORITHM, self.algorithm.as_deref()),
        ];
        for (kind, value) in attributes {
            if let Some(value) = value {
                writer.attribute(kind, value);
            }
        }
        let name = self.name.as_deref().unwrap_or("alice");
        let keys = StaticUser::derive(name, self.realm.unwrap_or(REALM), &self.password).expect("ASCII").keys;
        match &self.algorithm {
            Some(algorithm) if *algorithm == SHA256 => writer.integrity_with(Integrity::Sha256, &keys.sha256),
            Some(_) => writer.integrity_with(Integrity::Sha256, &keys.md5),
            None => writer.integrity_with(Integrity::Sha1, &keys.md5),
        };
        let mut bytes = writer.finish().expect("it fits").to_vec();
        if let Some(mac_len) = self.mac_len {
            cut_mac(&mut bytes, mac_len, &keys.sha256);
        }
        bytes
    }
}

/// Replaces MESSAGE-INTEGRITY-SHA256 at the end by one of `mac_len` bytes, which covers another length field.
fn cut_mac(bytes: &mut Vec<u8>, mac_len: usize, key: &[u8]) {
    use hmac::{Hmac, KeyInit, Mac};
    bytes.truncate(bytes.len() - 36);
    let len = (bytes.len() - 20 + 4 + mac_len) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(key).expect("any length").chain_update(&*bytes);
    bytes.extend_from_slice(&[0x00, 0x1c, 0, mac_len as u8]);
    bytes.extend_from_slice(&mac.finalize().into_bytes()[..mac_len]);
}

fn alice() -> StaticUser {
    StaticUser::derive("alice", REALM, "open sesame").expect("ASCII")
}

fn both() -> Credentials {
    Credentials::new(REALM, [alice()], [SECRET.to_vec(), OLD_SECRET.to_vec()]).expect("a good realm")
}

fn client() -> SocketAddr {
    "198.51.100.7:4000".parse().expect("an address")
}
