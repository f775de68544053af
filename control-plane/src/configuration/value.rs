//! A setting's value as the file, the environment or a flag gave it, and the readers that turn it into a
//! type.

use std::fmt;

/// A value before it has been given a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML string.
    Text(String),
    /// A TOML array.
    List(Vec<Value>),
    /// A TOML value of a type that no setting has: its type's name.
    Other(&'static str),
    /// Text of an environment variable or a flag, whose type only the setting knows. Lists are separated by
    /// commas.
    Untyped(String),
}

/// Why a value cannot be a setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The position in the list of the element at fault, where the value is a list.
    pub element: Option<usize>,
    /// What is wrong with it, as the end of a sentence that starts with the value.
    pub reason: String,
}

impl Unfit {
    fn new(reason: impl Into<String>) -> Unfit {
        Unfit { element: None, reason: reason.into() }
    }
}

impl Value {
    /// A whole number from `min` to `max`, both allowed.
    pub fn integer(&self, min: u64, max: u64) -> Result<u64, Unfit> {
        let out_of_range = |n: &dyn fmt::Display| Unfit::new(format!("{n} is not within {min} to {max}"));
        let number = match self {
            Value::Integer(n) => u64::try_from(*n).map_err(|_| out_of_range(n))?,
            Value::Untyped(text) => text
                .trim()
                .replace('_', "")
                .parse::<u64>()
                .map_err(|_| Unfit::new(format!("`{text}` is not a whole number")))?,
            other => return Err(other.is_not("a whole number")),
        };
        if (min..=max).contains(&number) { Ok(number) } else { Err(out_of_range(&number)) }
    }

    /// A number of bytes from `min` to `max`: a whole number, or text with a unit such as `"16 MiB"`.
    pub fn bytes(&self, min: u64, max: u64) -> Result<u64, Unfit> {
        let number = match self {
            Value::Text(text) | Value::Untyped(text) => {
                crate::quantity::parse_bytes(text).map_err(|reason| Unfit::new(reason.to_string()))?
            }
            other => return other.integer(min, max),
        };
        if (min..=max).contains(&number) {
            Ok(number)
        } else {
            Err(Unfit::new(format!("{number} is not within {min} to {max}")))
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Result<bool, Unfit> {
        match self {
            Value::Boolean(b) => Ok(*b),
            Value::Untyped(text) => match text.trim() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(Unfit::new(format!("`{text}` is neither true nor false"))),
            },
            other => Err(other.is_not("true or false")),
        }
    }

    /// Text, parsed by `parse`.
    pub fn text<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Unfit> {
        match self {
            Value::Text(text) | Value::Untyped(text) => parse(text).map_err(Unfit::new),
            other => Err(other.is_not("text in quotes")),
        }
    }

    /// A list of texts, each parsed by `parse`.
    pub fn list<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Unfit> {
        match self {
            Value::List(values) => values
                .iter()
                .enumerate()
                .map(|(i, value)| value.text(&parse).map_err(|unfit| Unfit { element: Some(i), ..unfit }))
                .collect(),
            Value::Untyped(text) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| parse(part).map_err(Unfit::new))
                .collect(),
            other => Err(other.is_not("a list in square brackets")),
        }
    }

    fn is_not(&self, wanted: &str) -> Unfit {
        Unfit::new(format!("{} is not {wanted}", self.kind()))
    }

    fn kind(&self) -> &'static str {
        match self {
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::Text(_) | Value::Untyped(_) => "text",
            Value::List(_) => "a list",
            Value::Other(kind) => kind,
        }
    }
}

/// Writes the value as TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(n) => write!(f, "{n}"),
            Value::Boolean(b) => write!(f, "{b}"),
            Value::Text(text) | Value::Untyped(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Value::List(values) => {
                f.write_str("[")?;
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{value}")?;
                }
                f.write_str("]")
            }
            Value::Other(kind) => f.write_str(kind),
        }
    }
}

impl serde::Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Integer(n) => serializer.serialize_i64(*n),
            Value::Boolean(b) => serializer.serialize_bool(*b),
            Value::Text(text) | Value::Untyped(text) => serializer.serialize_str(text),
            Value::List(values) => serializer.collect_seq(values),
            Value::Other(kind) => serializer.serialize_str(kind),
        }
    }
}
