//! Messages between a proposer and an acceptor, protocol 3: one message is one CopyData.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ids::{Generation, Lsn, NodeId, TenantId, Term, TimelineId};

use super::field::{Fields, WireError, put_text};

/// The most WAL in one append.
pub const APPEND_BYTES_MAX: usize = 128 * 1024;

/// One safekeeper of a membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its node id.
    pub node: NodeId,
    /// Where computes reach it.
    pub host: String,
    /// Its libpq port.
    pub port: u16,
}

/// Who votes. Generation 0 stands for "not told", which a proposer always says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Grows by one with each change.
    pub generation: Generation,
    /// The voters.
    pub members: Vec<Member>,
    /// The voters to be, while a change is under way; empty otherwise.
    pub new_members: Vec<Member>,
}

/// Where a term began to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermStart {
    /// The term.
    pub term: Term,
    /// The first position of its WAL.
    pub start: Lsn,
}

/// From a proposer to an acceptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToAcceptor {
    /// The first message.
    Greeting(ProposerGreeting),
    /// Asks for a vote.
    Vote(VoteRequest),
    /// Tells that the term was won; it has no answer.
    Elected(Elected),
    /// Carries WAL, or only positions.
    Append(AppendRequest),
}

/// From an acceptor to a proposer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToProposer {
    /// Answers the greeting.
    Greeting(AcceptorGreeting),
    /// Answers the request for a vote.
    Vote(VoteAnswer),
    /// Says how far WAL is flushed; not one per request.
    Append(AppendAnswer),
}

/// What a proposer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposerGreeting {
    /// The tenant.
    pub tenant: TenantId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The membership that the proposer knows.
    pub membership: Membership,
    /// For example 170005.
    pub pg_version: u32,
    /// The system identifier; 0 where the proposer has no data directory.
    pub system_id: u64,
    /// The length of a WAL segment.
    pub wal_segment_bytes: u32,
}

/// What an acceptor says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptorGreeting {
    /// Its node id.
    pub node: NodeId,
    /// Its membership.
    pub membership: Membership,
    /// The highest term it has promised.
    pub term: Term,
}

/// Asks for the vote of one term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteRequest {
    /// The generation of the membership in which the term would be won.
    pub generation: Generation,
    /// The term.
    pub term: Term,
}

/// The vote, and what the acceptor's log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoteAnswer {
    /// The acceptor's generation.
    pub generation: Generation,
    /// The acceptor's term.
    pub term: Term,
    /// Whether the vote is given.
    pub given: bool,
    /// The flushed end of its log.
    pub flush: Lsn,
    /// Below this, WAL is on every safekeeper.
    pub truncate: Lsn,
    /// The terms in its log.
    pub history: Vec<TermStart>,
}

/// A won term, for one acceptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elected {
    /// The generation.
    pub generation: Generation,
    /// The term.
    pub term: Term,
    /// Where this acceptor's log and the proposer's part: streaming starts here.
    pub start_streaming_at: Lsn,
    /// The terms of the proposer's log, its own included.
    pub history: Vec<TermStart>,
}

/// A piece of WAL. Without WAL it carries only positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// The generation.
    pub generation: Generation,
    /// The term.
    pub term: Term,
    /// Where the WAL begins; it ends at `begin + wal.len()`.
    pub begin: Lsn,
    /// What is committed.
    pub commit: Lsn,
    /// Below this, WAL is on every safekeeper.
    pub truncate: Lsn,
    /// The WAL.
    pub wal: Bytes,
}

/// How far an acceptor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendAnswer {
    /// Its generation.
    pub generation: Generation,
    /// Its term; when above that of the proposer, the proposer has lost.
    pub term: Term,
    /// The flushed end of its log.
    pub flush: Lsn,
    /// The commit position that it has made durable; it lags.
    pub commit: Lsn,
    /// From a standby: when it said so, microseconds since 2000.
    pub standby_time: i64,
    /// From a standby: the oldest xid it needs.
    pub standby_xmin: u64,
    /// From a standby: the oldest xid its catalogue needs.
    pub standby_catalog_xmin: u64,
    /// What the pageserver reported last; only in answers nobody asked for.
    pub feedback: Option<PageserverFeedback>,
}

/// How far a pageserver is, as keys and values. Keys that are not known are kept as they are, so
/// that a newer pageserver can speak to a newer compute through us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageserverFeedback {
    /// Keys and values in their order.
    pub entries: Vec<(String, Bytes)>,
}

