//! The first packets of a connection, and the refusal that may follow.

use api::Grade;

use crate::failure::Failure;

/// The longest packet that PostgreSQL takes here.
const LONGEST: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// A packet that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirstError {
    /// The length is out of bounds.
    #[error("a first packet of {0} bytes")]
    Length(u32),
    /// Another protocol.
    #[error("only version 3 of the protocol is spoken, not {0:#x}")]
    Version(u32),
    /// The parameters are not pairs of strings.
    #[error("the startup message is cut off")]
    CutOff,
    /// It asks again and again.
    #[error("asks for encryption again and again")]
    Encryption,
}

/// What a first packet asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// TLS or GSS encryption, which is not spoken here.
    Encryption,
    /// To cancel a query of another connection.
    Cancel,
    /// To begin.
    Startup {
        /// Why this one is never let through (F2).
        refused: Option<Refusal>,
    },
}

/// The length of the packet that begins with `head`, itself included.
///
/// # Errors
/// [`FirstError::Length`].
pub fn packet_length(head: &[u8]) -> Result<usize, FirstError> {
    let length = head
        .first_chunk()
        .map_or(0, |&bytes| u32::from_be_bytes(bytes));
    match usize::try_from(length) {
        Ok(bytes) if (8..=LONGEST).contains(&bytes) => Ok(bytes),
        _ => Err(FirstError::Length(length)),
    }
}

/// Reads a whole packet.
///
/// # Errors
/// [`FirstError`].
pub fn decode(packet: &[u8]) -> Result<First, FirstError> {
    let code = packet.get(4..).and_then(|rest| rest.first_chunk());
    let code = code.map_or(0, |&bytes| u32::from_be_bytes(bytes));
    match code {
        TLS | GSS => Ok(First::Encryption),
        CANCEL => Ok(First::Cancel),
        _ if code >> 16 == 3 => Ok(First::Startup {
            refused: forbidden(packet.get(8..).unwrap_or_default())?,
        }),
        _ => Err(FirstError::Version(code)),
    }
}

/// Why a startup message with these parameters is refused. Every occurrence of a name is looked
/// at: PostgreSQL takes the last one.
fn forbidden(mut parameters: &[u8]) -> Result<Option<Refusal>, FirstError> {
    let mut refused = None;
    loop {
        let name = take_text(&mut parameters)?;
        if name.is_empty() {
            return Ok(refused);
        }
        let value = take_text(&mut parameters)?;
        match name {
            // PostgreSQL cuts names at 63 bytes, which makes no other name this one.
            b"user" if value == crate::postgres::settings::AGENT_ROLE.as_bytes() => {
                refused = Some(Refusal::agent());
            }
            b"replication" if !is_false(value) => refused = Some(Refusal::replication()),
            _ => {}
        }
    }
}

/// The ways to say no that PostgreSQL knows, but for their beginnings: those are refused.
fn is_false(value: &[u8]) -> bool {
    [&b"false"[..], b"off", b"no", b"0"]
        .iter()
        .any(|no| value.eq_ignore_ascii_case(no))
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], FirstError> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let (text, rest) = bytes.split_at(end.ok_or(FirstError::CutOff)?);
    *bytes = rest.get(1..).ok_or(FirstError::CutOff)?;
    Ok(text)
}

