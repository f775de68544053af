//! What is wrong with a configuration: the place, the fact, what is allowed.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Everything that is wrong with a configuration, all found in one pass.
#[derive(Debug, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigurationError {
    /// The problems, in the order of the layers and of the file's lines; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// What would be right: what is allowed, which name is near.
    pub remedy: Vec<String>,
}

/// Where a value stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// In a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The text of the line.
        text: String,
        /// How many characters are at fault.
        width: usize,
    },
    /// A file as a whole, such as one that cannot be read.
    WholeFile(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// The settings together, each being fine by itself.
    Together,
}

impl Place {
    /// The place of `span`, a range of byte offsets into `content`.
    pub fn in_file(path: &Path, content: &str, span: Range<usize>) -> Place {
        let start = floor_char_boundary(content, span.start);
        let line_start = content[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = content[start..].find('\n').map_or(content.len(), |i| start + i);
        let end = floor_char_boundary(content, span.end).clamp(start, line_end);
        Place::File {
            path: path.to_path_buf(),
            line: content[..start].matches('\n').count() + 1,
            column: content[line_start..start].chars().count() + 1,
            text: content[line_start..line_end].trim_end_matches('\r').to_string(),
            width: content[start..end].chars().count().max(1),
        }
    }
}

/// A parser's span may point past the end or, in malformed text, into a character.
fn floor_char_boundary(content: &str, at: usize) -> usize {
    let at = at.min(content.len());
    (0..=at).rev().find(|&i| content.is_char_boundary(i)).unwrap_or(0)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indent = match &self.place {
            Place::File { path, line, column, text, width } => {
                let number = line.to_string();
                let indent = " ".repeat(number.len());
                writeln!(f, "{}:{line}:{column}: {}", path.display(), self.what)?;
                writeln!(f, "{indent} |")?;
                writeln!(f, "{number} | {}", text.replace('\t', " "))?;
                write!(f, "{indent} | {}{}", " ".repeat(column - 1), "^".repeat(*width))?;
                indent
            }
            Place::WholeFile(path) => {
                write!(f, "{}: {}", path.display(), self.what)?;
                String::new()
            }
            Place::Variable(name) => {
                write!(f, "environment variable {name}: {}", self.what)?;
                String::new()
            }
            Place::Flag(name) => {
                write!(f, "{name}: {}", self.what)?;
                String::new()
            }
            Place::Together => {
                write!(f, "configuration: {}", self.what)?;
                String::new()
            }
        };
        for remedy in &self.remedy {
            write!(f, "\n{indent} = {remedy}")?;
        }
        Ok(())
    }
}
