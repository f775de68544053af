//! From a request over TCP to its answer.

use super::TcpConfig;
use super::body::ContentBody;
use super::content::{Found, Unavailable};
use crate::limits::{TCP_DISCARD_LEN, TCP_DISCARD_TIMEOUT};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::Body as _;
use relay::content::{self, Action, Problem, RETRY_AFTER_S, Read};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

/// What the bytes of a segment or a file are, as far as this node knows.
const MEDIA_TYPE: &str = "application/octet-stream";

#[derive(Clone)]
struct Service {
    config: TcpConfig,
    alt_svc: HeaderValue,
    draining: watch::Receiver<bool>,
}

/// The routes. There is one, for every path and method: [`content::route`] knows them, here as over HTTP/3.
pub(super) fn router(config: &TcpConfig, draining: watch::Receiver<bool>) -> Router {
    let alt_svc = format!("h3=\":{}\"; ma=86400", config.http3_port);
    // Digits and this punctuation are visible ASCII, which a field's value may hold.
    let alt_svc = HeaderValue::from_str(&alt_svc).unwrap_or(HeaderValue::from_static("clear"));
    Router::new().fallback(answer).with_state(Arc::new(Service { config: config.clone(), alt_svc, draining }))
}

async fn answer(State(service): State<Arc<Service>>, request: Request<Body>) -> Response<Body> {
    let (request, body) = request.into_parts();
    let head = request.method == Method::HEAD;
    let counters = &service.config.counters;
    let mut response = match service.respond(&request).await {
        Ok(response) => {
            counters.tcp_requests_answered.increment();
            response
        }
        Err(problem) => {
            discard(body).await;
            counters.tcp_requests_problem.increment();
            service.response(problem.response(head), None)
        }
    };
    response.headers_mut().insert(header::ALT_SVC, service.alt_svc.clone());
    response
}

impl Service {
    async fn respond(&self, request: &Parts) -> Result<Response<Body>, Problem> {
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        let line = [(&b":method"[..], request.method.as_str().as_bytes()), (&b":path"[..], path.as_bytes())];
        let fields = request.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let request = content::Request::from_fields(line.into_iter().chain(fields))?;
        match content::route(&request, false).map_err(|problem| say_http3(&request, problem))? {
            Action::Health { .. } if *self.draining.borrow() => Err(Problem::draining()),
            Action::Health { head } => Ok(self.response(content::Response::healthy(head, None), None)),
            Action::Read(read) => self.read(&read).await,
            // Not reached: this service does not write, so `route` refuses these.
            Action::Put { .. } | Action::Lease { .. } | Action::Delete { .. } => {
                Err(Problem::method_not_allowed(false))
            }
        }
    }

    async fn read(&self, read: &Read) -> Result<Response<Body>, Problem> {
        let found = self.config.content.find(&read.target).await.map_err(|error| unavailable(&error))?;
        let found = found.ok_or_else(Problem::not_found)?;
        if let Found::List(list) = &found
            && !list.is_plain()
        {
            return Err(Problem::not_plain());
        }
        let response = read.respond(found.len(), MEDIA_TYPE);
        if let content::Body::Range(range) = &response.body
            && !self.config.content.holds(&found, range)
        {
            return Err(Problem::not_found());
        }
        Ok(self.response(response, Some(found)))
    }

    /// Turns the answer of the content logic into one of HTTP over TCP.
    fn response(&self, response: content::Response, found: Option<Found>) -> Response<Body> {
        let body = match (response.body, found) {
            (content::Body::Range(range), Some(found)) => Body::new(ContentBody::new(
                Arc::clone(&self.config.content),
                Arc::clone(&self.config.counters),
                found,
                range,
            )),
            (content::Body::Bytes(bytes), _) => Body::from(bytes),
            (content::Body::None | content::Body::Range(_), _) => Body::empty(),
        };
        let mut answer = Response::new(body);
        // The content logic gives statuses from 200 to 599 and fields of visible ASCII.
        *answer.status_mut() =
            StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in response.headers.iter() {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                answer.headers_mut().append(HeaderName::from_static(name), value);
            }
        }
        answer
    }
}

/// Reads a short body that nothing here takes, so that its sender comes to read the answer: many clients see an error
/// instead when their upload is cut off. What is longer or slow is cut off all the same.
async fn discard(mut body: Body) {
    let read = async {
        let mut rest = TCP_DISCARD_LEN;
        while rest > 0 {
            match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                Some(Ok(frame)) => rest = rest.saturating_sub(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) | None => return,
            }
        }
    };
    let _ = tokio::time::timeout(TCP_DISCARD_TIMEOUT, read).await;
}

/// A client that wants to write is told where it can.
fn say_http3(request: &content::Request<'_>, mut problem: Problem) -> Problem {
    if problem.status == 405 && matches!(request.method, b"PUT" | b"DELETE") {
        problem.detail.push_str(" Over TCP this service is read-only; write over HTTP/3, see Alt-Svc.");
    }
    problem
}

fn unavailable(error: &Unavailable) -> Problem {
    match error {
        Unavailable::Busy => Problem::overloaded("storage requests", RETRY_AFTER_S),
        Unavailable::Failed(_) => Problem::internal(),
    }
}
