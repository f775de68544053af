//! JSON-RPC: what is no answer is an error that says whose and to what; endpoints are used in the order of what
//! they have done.

use super::rpc_server::{Answer, RpcServer};
use control_plane::chain::rpc::{Endpoints, Fault, Lie, MainChainRpc, RpcClient, RpcError};
use control_plane::configuration::chain::EndpointUrl;
use http::StatusCode;
use serde_json::{Value, json};
use std::net::TcpListener;

fn answering(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> EndpointUrl {
    RpcServer::start(answer).url()
}

async fn call(url: &EndpointUrl, bytes_max: usize) -> Result<Value, RpcError> {
    RpcClient::new().unwrap().call(url, "eth_test", json!([1]), bytes_max).await
}

#[tokio::test]
async fn a_result_is_given_back_and_null_is_one() {
    let url = answering(|method, params| Answer::Result(json!([method, params])));
    assert_eq!(call(&url, 1_000).await.unwrap(), json!(["eth_test", [1]]));
    let url = answering(|_, _| Answer::Result(Value::Null));
    assert_eq!(call(&url, 1_000).await.unwrap(), Value::Null);
}

#[tokio::test]
async fn what_is_no_answer_says_whose_and_to_what() {
    let raw = |status: StatusCode, text: &'static str| {
        answering(move |_, _| Answer::Raw(status, text.as_bytes().to_vec()))
    };
    let deep = "[".repeat(100_000);
    let deep: &'static str = Box::leak(deep.into_boxed_str());
    for (url, expected) in [
        (raw(StatusCode::OK, "<html>"), "the answer is no JSON: expected value"),
        (raw(StatusCode::OK, "[]"), "the answer is no JSON object"),
        (raw(StatusCode::BAD_GATEWAY, "<html>"), "HTTP status 502 Bad Gateway"),
        (raw(StatusCode::OK, r#"{"result":1}"#), "the answer is not to request"),
        (raw(StatusCode::OK, r#"{"id":999999,"result":1}"#), "the answer is not to request"),
        (raw(StatusCode::OK, r#"{"id":1}"#), "the answer has neither a result nor an error"),
        (raw(StatusCode::OK, deep), "the answer is no JSON: recursion limit exceeded"),
        // As the nodes of the public chain refuse: with a status, and the id in another place.
        (
            raw(
                StatusCode::NOT_FOUND,
                r#"{"error":{"code":-32601,"id":null,"message":"method x not found"},"result":null}"#,
            ),
            "it answers: method x not found (-32601)",
        ),
        (answering(|_, _| Answer::Error(-32000, "\u{1b}[2Jgone")), "it answers: \\u{1b}[2Jgone (-32000)"),
        (answering(|_, _| Answer::Result(json!("x".repeat(5_000)))), "the answer is longer than 4000 bytes"),
    ] {
        let error = call(&url, 200_000.min(if expected.contains("4000") { 4_000 } else { 200_000 }))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("{url}: eth_test: ")), "{text}");
        assert!(text.contains(expected), "{text} has no {expected}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url: EndpointUrl = format!("http://{closed}").parse().unwrap();
    let error = call(&url, 1_000).await.unwrap_err();
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn liars_are_named_counted_and_asked_last() {
    let urls: Vec<_> = (0..3).map(|place| answering(move |_, _| Answer::Result(json!(place)))).collect();
    let endpoints = Endpoints::new(&urls).unwrap();
    // The first two lie; the third's answer is taken.
    let answer = endpoints
        .first("a number", |endpoint| {
            let endpoints = endpoints.clone();
            async move {
                match endpoints.ask(&endpoint, "x", json!([]), 100).await?.as_u64() {
                    Some(2) => Ok(2),
                    other => Err(Fault::lie(Lie::WrongValue, format_args!("said {other:?}, it is 2"))),
                }
            }
        })
        .await
        .unwrap();
    assert_eq!(answer, 2);
    assert_eq!(endpoints.in_order()[0].url, urls[2]);
    let all = endpoints.to_json();
    assert_eq!((&all[0]["lies"], &all[1]["lies"], &all[2]["lies"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(all[0]["last_lie"]["kind"], "wrong value");
    assert_eq!(all[1]["last_lie"]["detail"], "said Some(1), it is 2");
    // With nobody honest, everybody's word is in the message.
    let error = endpoints
        .first("a number", |_| async { Err::<(), _>(Fault::lie(Lie::ForgedProof, "no")) })
        .await
        .unwrap_err();
    assert!(error.is_lie());
    for url in &urls {
        assert!(error.to_string().contains(url.as_str()), "{error}");
    }
}

#[tokio::test]
async fn who_does_not_answer_rests_while_others_do() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead: EndpointUrl = format!("http://{closed}").parse().unwrap();
    let alive = answering(|_, _| Answer::Result(json!(1)));
    let endpoints = Endpoints::new(&[dead.clone(), alive.clone()]).unwrap();
    let ask = || {
        endpoints.first("one", |endpoint| {
            let endpoints = endpoints.clone();
            async move { Ok(endpoints.ask(&endpoint, "x", json!([]), 100).await?) }
        })
    };
    assert_eq!(ask().await.unwrap(), 1);
    assert_eq!(ask().await.unwrap(), 1);
    let all = endpoints.to_json();
    assert_eq!((&all[0]["failures"], &all[1]["answers"]), (&json!(1), &json!(2)));
    assert!(all[0]["last_failure"].as_str().unwrap().contains("refused"), "{all}");
    assert_eq!(endpoints.in_order().len(), 1);
}

#[tokio::test]
async fn a_block_that_is_another_than_asked_for_is_a_lie() {
    let url = answering(|_, _| Answer::Result(json!("00".repeat(200))));
    let endpoints = Endpoints::new(&[url]).unwrap();
    let endpoint = &endpoints.all()[0];
    let rpc = MainChainRpc::new(&endpoints, endpoint);
    let fault = rpc.block(&chain_lite::Hash([1; 32])).await.unwrap_err();
    assert!(matches!(fault, Fault::Lie { kind: Lie::ForgedHeader, .. }), "{fault}");
}