impl ToAcceptor {
    /// Decodes one CopyData payload.
    pub fn decode(message: Bytes) -> Result<Self, WireError> {
        let mut f = Fields(message);
        let decoded = match f.u8("tag")? {
            b'g' => Self::Greeting(ProposerGreeting {
                tenant: id(&mut f, "tenant")?,
                timeline: id(&mut f, "timeline")?,
                membership: Membership::read(&mut f)?,
                pg_version: f.u32("pg_version")?,
                system_id: f.u64("system_id")?,
                wal_segment_bytes: f.u32("wal_segment_bytes")?,
            }),
            b'v' => Self::Vote(VoteRequest {
                generation: Generation(f.u32("generation")?),
                term: Term(f.u64("term")?),
            }),
            b'e' => Self::Elected(Elected {
                generation: Generation(f.u32("generation")?),
                term: Term(f.u64("term")?),
                start_streaming_at: Lsn(f.u64("start_streaming_at")?),
                history: read_history(&mut f)?,
            }),
            b'a' => Self::Append(AppendRequest::read(&mut f)?),
            tag => return Err(WireError::UnknownTag { tag }),
        };
        f.end()?;
        Ok(decoded)
    }

    /// The payload of its CopyData.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Greeting(m) => {
                out.put_u8(b'g');
                put_text(&mut out, &m.tenant.to_string());
                put_text(&mut out, &m.timeline.to_string());
                m.membership.write(&mut out);
                out.put_u32(m.pg_version);
                out.put_u64(m.system_id);
                out.put_u32(m.wal_segment_bytes);
            }
            Self::Vote(m) => {
                out.put_u8(b'v');
                out.put_u32(m.generation.0);
                out.put_u64(m.term.0);
            }
            Self::Elected(m) => {
                out.put_u8(b'e');
                out.put_u32(m.generation.0);
                out.put_u64(m.term.0);
                out.put_u64(m.start_streaming_at.0);
                write_history(&mut out, &m.history);
            }
            Self::Append(m) => m.write(&mut out),
        }
        out.freeze()
    }
}

impl ToProposer {
    /// Decodes one CopyData payload.
    pub fn decode(message: Bytes) -> Result<Self, WireError> {
        let mut f = Fields(message);
        let decoded = match f.u8("tag")? {
            b'g' => Self::Greeting(AcceptorGreeting {
                node: NodeId(f.u64("node")?),
                membership: Membership::read(&mut f)?,
                term: Term(f.u64("term")?),
            }),
            b'v' => Self::Vote(VoteAnswer {
                generation: Generation(f.u32("generation")?),
                term: Term(f.u64("term")?),
                given: f.flag("given")?,
                flush: Lsn(f.u64("flush")?),
                truncate: Lsn(f.u64("truncate")?),
                history: read_history(&mut f)?,
            }),
            b'a' => Self::Append(AppendAnswer {
                generation: Generation(f.u32("generation")?),
                term: Term(f.u64("term")?),
                flush: Lsn(f.u64("flush")?),
                commit: Lsn(f.u64("commit")?),
                standby_time: f.i64("standby_time")?,
                standby_xmin: f.u64("standby_xmin")?,
                standby_catalog_xmin: f.u64("standby_catalog_xmin")?,
                feedback: match f.0.is_empty() {
                    true => None,
                    false => Some(PageserverFeedback::read(&mut f)?),
                },
            }),
            tag => return Err(WireError::UnknownTag { tag }),
        };
        f.end()?;
        Ok(decoded)
    }

    /// The payload of its CopyData.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Greeting(m) => {
                out.put_u8(b'g');
                out.put_u64(m.node.0);
                m.membership.write(&mut out);
                out.put_u64(m.term.0);
            }
            Self::Vote(m) => {
                out.put_u8(b'v');
                out.put_u32(m.generation.0);
                out.put_u64(m.term.0);
                out.put_u8(u8::from(m.given));
                out.put_u64(m.flush.0);
                out.put_u64(m.truncate.0);
                write_history(&mut out, &m.history);
            }
            Self::Append(m) => {
                out.put_u8(b'a');
                out.put_u32(m.generation.0);
                out.put_u64(m.term.0);
                out.put_u64(m.flush.0);
                out.put_u64(m.commit.0);
                out.put_i64(m.standby_time);
                out.put_u64(m.standby_xmin);
                out.put_u64(m.standby_catalog_xmin);
                if let Some(feedback) = &m.feedback {
                    feedback.write(&mut out);
                }
            }
        }
        out.freeze()
    }
}

