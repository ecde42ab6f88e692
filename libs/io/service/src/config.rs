//! Configuration: a TOML file, one per process, and what the command line sets in its place.
//! Unknown names are refused by the types.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Where a process's configuration comes from, as arguments of its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Source {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A setting in place of the file's, as in `--set bucket.url=s3://wal --set flush_bytes=1000`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what is expected.
    #[error("the configuration {path} is not valid: {source}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The file and what is set do not go together.
    #[error("the configuration {path} with what --set puts in it is not valid: {source}")]
    InvalidWithSettings {
        /// The file.
        path: PathBuf,
        /// Why; it may be the file or an argument.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An argument sets nothing.
    #[error("--set {argument}: expected NAME=VALUE, a name of the configuration")]
    NotASetting {
        /// The argument.
        argument: String,
    },
    /// An argument sets something inside what is no table.
    #[error("--set {argument}: {outer} is a value, nothing can be set inside it")]
    NotATable {
        /// The argument.
        argument: String,
        /// The name that has a value of its own.
        outer: String,
    },
}

impl Source {
    /// Reads the file, and puts in what the command line sets.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let text = std::fs::read_to_string(&self.config).map_err(|source| {
            let path = self.config.clone();
            ConfigError::Unreadable { path, source }
        })?;
        let invalid = |source| ConfigError::Invalid {
            path: self.config.clone(),
            source: Box::new(source),
        };
        if self.set.is_empty() {
            // From the text itself, because then an error shows the line.
            return toml::from_str(&text).map_err(invalid);
        }
        let mut table: Table = toml::from_str(&text).map_err(invalid)?;
        for argument in &self.set {
            set(&mut table, argument)?;
        }
        T::deserialize(table).map_err(|source| ConfigError::InvalidWithSettings {
            path: self.config.clone(),
            source: Box::new(source),
        })
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// See [`ConfigError`].
pub fn load<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T, ConfigError> {
    let source = Source {
        config: path.as_ref().to_owned(),
        set: Vec::new(),
    };
    source.load()
}

fn set(table: &mut Table, argument: &str) -> Result<(), ConfigError> {
    let not_a_setting = || ConfigError::NotASetting {
        argument: argument.to_owned(),
    };
    let (name, value) = argument.split_once('=').ok_or_else(not_a_setting)?;
    let mut outer: Vec<&str> = name.split('.').collect();
    if outer.iter().any(|part| part.is_empty()) {
        return Err(not_a_setting());
    }
    let last = outer.pop().ok_or_else(not_a_setting)?;
    let mut inner = table;
    for part in outer {
        let entry = inner.entry(part).or_insert_with(|| Table::new().into());
        let Value::Table(next) = entry else {
            return Err(ConfigError::NotATable {
                argument: argument.to_owned(),
                outer: part.to_owned(),
            });
        };
        inner = next;
    }
    inner.insert(last.to_owned(), value_of(value));
    Ok(())
}

/// What a shell passes: a value of TOML, or else a string that needs no quotes.
fn value_of(text: &str) -> Value {
    let parsed: Result<Table, _> = toml::from_str(&format!("value = {text}"));
    let only = |mut table: Table| (table.len() == 1).then(|| table.remove("value")).flatten();
    parsed
        .ok()
        .and_then(only)
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        name: String,
        size: Option<u64>,
        #[serde(default)]
        inner: Inner,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        url: Option<String>,
        on: Option<bool>,
    }

    fn load_with(set: &[&str]) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "name = 'file'\nsize = 1\n").unwrap();
        let source = Source {
            config: file.path().to_owned(),
            set: set.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        source.load().map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let config = load_with(&["size=7", "name=a b", "inner.url=s3://x", "inner.on=true"]);
        let inner = Inner {
            url: Some("s3://x".into()),
            on: Some(true),
        };
        let expected = Config {
            name: "a b".into(),
            size: Some(7),
            inner,
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn a_number_in_quotes_is_a_string() {
        assert_eq!(load_with(&["name='7'"]).unwrap().name, "7");
        assert!(load_with(&["name=7"]).unwrap_err().contains("string"));
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for argument in ["size", "=1", "inner.=1", ".size=1"] {
            let error = load_with(&[argument]).unwrap_err();
            assert!(error.contains("NAME=VALUE"), "{argument}: {error}");
        }
        let unknown = load_with(&["sise=1"]).unwrap_err();
        assert!(
            unknown.contains("sise") && unknown.contains("--set"),
            "{unknown}"
        );
        assert!(
            load_with(&["name.x=1"])
                .unwrap_err()
                .contains("name is a value")
        );
    }

    #[test]
    fn a_value_does_not_smuggle_in_other_settings() {
        let config = load_with(&["name=1\nsize = 9"]).unwrap();
        assert_eq!(
            (config.name.as_str(), config.size),
            ("1\nsize = 9", Some(1))
        );
    }
}
