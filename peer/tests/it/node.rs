//! A small HTTP/3 node on loopback, with an identity of its own and faults as data.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3_quinn::quinn;
use http::{Method, Response, StatusCode};
use identity::{SecretKey, Uid, certificate, token};
use peer::NodeUrl;
use store::Hash;

type Stream = h3::server::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// What a node does wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// One bit of the body is flipped.
    WrongByte,
    /// One bit of the content's byte at this offset is flipped, whatever part of it is sent.
    WrongByteAt(usize),
    /// The body is another one of the same length, all zeros.
    Zeros,
    /// Content-Length, and Content-Range, name a content half as long, and so much is sent.
    HalfLength,
    /// A request for a range is answered with the whole.
    NoRanges,
    /// Content-Length is honest, but the body ends after this many bytes.
    Truncate(usize),
    /// Content-Length names one byte too many, and that byte is sent.
    LongBody,
    /// No Content-Length, and more bytes than the content has.
    LongBodyUnannounced,
    /// Nothing after this many bytes, for ever.
    Stall(usize),
    /// The stream is reset after this many bytes.
    Reset(usize),
    /// The connection is closed after this many bytes.
    Close(usize),
    /// An answer with this status and a problem document; Retry-After in seconds if given.
    Status(u16, Option<u64>),
    /// A pause of this many milliseconds before each 16 KiB.
    Slow(u64),
    /// A byte at a time, with a pause of this many milliseconds before each.
    Drip(u64),
    /// HEAD: says that it holds this many bytes, whether it does or not.
    Claim(usize),
}

/// Which requests a fault hits: those of `method`, for `hash` if given, numbered `from..from + count` among
/// them.
#[derive(Debug, Clone)]
pub struct Rule {
    pub method: Method,
    pub hash: Option<Hash>,
    pub from: usize,
    pub count: usize,
    pub fault: Fault,
}

impl Rule {
    /// Every GET.
    pub fn always(fault: Fault) -> Rule {
        Rule { method: Method::GET, hash: None, from: 0, count: usize::MAX, fault }
    }

    /// The first `count` GETs.
    pub fn first(count: usize, fault: Fault) -> Rule {
        Rule { count, ..Rule::always(fault) }
    }

    /// Every GET but the first `from`.
    pub fn after(from: usize, fault: Fault) -> Rule {
        Rule { from, ..Rule::always(fault) }
    }

    /// Every PUT.
    pub fn put(fault: Fault) -> Rule {
        Rule { method: Method::PUT, ..Rule::always(fault) }
    }

    /// Every HEAD.
    pub fn head(fault: Fault) -> Rule {
        Rule { method: Method::HEAD, ..Rule::always(fault) }
    }

    /// The same for one hash only.
    pub fn of(self, hash: Hash) -> Rule {
        Rule { hash: Some(hash), ..self }
    }
}

/// A running node. Dropping it closes its socket without a goodbye to anyone.
pub struct TestNode {
    pub uid: Uid,
    pub address: SocketAddr,
    pub certificate_pem: String,
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
}

struct Shared {
    uid: Uid,
    content: Mutex<HashMap<Hash, Bytes>>,
    rules: Mutex<Vec<(Rule, usize)>>,
    /// Method and hash of every request, in order of arrival.
    log: Mutex<Vec<(Method, Hash)>>,
    /// Every range of content that was asked for: hash, and where it began.
    ranges: Mutex<Vec<(Hash, usize)>>,
    /// Who may PUT.
    publishers: Mutex<Vec<Uid>>,
    /// How many connections were made.
    connections: AtomicUsize,
    /// Changes when the connections there are must be drained.
    drain: tokio::sync::watch::Sender<()>,
}

impl TestNode {
    /// A node with this content and these faults.
    pub fn start(content: &[Bytes], rules: Vec<Rule>) -> TestNode {
        let key = SecretKey::from_seed(random_bytes());
        TestNode::start_as(&key, content, rules)
    }

    /// An empty node that takes what `publisher` puts.
    pub fn taking(publisher: Uid, rules: Vec<Rule>) -> TestNode {
        let node = TestNode::start(&[], rules);
        node.allow(publisher);
        node
    }

    pub fn start_as(key: &SecretKey, content: &[Bytes], rules: Vec<Rule>) -> TestNode {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket = std::net::UdpSocket::bind(address).expect("loopback has a free port");
        TestNode::serve_on(socket, key, content, rules)
    }

