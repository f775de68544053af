//! Lays the configuration's layers over each other and remembers where each value came from.

use super::keys::{Configuration, Key, keys, keys_of, sections};
use super::problem::{ConfigurationError, Place, Problem};
use super::role::Role;
use super::value::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file that is read when none is named, if it exists.
const SYSTEM_FILE: &str = "/etc/ioex/ioex.toml";

/// Variables that start with `IOEX_` and are no settings: the file's path, the engine's path, the log filter, the file
/// with the passphrase of the key.
const OTHER_VARIABLES: [&str; 4] =
    ["IOEX_CONFIG", "IOEX_ENGINE", "IOEX_LOG", crate::passphrase::FILE_VARIABLE];

/// A configuration and the origin of its values.
#[derive(Debug)]
pub struct Loaded {
    /// The values in force.
    pub configuration: Configuration,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// By path (`section.name`); a setting that is missing here has its default.
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where the value of `key` came from.
    pub fn origin(&self, key: &Key) -> Origin {
        self.origins.get(&key.path()).cloned().unwrap_or(Origin::Default)
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// Built in for nodes of this role.
    Role(Role),
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Role(role) => write!(f, "role {role}"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// Values that flags gave: the flag, the setting's path, the text.
#[derive(Clone, Debug, Default)]
pub struct Flags(pub Vec<(&'static str, &'static str, String)>);

/// Where the layers come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that `--config` named.
    pub file: Option<PathBuf>,
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
    /// The flags.
    pub flags: Flags,
}

impl Sources {
    /// The process's own environment, with what the command line gave.
    pub fn of_process(file: Option<PathBuf>, flags: Flags) -> Sources {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("IOEX_"))
            .collect();
        Sources { file, environment, flags }
    }

    /// The file to read: what `--config` names, else `IOEX_CONFIG`, else `/etc/ioex/ioex.toml` if it is
    /// there.
    fn file(&self) -> Option<PathBuf> {
        let from_environment =
            || self.environment.iter().find(|(name, _)| name == "IOEX_CONFIG").map(|(_, v)| PathBuf::from(v));
        let of_system = || Some(PathBuf::from(SYSTEM_FILE)).filter(|path| path.exists());
        self.file.clone().or_else(from_environment).or_else(of_system)
    }
}

/// Reads all layers. Every problem of every layer is found before it fails.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigurationError> {
    let file = sources.file();
    let content = file.as_ref().map(|path| (path, std::fs::read_to_string(path)));
    in_role(|layers| layers.read(sources, content.as_ref())).finish(file)
}

/// Reads the text of one file over the defaults, and nothing else: no environment, no flags, no file system.
/// `path` is what messages call it.
pub fn parse(path: &Path, content: &str) -> Result<Loaded, ConfigurationError> {
    in_role(|layers| layers.file(path, content)).finish(Some(path.to_path_buf()))
}

/// Layers over the built-in defaults, and, if they name a role, once more over that role's.
fn in_role(read: impl Fn(&mut Layers)) -> Layers {
    let mut layers = Layers::default();
    read(&mut layers);
    let Some(role) = layers.configuration.node.role else { return layers };
    let mut layers = Layers::of_role(role);
    read(&mut layers);
    layers
}