/// Says to a client why it is not let in, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE.
    pub sqlstate: &'static str,
    /// What is the matter.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl Refusal {
    /// 57P03: it will be let in later.
    pub fn starting(message: impl Into<String>) -> Self {
        let hint = "Nothing to do: connect again in a moment.";
        Self {
            sqlstate: "57P03",
            message: message.into(),
            hint: hint.to_owned(),
        }
    }

    /// 57P03: it has ended, and nobody starts it again by itself.
    pub fn ended(failure: &Failure) -> Self {
        let hint = match failure.grade() {
            Grade::RetryElsewhere => "Another compute runs this database: connect to that one.",
            Grade::DataDamaged => {
                "Whoever runs the database has to compare safekeepers and pageserver first."
            }
            Grade::FixRequest => "Whoever runs the database has to change its configuration.",
            _ => "Whoever runs the database has to look at the agent's log, and to start it.",
        };
        Self {
            sqlstate: "57P03",
            message: format!("the database has ended: {failure}"),
            hint: hint.to_owned(),
        }
    }

    pub(super) fn gone() -> Self {
        Self::starting("the database has just stopped answering")
    }

    pub(super) fn full() -> Self {
        Self {
            sqlstate: "53300",
            message: "too many clients are connected".to_owned(),
            hint: "Connect again when others have left.".to_owned(),
        }
    }

    fn agent() -> Self {
        Self {
            sqlstate: "28000",
            message: "this role is the agent's own".to_owned(),
            hint: "Connect under another role.".to_owned(),
        }
    }

    fn replication() -> Self {
        Self {
            sqlstate: "28000",
            message: "replication connections are not let in here".to_owned(),
            hint: "Physical replicas read from the storage layer; logical replication is not \
                   supported yet."
                .to_owned(),
        }
    }

    /// The bytes of an `ErrorResponse` with severity FATAL.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        for (kind, text) in [
            (b'S', "FATAL"),
            (b'V', "FATAL"),
            (b'C', self.sqlstate),
            (b'M', &self.message),
            (b'H', &self.hint),
        ] {
            fields.push(kind);
            // A zero would end the text early; nothing of ours has one.
            fields.extend(text.bytes().filter(|byte| *byte != 0));
            fields.push(0);
        }
        fields.push(0);
        let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
        [&b"E"[..], &length.to_be_bytes(), &fields].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        body.push(0);
        [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
    }

    fn refused(parameters: &[(&str, &str)]) -> bool {
        let first = decode(&startup(parameters)).unwrap();
        matches!(first, First::Startup { refused: Some(_) })
    }

    #[test]
    fn nobody_comes_in_as_the_agent_or_as_a_standby() {
        assert!(!refused(&[("user", "alice"), ("database", "shop")]));
        assert!(refused(&[("user", "redoubt_agent")]));
        assert!(refused(&[("user", "redoubt_agent"), ("user", "alice")]));
        assert!(refused(&[("user", "alice"), ("user", "redoubt_agent")]));
        for yes in ["true", "database", "on", "1", "t", "TRUE", "", "of"] {
            assert!(refused(&[("user", "alice"), ("replication", yes)]), "{yes}");
        }
        for no in ["false", "off", "NO", "0"] {
            assert!(!refused(&[("user", "alice"), ("replication", no)]), "{no}");
        }
    }

    #[test]
    fn first_packets_are_told_apart() {
        let packet = |code: u32| [&8_u32.to_be_bytes()[..], &code.to_be_bytes()].concat();
        assert_eq!(decode(&packet(TLS)), Ok(First::Encryption));
        assert_eq!(decode(&packet(GSS)), Ok(First::Encryption));
        assert_eq!(decode(&packet(CANCEL)), Ok(First::Cancel));
        assert_eq!(decode(&packet(1)), Err(FirstError::Version(1)));
        let later = [
            &9_u32.to_be_bytes()[..],
            &0x0003_0002_u32.to_be_bytes(),
            b"\0",
        ]
        .concat();
        assert_eq!(decode(&later), Ok(First::Startup { refused: None }));
    }

    #[test]
    fn hostile_packets_are_errors() {
        let whole = startup(&[("user", "redoubt_agent"), ("replication", "true")]);
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "cut at {end}");
        }
        for length in [0, 7, 10_001, u32::MAX] {
            assert!(packet_length(&length.to_be_bytes()).is_err());
        }
        assert_eq!(packet_length(&8_u32.to_be_bytes()), Ok(8));
    }

    #[test]
    fn who_ends_does_not_say_that_it_comes_back() {
        let lost = crate::proposer::ProposerLost {
            reason: "term 2".to_owned(),
        };
        let slow = Box::new(Failure::Ended { code: None });
        let gave_up = Failure::GaveUp {
            fast: 8,
            last: slow,
        };
        for failure in [lost.into(), gave_up, Failure::Swap] {
            let said = Refusal::ended(&failure);
            assert!(!said.hint.contains("connect again"), "{}", said.hint);
            assert!(!said.message.contains("None"), "{}", said.message);
        }
    }

    #[test]
    fn a_refusal_is_a_message_of_the_protocol() {
        let packet = Refusal::starting("starting").packet();
        assert_eq!(packet[0], b'E');
        let length = u32::from_be_bytes(*packet[1..].first_chunk().unwrap());
        assert_eq!(length as usize + 1, packet.len());
        assert!(packet.ends_with(b"\0\0"));
    }
}