    /// A node where another one was; waits until that one has let go of its port.
    pub async fn start_at(
        key: &SecretKey,
        address: SocketAddr,
        content: &[Bytes],
        rules: Vec<Rule>,
    ) -> TestNode {
        loop {
            match std::net::UdpSocket::bind(address) {
                Ok(socket) => return TestNode::serve_on(socket, key, content, rules),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    fn serve_on(
        socket: std::net::UdpSocket,
        key: &SecretKey,
        content: &[Bytes],
        rules: Vec<Rule>,
    ) -> TestNode {
        let (config, certificate_pem) = tls(key);
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, runtime)
            .expect("a socket that quinn can use");
        let address = endpoint.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            uid: key.uid(),
            content: Mutex::new(content.iter().map(|bytes| (Hash::of(bytes), bytes.clone())).collect()),
            rules: Mutex::new(rules.into_iter().map(|rule| (rule, 0)).collect()),
            log: Mutex::default(),
            ranges: Mutex::default(),
            publishers: Mutex::default(),
            connections: AtomicUsize::new(0),
            drain: tokio::sync::watch::channel(()).0,
        });
        tokio::spawn(accept(endpoint.clone(), shared.clone()));
        TestNode { uid: key.uid(), address, certificate_pem, shared, endpoint }
    }

    /// Its URL, with its UID pinned.
    pub fn url(&self) -> NodeUrl {
        format!("https://{}@{}", self.uid, self.address).parse().expect("a node's URL")
    }

    /// Its URL without a pin, by the name its certificate is for.
    pub fn url_unpinned(&self) -> NodeUrl {
        format!("https://localhost:{}", self.address.port()).parse().expect("a node's URL")
    }

    pub fn allow(&self, publisher: Uid) {
        self.shared.publishers.lock().unwrap().push(publisher);
    }

    pub fn holds(&self, hash: &Hash) -> bool {
        self.shared.content.lock().unwrap().contains_key(hash)
    }

    pub fn insert(&self, bytes: Bytes) {
        self.shared.content.lock().unwrap().insert(Hash::of(&bytes), bytes);
    }

    pub fn remove(&self, hash: &Hash) {
        self.shared.content.lock().unwrap().remove(hash);
    }

    pub fn set_rules(&self, rules: Vec<Rule>) {
        *self.shared.rules.lock().unwrap() = rules.into_iter().map(|rule| (rule, 0)).collect();
    }

    /// How many requests with this method arrived.
    pub fn requests(&self, method: &Method) -> usize {
        self.shared.log.lock().unwrap().iter().filter(|(m, _)| m == method).count()
    }

    /// How often this hash was asked for with GET.
    pub fn gets_of(&self, hash: &Hash) -> usize {
        self.shared.log.lock().unwrap().iter().filter(|(m, h)| m == Method::GET && h == hash).count()
    }

    /// The ranges that were asked for: hash, and where each began.
    pub fn ranges(&self) -> Vec<(Hash, usize)> {
        self.shared.ranges.lock().unwrap().clone()
    }

    /// The hashes that were put, in order.
    pub fn puts(&self) -> Vec<Hash> {
        let log = self.shared.log.lock().unwrap();
        log.iter().filter(|(m, _)| m == Method::PUT).map(|(_, hash)| *hash).collect()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Drains the connections there are (GOAWAY): requests under way end well, later ones are refused.
    pub fn drain(&self) {
        self.shared.drain.send_replace(());
    }

    /// Dies: every connection is closed, and nobody answers any more.
    pub fn die(&self) {
        self.endpoint.close(0u32.into(), b"gone");
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.die();
    }
}

pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random numbers");
    bytes
}

/// A self-signed P-256 certificate for localhost, bound to the key's UID.
pub fn tls(key: &SecretKey) -> (quinn::ServerConfig, String) {
    use rcgen::PublicKeyData;
    let tls_key = rcgen::KeyPair::generate().expect("a P-256 key");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a valid name");
    let value = certificate::extension_value(key, &tls_key.subject_public_key_info());
    let extension = rcgen::CustomExtension::from_oid_content(certificate::EXTENSION_OID, value);
    params.custom_extensions.push(extension);
    let signed = params.self_signed(&tls_key).expect("a certificate");
    (server_config(signed.der().clone(), &tls_key), signed.pem())
}

