//! Shows the configuration in force: as TOML that can be used again, with the origin of every value, or as
//! JSON.

use super::keys::{keys_of, sections};
use super::load::{Loaded, Origin};
use serde_json::{Map, json};
use std::fmt::Write;

impl Loaded {
    /// TOML; a comment behind each value says where it came from. With `explain` each key's meaning, what is
    /// allowed and its environment variable stand above it.
    pub fn to_toml(&self, explain: bool) -> String {
        let mut out = String::new();
        for (i, section) in sections().enumerate() {
            let separator = if i > 0 { "\n" } else { "" };
            let _ = writeln!(out, "{separator}[{section}]");
            let lines: Vec<_> = keys_of(section)
                .map(|key| (key, format!("{} = {}", key.name, (key.show)(&self.configuration))))
                .collect();
            // One long list of addresses must not push every comment off the screen.
            let width =
                lines.iter().map(|(_, line)| line.chars().count()).filter(|w| *w <= 48).max().unwrap_or(0);
            for (key, line) in lines {
                if explain {
                    let _ = writeln!(
                        out,
                        "# {}\n# Allowed: {}. Variable: {}",
                        key.meaning,
                        key.allowed(),
                        key.variable()
                    );
                }
                let _ = writeln!(out, "{line:width$}  # {}", self.origin(key));
            }
        }
        out
    }

    /// One object: `{"section.key": {"value": .., "from": "default" | "role" | "file" | "environment" | "flag",
    /// "where": ..}}`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut all = Map::new();
        for key in sections().flat_map(keys_of) {
            let origin = self.origin(key);
            let from = match origin {
                Origin::Default => "default",
                Origin::Role(_) => "role",
                Origin::File { .. } => "file",
                Origin::Variable(_) => "environment",
                Origin::Flag(_) => "flag",
            };
            let mut entry = json!({ "value": (key.show)(&self.configuration), "from": from });
            if origin != Origin::Default {
                entry["where"] = json!(origin.to_string());
            }
            all.insert(key.path(), entry);
        }
        serde_json::Value::Object(all)
    }
}
