//! The common way to serve HTTP/3 from Rust: quinn and h3-quinn on one tokio thread, content in memory.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use h3::server::RequestResolver;
use http::{Response, StatusCode, header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{ServerArgs, ServerCounters, announce, requested_range};
use crate::quic::DATAGRAM_LEN;

/// Bytes handed to h3 at a time: the length of one DATA frame.
const DATA_FRAME_LEN: usize = 1 << 20;

/// Runs until the program that started it ends it.
pub fn run(args: &ServerArgs) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: &ServerArgs) -> anyhow::Result<()> {
    let content = Bytes::from(std::fs::read(&args.content).context("reading the content")?);
    let endpoint = quinn::Endpoint::server(config(args)?, args.listen)?;
    announce(endpoint.local_addr()?, Arc::new(ServerCounters::default()))?;
    while let Some(incoming) = endpoint.accept().await {
        let content = content.clone();
        tokio::spawn(async move {
            // What goes wrong with a connection shows at the client, which counts the bytes.
            let Ok(connection) = incoming.await else { return };
            let Ok(mut connection) = h3::server::Connection::new(h3_quinn::Connection::new(connection)).await
            else {
                return;
            };
            while let Ok(Some(resolver)) = connection.accept().await {
                tokio::spawn(respond(resolver, content.clone()));
            }
        });
    }
    Ok(())
}

fn config(args: &ServerArgs) -> anyhow::Result<quinn::ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&args.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&args.key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let mut transport = quinn::TransportConfig::default();
    let datagram_len = u16::try_from(DATAGRAM_LEN)?;
    transport.initial_mtu(datagram_len).min_mtu(datagram_len).mtu_discovery_config(None);
    config.transport_config(Arc::new(transport));
    Ok(config)
}

async fn respond(
    resolver: RequestResolver<h3_quinn::Connection, Bytes>,
    content: Bytes,
) -> Result<(), h3::error::StreamError> {
    let (request, mut stream) = resolver.resolve_request().await?;
    let range = request.headers().get(header::RANGE).map(|v| v.as_bytes());
    let Some(range) = requested_range(range, content.len()) else {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        stream.send_response(response).await?;
        return stream.finish().await;
    };
    let mut body = content.slice(range);
    let mut response = Response::new(());
    response.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
    stream.send_response(response).await?;
    while !body.is_empty() {
        let frame = body.split_to(body.len().min(DATA_FRAME_LEN));
        stream.send_data(frame).await?;
    }
    stream.finish().await
}