pub fn server_config(
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: &rcgen::KeyPair,
) -> quinn::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .expect("a matching key");
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).expect("a QUIC cipher suite");
    quinn::ServerConfig::with_crypto(Arc::new(crypto))
}

async fn accept(endpoint: quinn::Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                serve(connection, shared).await;
            }
        });
    }
}

async fn serve(quic: quinn::Connection, shared: Arc<Shared>) {
    let Ok(mut http) = h3::server::builder().build(h3_quinn::Connection::new(quic.clone())).await else {
        return;
    };
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let mut drain = shared.drain.subscribe();
    loop {
        let resolver = tokio::select! {
            accepted = http.accept() => match accepted {
                Ok(Some(resolver)) => resolver,
                _ => break,
            },
            Ok(()) = drain.changed() => {
                let _ = http.shutdown(0).await;
                continue;
            }
        };
        let (shared, quic) = (shared.clone(), quic.clone());
        tokio::spawn(async move {
            if let Ok((request, stream)) = resolver.resolve_request().await {
                // Errors are the client's business here: it may have cancelled.
                let _ = answer(&shared, &quic, &request, stream).await;
            }
        });
    }
}

impl Shared {
    fn fault(&self, method: &Method, hash: &Hash) -> Option<Fault> {
        let mut found = None;
        for (rule, seen) in self.rules.lock().unwrap().iter_mut() {
            if rule.method == *method && rule.hash.is_none_or(|h| h == *hash) {
                let number = *seen;
                *seen += 1;
                if number >= rule.from && number - rule.from < rule.count && found.is_none() {
                    found = Some(rule.fault);
                }
            }
        }
        found
    }
}

async fn answer(
    shared: &Shared,
    quic: &quinn::Connection,
    request: &http::Request<()>,
    mut stream: Stream,
) -> Result<(), h3::error::StreamError> {
    let Some(Ok(hash)) = request.uri().path().strip_prefix("/b3/").map(str::parse::<Hash>) else {
        return problem(&mut stream, 400, None).await;
    };
    shared.log.lock().unwrap().push((request.method().clone(), hash));
    let fault = shared.fault(request.method(), &hash);
    if let Some(Fault::Status(status, retry_after)) = fault {
        return problem(&mut stream, status, retry_after).await;
    }
    if request.method() == Method::PUT {
        return put(shared, quic, request, hash, fault, stream).await;
    }
    let held = shared.content.lock().unwrap().get(&hash).cloned();
    if request.method() == Method::POST {
        let status = if held.is_some() { 200 } else { 404 };
        return problem(&mut stream, status, None).await;
    }
    if let Some(Fault::Claim(len)) = fault {
        let head = Response::builder().status(StatusCode::OK).header("content-length", len);
        stream.send_response(head.body(()).expect("a valid response")).await?;
        return stream.finish().await;
    }
    let Some(mut body) = held else { return problem(&mut stream, 404, None).await };
    match fault {
        Some(Fault::WrongByte) => body = flipped(&body, body.len() / 2),
        Some(Fault::WrongByteAt(at)) => body = flipped(&body, at.min(body.len() - 1)),
        Some(Fault::Zeros) => body = vec![0; body.len()].into(),
        Some(Fault::HalfLength) => body.truncate(body.len() / 2),
        Some(Fault::LongBody | Fault::LongBodyUnannounced) => body = [&body[..], b"!"].concat().into(),
        _ => {}
    }
    let total = body.len();
    let asked = request.headers().get("range").and_then(|value| value.to_str().ok());
    let asked = asked.filter(|_| request.method() == Method::GET).and_then(|asked| range_of(asked, total));
    let mut head = Response::builder().status(StatusCode::OK);
    if let Some((first, end)) = asked {
        shared.ranges.lock().unwrap().push((hash, first));
        if first >= total {
            return problem(&mut stream, 416, None).await;
        }
        if !matches!(fault, Some(Fault::NoRanges)) {
            let content_range = format!("bytes {first}-{}/{total}", end - 1);
            head = head.status(StatusCode::PARTIAL_CONTENT).header("content-range", content_range);
            body = body.slice(first..end);
        }
    }
    if !matches!(fault, Some(Fault::LongBodyUnannounced)) {
        head = head.header("content-length", body.len());
    }
    stream.send_response(head.body(()).expect("a valid response")).await?;
    if request.method() == Method::HEAD {
        return stream.finish().await;
    }
    send_body(quic, &mut stream, body, fault).await
}