impl AppendRequest {
    /// Where its WAL ends.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(self.begin.0.saturating_add(self.wal.len() as u64))
    }

    fn read(f: &mut Fields) -> Result<Self, WireError> {
        let (generation, term) = (Generation(f.u32("generation")?), Term(f.u64("term")?));
        let (begin, end) = (Lsn(f.u64("begin")?), Lsn(f.u64("end")?));
        let (commit, truncate) = (Lsn(f.u64("commit")?), Lsn(f.u64("truncate")?));
        let len = end
            .checked_sub(begin)
            .filter(|n| *n <= APPEND_BYTES_MAX as u64);
        let len = len.ok_or(WireError::BadValue {
            field: "end",
            value: end.0,
        })?;
        let wal = f.bytes("wal", len as usize)?;
        Ok(Self {
            generation,
            term,
            begin,
            commit,
            truncate,
            wal,
        })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(b'a');
        out.put_u32(self.generation.0);
        out.put_u64(self.term.0);
        out.put_u64(self.begin.0);
        out.put_u64(self.end().0);
        out.put_u64(self.commit.0);
        out.put_u64(self.truncate.0);
        out.put_slice(&self.wal);
    }
}

impl Membership {
    fn read(f: &mut Fields) -> Result<Self, WireError> {
        let generation = Generation(f.u32("generation")?);
        let members = read_members(f)?;
        Ok(Self {
            generation,
            members,
            new_members: read_members(f)?,
        })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u32(self.generation.0);
        for set in [&self.members, &self.new_members] {
            out.put_u32(set.len() as u32);
            for member in set {
                out.put_u64(member.node.0);
                put_text(out, &member.host);
                out.put_u16(member.port);
            }
        }
    }
}

impl PageserverFeedback {
    /// Feedback of the five keys that every pageserver sends.
    #[must_use]
    pub fn new(timeline_bytes: u64, received: Lsn, disk: Lsn, remote: Lsn, time: i64) -> Self {
        let entries = [
            ("current_timeline_size", timeline_bytes),
            ("ps_writelsn", received.0),
            ("ps_flushlsn", disk.0),
            ("ps_applylsn", remote.0),
            ("ps_replytime", time as u64),
        ];
        let entry = |(key, value): (&str, u64)| {
            (key.to_owned(), Bytes::copy_from_slice(&value.to_be_bytes()))
        };
        Self {
            entries: entries.into_iter().map(entry).collect(),
        }
    }

    /// The end of WAL that the pageserver has received.
    #[must_use]
    pub fn received(&self) -> Option<Lsn> {
        self.number("ps_writelsn")
            .or_else(|| self.number("last_received_lsn"))
            .map(Lsn)
    }

    /// The end of WAL that is in layers on its disk.
    #[must_use]
    pub fn disk_consistent(&self) -> Option<Lsn> {
        self.number("ps_flushlsn")
            .or_else(|| self.number("disk_consistent_lsn"))
            .map(Lsn)
    }

    /// The end of WAL that is in the bucket, manifest included.
    #[must_use]
    pub fn remote_consistent(&self) -> Option<Lsn> {
        self.number("ps_applylsn")
            .or_else(|| self.number("remote_consistent_lsn"))
            .map(Lsn)
    }

    fn number(&self, key: &str) -> Option<u64> {
        let (_, value) = self.entries.iter().find(|(k, _)| k == key)?;
        Some(u64::from_be_bytes(value.as_ref().try_into().ok()?))
    }

    pub(super) fn read(f: &mut Fields) -> Result<Self, WireError> {
        let mut entries = Vec::new();
        for _ in 0..f.u8("feedback keys")? {
            let key = f.text("feedback key")?;
            let len = f.u32("feedback length")? as usize;
            entries.push((key, f.bytes("feedback value", len)?));
        }
        Ok(Self { entries })
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        // The count is one byte; what is decoded never has more.
        let entries = self.entries.iter().take(usize::from(u8::MAX));
        out.put_u8(entries.len() as u8);
        for (key, value) in entries {
            put_text(out, key);
            out.put_u32(value.remaining() as u32);
            out.put_slice(value);
        }
    }
}

fn id<T: std::str::FromStr>(f: &mut Fields, field: &'static str) -> Result<T, WireError> {
    let text = f.text(field)?;
    text.parse().map_err(|_| WireError::BadValue {
        field,
        value: text.len() as u64,
    })
}

fn read_members(f: &mut Fields) -> Result<Vec<Member>, WireError> {
    let n = f.count("members", 8 + 1 + 2)?;
    let mut read = || {
        let node = NodeId(f.u64("node")?);
        Ok(Member {
            node,
            host: f.text("host")?,
            port: f.u16("port")?,
        })
    };
    (0..n).map(|_| read()).collect()
}

fn read_history(f: &mut Fields) -> Result<Vec<TermStart>, WireError> {
    let n = f.count("history", 16)?;
    let mut read = || {
        Ok(TermStart {
            term: Term(f.u64("term")?),
            start: Lsn(f.u64("start")?),
        })
    };
    (0..n).map(|_| read()).collect()
}

fn write_history(out: &mut BytesMut, history: &[TermStart]) {
    out.put_u32(history.len() as u32);
    for entry in history {
        out.put_u64(entry.term.0);
        out.put_u64(entry.start.0);
    }
}
