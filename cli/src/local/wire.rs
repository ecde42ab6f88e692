//! A connection to a libpq port, far enough to hear what the other side says first: the error of
//! a compute that does not run, or whether a storage node still gives anything away.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The longest message that is looked at.
const MESSAGE_MAX: usize = 1 << 20;
/// For each step of a conversation.
const STEP: Duration = Duration::from_secs(5);

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Content, or that there is some to be had.
    Served,
    /// An error, by its SQLSTATE.
    Refused { sqlstate: String, message: String },
    /// Nothing: no listener, a closed connection, silence.
    Nothing(String),
}

/// Who connects, and what is asked once that is accepted.
pub(crate) struct Question<'a> {
    /// Parameters of the startup message.
    pub(crate) startup: &'a [(&'a str, &'a str)],
    pub(crate) password: &'a str,
    /// One simple query; where absent, being let in is all that is asked.
    pub(crate) query: Option<&'a str>,
}

/// Asks the port on loopback.
pub(crate) fn ask(port: u16, question: &Question<'_>) -> Answer {
    converse(port, question).unwrap_or_else(|error| {
        Answer::Nothing(match error.kind() {
            io::ErrorKind::ConnectionRefused => "nothing listens".to_owned(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            _ => error.to_string(),
        })
    })
}

fn converse(port: u16, question: &Question<'_>) -> io::Result<Answer> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, STEP)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    stream.write_all(&startup(question.startup))?;
    loop {
        let (kind, body) = read_message(&mut stream)?;
        match (kind, question.query) {
            (b'E', _) => return Ok(refusal(&body)),
            (b'R', query) => match method(&body) {
                0 => {}
                3 => stream.write_all(&message(b'p', question.password))?,
                // Postgres itself is there and asks for more: that is an answer.
                _ if query.is_none() => return Ok(Answer::Served),
                other => return Ok(Answer::Nothing(format!("it asks for method {other}"))),
            },
            (b'Z', None) => return Ok(Answer::Served),
            (b'Z', Some(query)) => {
                stream.write_all(&message(b'Q', query))?;
                return first_content(&mut stream);
            }
            _ => {}
        }
    }
}

/// Waits for data or for an error; a stream that is opened gives nothing away yet.
fn first_content(stream: &mut TcpStream) -> io::Result<Answer> {
    loop {
        let (kind, body) = read_message(stream)?;
        match kind {
            b'E' => return Ok(refusal(&body)),
            // A keepalive of replication tells positions and no content.
            b'd' if body.first() == Some(&b'k') => {}
            b'd' | b'D' => return Ok(Answer::Served),
            b'Z' => return Ok(Answer::Nothing("an empty answer".to_owned())),
            _ => {}
        }
    }
}

fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in parameters {
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    with_length(body)
}

fn message(kind: u8, text: &str) -> Vec<u8> {
    let mut whole = vec![kind];
    let mut body = text.as_bytes().to_vec();
    body.push(0);
    whole.extend(with_length(body));
    whole
}

fn with_length(body: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut whole = length.to_be_bytes().to_vec();
    whole.extend(body);
    whole
}

fn read_message(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "it does not speak the protocol");
    let length = length.checked_sub(4).filter(|l| *l <= MESSAGE_MAX);
    let mut body = vec![0; length.ok_or_else(broken)?];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

fn method(body: &[u8]) -> u32 {
    body.first_chunk()
        .map_or(u32::MAX, |b| u32::from_be_bytes(*b))
}

fn refusal(body: &[u8]) -> Answer {
    let field = |wanted: u8| {
        body.split(|b| *b == 0)
            .find(|field| field.first() == Some(&wanted))
            .and_then(|field| field.get(1..))
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    };
    Answer::Refused {
        sqlstate: field(b'C'),
        message: field(b'M'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    type Heard = Vec<(u8, Vec<u8>)>;

    /// A server that reads the startup message, sends `replies`, and after each `then` reads
    /// one message more.
    fn server(replies: Vec<Vec<u8>>) -> (u16, JoinHandle<Heard>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            stream.read_exact(&mut startup).unwrap();
            let mut heard = vec![(0, startup)];
            for reply in replies {
                if reply.is_empty() {
                    heard.push(read_message(&mut stream).unwrap());
                } else {
                    stream.write_all(&reply).unwrap();
                }
            }
            heard
        });
        (port, served)
    }

    fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut whole = vec![kind];
        whole.extend(with_length(body.to_vec()));
        whole
    }

    const ASKED: Question<'_> = Question {
        startup: &[("user", "x")],
        password: "secret",
        query: Some("basebackup"),
    };

    fn error() -> Vec<u8> {
        raw(b'E', b"SFATAL\0C58R01\0Mthe key is revoked\0\0")
    }

    fn revoked() -> Answer {
        Answer::Refused {
            sqlstate: "58R01".to_owned(),
            message: "the key is revoked".to_owned(),
        }
    }

    #[test]
    fn an_error_is_heard_before_and_after_the_question() {
        let (port, served) = server(vec![error()]);
        assert_eq!(ask(port, &ASKED), revoked());
        served.join().unwrap();
        let password = raw(b'R', &[0, 0, 0, 3]);
        let (port, served) = server(vec![
            password,
            vec![],
            raw(b'R', &[0; 4]),
            raw(b'Z', b"I"),
            vec![],
            raw(b'W', &[0; 3]),
            raw(b'd', b"k0000"),
            error(),
        ]);
        assert_eq!(ask(port, &ASKED), revoked());
        let heard = served.join().unwrap();
        assert_eq!(heard[1], (b'p', b"secret\0".to_vec()));
        assert_eq!(heard[2], (b'Q', b"basebackup\0".to_vec()));
    }

    #[test]
    fn content_is_told_from_a_stream_that_gives_nothing() {
        let begin = || vec![raw(b'R', &[0; 4]), raw(b'Z', b"I"), vec![]];
        let mut content = begin();
        content.push(raw(b'd', b"wal"));
        let (port, served) = server(content);
        assert_eq!(ask(port, &ASKED), Answer::Served);
        served.join().unwrap();
        let (port, served) = server(begin());
        assert!(matches!(ask(port, &ASKED), Answer::Nothing(_)));
        served.join().unwrap();
    }

    #[test]
    fn a_postgres_that_asks_for_a_scram_password_is_there() {
        let question = Question {
            query: None,
            ..ASKED
        };
        let (port, served) = server(vec![raw(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")]);
        assert_eq!(ask(port, &question), Answer::Served);
        served.join().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        assert_eq!(
            ask(port, &question),
            Answer::Nothing("nothing listens".to_owned())
        );
    }
}
