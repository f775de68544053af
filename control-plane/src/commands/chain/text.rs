//! Verified facts as rows of name and value.

use serde_json::Value;
use std::fmt::Write;

/// One row a field; what stands within another is named after it.
pub fn rows(value: &Value) -> String {
    let mut rows = Vec::new();
    collect("", value, &mut rows);
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut out, (name, text)| {
        let _ = writeln!(out, "{}", format!("{name:width$}  {text}").trim_end());
        out
    })
}

fn collect(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let within = |inner: &str| if name.is_empty() { inner.to_string() } else { format!("{name} {inner}") };
    match value {
        Value::Object(fields) => {
            for (inner, value) in fields {
                collect(&within(&words(inner)), value, rows);
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                collect(&within(&place.to_string()), item, rows);
            }
        }
        Value::Null => rows.push((name.to_string(), "-".into())),
        Value::Bool(yes) => rows.push((name.to_string(), if *yes { "yes" } else { "no" }.into())),
        Value::String(text) => rows.push((name.to_string(), text.clone())),
        Value::Number(number) => rows.push((name.to_string(), number.to_string())),
    }
}

/// A field's name as people read it: seconds since 1970 are a time.
fn words(name: &str) -> String {
    name.replace("_unix_s", "").replace('_', " ")
}
