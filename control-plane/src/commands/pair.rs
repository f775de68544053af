//! `ioex pair [CODE]`.

use super::configuration;
use super::friend::text;
use crate::api::client::{ApiError, call};
use crate::cli::Pair;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use http::Method;
use peer::NodeUrl;
use peer::pairing::Code;
use serde_json::{Value, json};
use std::io::{IsTerminal, stdin};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Builder;
use zeroize::Zeroizing;

/// How often the node is asked whether the other device has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

pub fn run(arguments: Pair) -> Result<ExitCode, Failure> {
    let root = configuration(&arguments.place.sources())?.configuration.node.data;
    let directory = DataDirectory::existing(&root);
    let console = Console { json: arguments.json };
    match arguments.code {
        None if arguments.cancel => cancel(&directory, console),
        None if arguments.status => show_status(&directory, console),
        None if arguments.draw => draw(console),
        None => offer(&directory, console, arguments.valid),
        Some(code) => join(&directory, console, code, &arguments.at),
    }
}

fn cancel(directory: &DataDirectory, console: Console) -> Result<ExitCode, Failure> {
    let status = ask(directory, Method::DELETE, "/v1/pairing", None)?;
    if console.json {
        console.json(&status)?;
    } else {
        console.text(&format!("the code is {}\n", text(&status, "state")))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_status(directory: &DataDirectory, console: Console) -> Result<ExitCode, Failure> {
    let status = ask(directory, Method::GET, "/v1/pairing", None)?;
    if console.json {
        console.json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = format!("code          {}\n", text(&status, "state"));
    if let Some(default) = status["default_code"].as_object() {
        let state = default["state"].as_str().unwrap_or_default();
        let more = match (default["node"].as_str(), default["until_unix_s"].as_u64()) {
            (Some(node), _) => format!(" at {node}"),
            (None, Some(until)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                format!(" for {} minutes", until.saturating_sub(now).div_ceil(60))
            }
            (None, None) => String::new(),
        };
        let guesses = default["wrong_guesses"].as_u64().unwrap_or_default();
        out.push_str(&format!("default code  {state}{more}, {guesses} wrong guesses since the start\n"));
    }
    console.text(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// Draws a code for a device's sticker.
fn draw(console: Console) -> Result<ExitCode, Failure> {
    let code = Code::random_default().map_err(|error| {
        Failure::message(Exit::Failed, format!("the system gives no random numbers: {error}"))
    })?;
    if console.json {
        console.json(&json!({ "code": code.reveal().as_str(), "nameplate": code.nameplate() }))?;
    } else {
        console.text(&format!("{}\n", code.reveal().as_str()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a code and waits for the other device.
fn offer(directory: &DataDirectory, console: Console, valid: Option<u64>) -> Result<ExitCode, Failure> {
    let offered = ask(directory, Method::POST, "/v1/pairing", Some(&json!({ "valid_s": valid })))?;
    if console.json {
        console.json(&offered)?;
    } else {
        console.text(&show_offer(&offered))?;
    }
    let status = wait(directory, console)?;
    if console.json {
        console.json(&status)?;
    }
    let failure = match status["state"].as_str() {
        Some("paired") => None,
        Some("expired") => Some("the code has expired; take a new one with: ioex pair".to_owned()),
        Some("guessed") => Some(format!(
            "the code has ended: it was guessed at {} times. Somebody does not want you to pair, or wants to in your place; take a \
             new one with: ioex pair",
            status["wrong_guesses"]
        )),
        Some("displaced") => Some(
            "the code has ended: somebody else waits with the same nameplate; take a new one with: ioex pair"
                .into(),
        ),
        Some("withdrawn") => Some("the code was withdrawn".into()),
        _ => Some(format!("the code led to nothing: {}", text(&status, "reason"))),
    };
    match failure {
        Some(_) if console.json => Ok(Exit::Failed.into()),
        Some(why) => Err(Failure::message(Exit::Failed, why)),
        None => {
            if !console.json {
                console.text(&show_paired(&status))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Waits until the code has ended, and tells of wrong guesses. Whoever interrupts it takes the code back.
fn wait(directory: &DataDirectory, console: Console) -> Result<Value, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut guesses = 0;
        loop {
            let status = ask_beside(directory, Method::GET).await?;
            if let Some(more) = status["wrong_guesses"].as_u64().filter(|more| *more > guesses) {
                guesses = more;
                let max = &status["wrong_guesses_max"];
                console.note(&format!("somebody has typed a wrong code ({guesses} of {max})"));
            }
            if !matches!(status["state"].as_str(), Some("waiting" | "confirming")) {
                return Ok(status);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                _ = tokio::signal::ctrl_c() => {
                    ask_beside(directory, Method::DELETE).await?;
                    return Err(Failure::message(Exit::Interrupted, "interrupted; the code is withdrawn"));
                }
            }
        }
    })
}

/// Goes with a code to the device that shows it.
fn join(
    directory: &DataDirectory,
    console: Console,
    code: String,
    nodes: &[String],
) -> Result<ExitCode, Failure> {
    let code = if code == "-" { read_code()? } else { Zeroizing::new(code) };
    let body = json!({ "code": code.as_str(), "nodes": nodes });
    let friend = ask(directory, Method::POST, "/v1/pairing/join", Some(&body))?;
    if console.json {
        console.json(&friend)?;
    } else {
        console.text(&show_paired(&friend))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A code from the terminal, or the first line of standard input.
fn read_code() -> Result<Zeroizing<String>, Failure> {
    if stdin().is_terminal() {
        return Ok(Zeroizing::new(rpassword::prompt_password("Code of the other device: ")?));
    }
    let mut line = Zeroizing::new(String::new());
    stdin().read_line(&mut line)?;
    Ok(line)
}

fn ask(
    directory: &DataDirectory,
    method: Method,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, Failure> {
    call(directory, method, target, body).map_err(ApiError::into_failure)
}

/// The same of the code that waits, while something else is waited for.
async fn ask_beside(directory: &DataDirectory, method: Method) -> Result<Value, Failure> {
    let directory = directory.clone();
    tokio::task::spawn_blocking(move || ask(&directory, method, "/v1/pairing", None)).await?
}

fn show_offer(offered: &Value) -> String {
    let pairing = &offered["pairing"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let left_s = pairing["expires_unix_s"].as_u64().unwrap_or_default().saturating_sub(now);
    let left =
        if left_s >= 120 { format!("{} minutes", (left_s + 30) / 60) } else { format!("{left_s} seconds") };
    format!(
        "code         {}\n\nType it on the other device, within {left}:  ioex pair -\n\
         If that one finds nobody:  ioex pair - --at {}\n",
        text(offered, "code"),
        where_to(&text(pairing, "node")),
    )
}

/// The node as another device may name it.
fn where_to(node: &str) -> String {
    let is_this_machine =
        node.parse::<NodeUrl>().ok().and_then(|url| url.address()).is_some_and(|ip| ip.is_loopback());
    if is_this_machine { "URL, one of those that `ioex up` has printed here".into() } else { node.to_owned() }
}

fn show_paired(with: &Value) -> String {
    let mut out = format!("paired with {}", text(with, "uid"));
    if with["confirmed"] == false {
        out.push_str(", which has not said yet that it keeps this device, and will be asked");
    }
    out.push('\n');
    out
}