#[derive(Default)]
struct Layers {
    configuration: Configuration,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Layers {
    /// Over the defaults of a role.
    fn of_role(role: Role) -> Layers {
        let (configuration, plain) = (role.defaults(), Configuration::default());
        let differs = |key: &&Key| (key.show)(&configuration) != (key.show)(&plain);
        let origins = keys().filter(differs).map(|key| (key.path(), Origin::Role(role))).collect();
        Layers { configuration, origins, problems: Vec::new() }
    }

    fn read(&mut self, sources: &Sources, content: Option<&(&PathBuf, std::io::Result<String>)>) {
        match content {
            Some((path, Ok(content))) => self.file(path, content),
            Some((path, Err(error))) => self.problems.push(Problem {
                place: Place::WholeFile(path.to_path_buf()),
                what: format!("cannot be read: {error}"),
                remedy: vec!["name another file with --config, or create this one".into()],
            }),
            None => {}
        }
        for (name, text) in &sources.environment {
            self.variable(name, text);
        }
        for (flag, path, text) in &sources.flags.0 {
            self.flag(flag, path, text);
        }
    }

    fn file(&mut self, path: &Path, content: &str) {
        let place = |span: Range<usize>| Place::in_file(path, content, span);
        let document = match DeTable::parse(content) {
            Ok(document) => document,
            Err(error) => {
                self.problems.push(Problem {
                    place: place(error.span().unwrap_or(0..0)),
                    what: format!("not valid TOML: {}", error.message().trim().replace('\n', ", ")),
                    remedy: Vec::new(),
                });
                return;
            }
        };
        for (name, value) in in_file_order(document.get_ref()) {
            let section = name.get_ref().as_ref();
            let Some(known) = sections().find(|known| *known == section) else {
                self.problems.push(unknown_section(section, value.get_ref(), place(name.span())));
                continue;
            };
            let Some(table) = value.get_ref().as_table() else {
                self.problems.push(Problem {
                    place: place(name.span()),
                    what: format!("`{section}` is a section"),
                    remedy: vec![format!("write [{section}] on a line of its own and its keys below")],
                });
                continue;
            };
            for (name, value) in in_file_order(table) {
                self.entry(known, name.get_ref(), name.span(), value, &place);
            }
        }
    }

    fn entry(
        &mut self,
        section: &'static str,
        name: &str,
        name_span: Range<usize>,
        value: &Spanned<DeValue<'_>>,
        place: &dyn Fn(Range<usize>) -> Place,
    ) {
        let Some(key) = keys_of(section).find(|key| key.name == name) else {
            self.problems.push(unknown_key(section, name, place(name_span)));
            return;
        };
        match (key.set)(&mut self.configuration, &untyped_tree(value.get_ref())) {
            Ok(()) => {
                if let Place::File { path, line, .. } = place(name_span) {
                    self.origins.insert(key.path(), Origin::File { path, line });
                }
            }
            Err(unfit) => {
                let element =
                    unfit.element.and_then(|i| value.get_ref().as_array()?.get(i).map(Spanned::span));
                self.problems.push(bad_value(
                    key,
                    &unfit.reason,
                    place(element.unwrap_or_else(|| value.span())),
                ));
            }
        }
    }

    fn variable(&mut self, name: &str, text: &str) {
        if OTHER_VARIABLES.contains(&name) {
            return;
        }
        let place = Place::Variable(name.into());
        let Some(key) = keys().find(|key| key.variable() == name) else {
            let names: Vec<String> =
                keys().map(Key::variable).chain(OTHER_VARIABLES.map(Into::into)).collect();
            let in_a_section = sections().any(|s| name.starts_with(&format!("IOEX_{}_", s.to_uppercase())));
            // A variable of some other program may well start with IOEX_; only what looks like a setting is a
            // mistake.
            if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
                self.problems.push(Problem {
                    place,
                    what: "no setting has this name".into(),
                    remedy: vec![format!("did you mean {near}?")],
                });
            } else if in_a_section {
                self.problems.push(Problem {
                    place,
                    what: "no setting has this name".into(),
                    remedy: vec![
                        "`ioex config print` lists every setting; its variable is IOEX_SECTION_KEY".into(),
                    ],
                });
            }
            return;
        };
        match (key.set)(&mut self.configuration, &Value::Untyped(text.into())) {
            Ok(()) => drop(self.origins.insert(key.path(), Origin::Variable(name.into()))),
            Err(unfit) => self.problems.push(bad_value(key, &unfit.reason, place)),
        }
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, ConfigurationError> {
        if self.problems.is_empty()
            && let Err(error) = self
                .configuration
                .limits
                .check()
                .and_then(|()| self.configuration.relay.policy(Vec::new(), Vec::new(), false).check())
        {
            self.problems.push(Problem {
                place: Place::Together,
                what: error.to_string(),
                remedy: vec!["change one of the limits named; `ioex config print` shows all of them".into()],
            });
        }
        if self.problems.is_empty()
            && let Err(missing) = self.configuration.chain.check()
        {
            let remedy =
                vec!["set both, or neither; `ioex config print --explain` says what they mean".into()];
            self.problems.push(Problem { place: Place::Together, what: missing, remedy });
        }
        if self.problems.is_empty() {
            Ok(Loaded { configuration: self.configuration, file, origins: self.origins })
        } else {
            Err(ConfigurationError { problems: self.problems })
        }
    }

    fn flag(&mut self, flag: &'static str, path: &str, text: &str) {
        let key = keys().find(|key| key.path() == path).expect("flags name settings of the table");
        match (key.set)(&mut self.configuration, &Value::Untyped(text.into())) {
            Ok(()) => drop(self.origins.insert(key.path(), Origin::Flag(flag))),
            Err(unfit) => self.problems.push(bad_value(key, &unfit.reason, Place::Flag(flag))),
        }
    }
}

fn bad_value(key: &Key, reason: &str, place: Place) -> Problem {
    Problem {
        place,
        what: format!("bad value of `{}`: {reason}", key.path()),
        remedy: vec![format!("allowed is {}", key.allowed())],
    }
}

fn unknown_key(section: &str, name: &str, place: Place) -> Problem {
    let mut remedy = Vec::new();
    if let Some(near) = nearest(name, keys_of(section).map(|key| key.name)) {
        remedy.push(format!("did you mean `{near}`?"));
    } else if let Some(key) = keys().find(|key| key.name == name) {
        remedy.push(format!("`{name}` belongs into [{}]", key.section));
    }
    let allowed: Vec<_> = keys_of(section).map(|key| key.name).collect();
    remedy.push(format!("allowed in [{section}]: {}", allowed.join(", ")));
    Problem { place, what: format!("unknown key `{name}` in [{section}]"), remedy }
}

fn unknown_section(name: &str, value: &DeValue<'_>, place: Place) -> Problem {
    let mut remedy = Vec::new();
    let what = if value.is_table() {
        if let Some(near) = nearest(name, sections()) {
            remedy.push(format!("did you mean [{near}]?"));
        }
        format!("unknown section [{name}]")
    } else {
        if let Some(key) = keys().find(|key| key.name == name) {
            remedy.push(format!("`{name}` belongs into [{}]", key.section));
        }
        format!("key `{name}` stands outside any section")
    };
    let allowed: Vec<_> = sections().map(|section| format!("[{section}]")).collect();
    remedy.push(format!("sections are {}", allowed.join(", ")));
    Problem { place, what, remedy }
}

/// The candidate that a typing mistake may have turned into `name`: at most a third of its letters changed.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, _)| distance * 3 <= name.chars().count())
        .map(|(_, candidate)| candidate)
}

/// toml's tables are sorted by name; people read problems from the top.
fn in_file_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn untyped_tree(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            .map_or(Value::Other("a number beyond 64 bits"), Value::Integer),
        DeValue::Array(values) => Value::List(values.iter().map(|v| untyped_tree(v.get_ref())).collect()),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("a table"),
    }
}