fn flipped(body: &[u8], at: usize) -> Bytes {
    let mut bytes = body.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

/// First byte and one past the last that is there, of a single range (RFC 9110 section 14.1.2).
fn range_of(field: &str, total: usize) -> Option<(usize, usize)> {
    let (first, last) = field.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let end = if last.is_empty() { total } else { last.parse::<usize>().ok()?.checked_add(1)?.min(total) };
    Some((first, end))
}

async fn send_body(
    quic: &quinn::Connection,
    stream: &mut Stream,
    mut body: Bytes,
    fault: Option<Fault>,
) -> Result<(), h3::error::StreamError> {
    let cut = match fault {
        Some(Fault::Truncate(at) | Fault::Stall(at) | Fault::Reset(at) | Fault::Close(at)) => at,
        _ => usize::MAX,
    };
    body.truncate(cut);
    while body.has_remaining() {
        let (pause_ms, piece_len) = match fault {
            Some(Fault::Slow(pause_ms)) => (pause_ms, 16 << 10),
            Some(Fault::Drip(pause_ms)) => (pause_ms, 1),
            _ => (0, 16 << 10),
        };
        if pause_ms > 0 {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        let piece = body.split_to(body.len().min(piece_len));
        stream.send_data(piece).await?;
    }
    match fault {
        Some(Fault::Stall(_)) => std::future::pending().await,
        Some(Fault::Reset(_)) => {
            stream.stop_stream(Code::H3_INTERNAL_ERROR);
            Ok(())
        }
        Some(Fault::Close(_)) => {
            quic.close(0x102u32.into(), b"fault");
            Ok(())
        }
        _ => stream.finish().await,
    }
}

async fn put(
    shared: &Shared,
    quic: &quinn::Connection,
    request: &http::Request<()>,
    hash: Hash,
    fault: Option<Fault>,
    mut stream: Stream,
) -> Result<(), h3::error::StreamError> {
    let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|text| token::from_text(text.strip_prefix("Bearer ")?.as_bytes()).ok());
    let Some(token) = token else { return problem(&mut stream, 401, None).await };
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let publishers = shared.publishers.lock().unwrap().clone();
    let claims = match token::verify(&token, now_s, &shared.uid, |claims| publishers.contains(&claims.issuer))
    {
        Ok(claims) => claims,
        Err(token::TokenError::UntrustedIssuer { .. }) => return problem(&mut stream, 403, None).await,
        Err(_) => return problem(&mut stream, 401, None).await,
    };
    let mut body = Vec::new();
    while let Some(chunk) = stream.recv_data().await? {
        let mut chunk = chunk;
        body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        match fault {
            Some(Fault::Close(at)) if body.len() >= at => quic.close(0x102u32.into(), b"fault"),
            Some(Fault::Stall(at)) if body.len() >= at => std::future::pending().await,
            Some(Fault::Reset(at)) if body.len() >= at => {
                stream.stop_stream(Code::H3_INTERNAL_ERROR);
                return Ok(());
            }
            _ => {}
        }
    }
    if claims.permits(token::Action::Put, &hash.0, body.len() as u64).is_err() {
        return problem(&mut stream, 403, None).await;
    }
    if Hash::of(&body) != hash {
        return problem(&mut stream, 422, None).await;
    }
    shared.content.lock().unwrap().insert(hash, body.into());
    stream.send_response(Response::builder().status(201).body(()).expect("a valid response")).await?;
    stream.finish().await
}

async fn problem(
    stream: &mut Stream,
    status: u16,
    retry_after: Option<u64>,
) -> Result<(), h3::error::StreamError> {
    let mut head = Response::builder().status(status).header("content-type", "application/problem+json");
    if let Some(seconds) = retry_after {
        head = head.header("retry-after", seconds);
    }
    stream.send_response(head.body(()).expect("a valid response")).await?;
    let text = format!("{{\"title\":\"fault {status}\",\"detail\":\"as the test\\u001b asked\"}}");
    stream.send_data(text.into()).await?;
    stream.finish().await
}
