//! The OpenAPI document. It is made from what stands above each request's function, so it has exactly the router's paths.

use super::{Api, Problem};
use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::{Value, json};
use std::sync::LazyLock;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What stands around the paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ioex node",
        description = "A running node: its state, friends and messages, the DHT and the relay. UIDs are base58, hashes hexadecimal; \
                       names of numbers end with their unit."
    ),
    components(schemas(Problem))
)]
struct Frame;

/// The document, as it is served.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let document = super::routes().into_openapi();
    // Texts, numbers and lists always become JSON.
    complete(serde_json::to_value(document).unwrap_or_default()).to_string()
});

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(openapi))
}

pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "document",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object)))]
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

/// Adds what is the same for every request: a problem in place of what was asked for.
fn complete(mut document: Value) -> Value {
    for path in document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        for (_, operation) in
            path.as_object_mut().into_iter().flatten().filter(|(name, _)| *name != "parameters")
        {
            operation["responses"]["default"] = json!({ "$ref": "#/components/responses/Problem" });
        }
    }
    document["components"]["responses"]["Problem"] = json!({
        "description": "What was wrong, and what to do (RFC 9457)",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    document["components"]["securitySchemes"]["token"] = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "Over TCP: what stands in api/token of the node's data directory. On the Unix socket nothing is asked for.",
    });
    document["security"] = json!([{}, { "token": [] }]);
    document
}
