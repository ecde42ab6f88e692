//! The first message of a connection.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};

use super::frame::{WireError, take_text};

/// What a client said about itself when it connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// `user`, `database`, `application_name`, ...
    pub parameters: BTreeMap<String, String>,
    /// The settings in `options`: `-c name=value` and `--name=value`.
    pub options: BTreeMap<String, String>,
}

pub(super) enum First {
    /// Asks for TLS or GSS encryption.
    Encryption,
    /// Asks to cancel a query of another connection.
    Cancel,
    /// Begins.
    Startup(Startup),
}

pub(super) fn decode(mut body: Bytes) -> Result<First, WireError> {
    let Some(&code) = body.first_chunk() else {
        return Err(WireError::Violation("startup message of a wrong length"));
    };
    body.advance(4);
    match u32::from_be_bytes(code) {
        80_877_103 | 80_877_104 => Ok(First::Encryption),
        80_877_102 => Ok(First::Cancel),
        version if version >> 16 == 3 => Ok(First::Startup(parameters(body)?)),
        _ => Err(WireError::Violation(
            "only version 3 of the protocol is spoken",
        )),
    }
}

fn parameters(mut body: Bytes) -> Result<Startup, WireError> {
    let mut startup = Startup::default();
    loop {
        let name = take_text(&mut body)?;
        if name.is_empty() {
            break;
        }
        let value = take_text(&mut body)?;
        startup.parameters.insert(name, value);
    }
    if let Some(options) = startup.parameters.get("options") {
        startup.options = settings(options)?;
    }
    Ok(startup)
}

fn settings(options: &str) -> Result<BTreeMap<String, String>, WireError> {
    let mut words = words(options).into_iter();
    let mut found = BTreeMap::new();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--")
                .or_else(|| word.strip_prefix("-c"))
                .map(str::to_owned)
        };
        let setting = setting.ok_or(WireError::Violation("options that are not -c name=value"))?;
        let (name, value) = setting
            .split_once('=')
            .ok_or(WireError::Violation("options that are not -c name=value"))?;
        found.insert(name.to_owned(), value.to_owned());
    }
    Ok(found)
}

/// Words between spaces; a backslash keeps the character after it.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The `options` text for `settings`.
pub(super) fn options_text(settings: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in settings {
        text.push_str(if text.is_empty() { "-c " } else { " -c " });
        for c in name.chars().chain(['=']).chain(value.chars()) {
            if c == '\\' || c.is_ascii_whitespace() {
                text.push('\\');
            }
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_as_they_were_given() {
        let given = [("tenant_id", "0a"), ("path", r"a b\c"), ("empty", "")];
        let found = settings(&options_text(&given)).unwrap();
        assert_eq!(found.len(), 3);
        for (name, value) in given {
            assert_eq!(found.get(name).map(String::as_str), Some(value));
        }
        assert_eq!(settings("-ca=1 --b=2").unwrap().len(), 2);
        assert!(settings("-c").is_err() && settings("-x a").is_err() && settings("-c a").is_err());
    }

    #[test]
    fn hostile_first_messages_are_refused() {
        for body in [
            &b""[..],
            b"\0\x03",
            b"\0\x03\0\0user",
            b"\0\x02\0\0\0",
            b"\0\x03\0\0u\0",
        ] {
            assert!(decode(Bytes::copy_from_slice(body)).is_err(), "{body:?}");
        }
    }
}
