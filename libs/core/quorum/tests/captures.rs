//! What a recorded compute sent to a recorded safekeeper, sent to ours: the answers are the same.
//! One story in three connections: a first compute is killed, its log is synced, a second one
//! starts, writes and stops.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

use bytes::Bytes;
use captures::Capture;
use ids::{Lsn, NodeId, Term};
use pg::wire::wal_push::{TermStart, ToAcceptor, ToProposer};
use quorum::{Acceptor, Action, Durable, EndpointEpoch, Ticket};

#[test]
fn a_recorded_compute_is_answered_as_recorded() {
    let mut acceptor = Acceptor::restore(NodeId(1), Durable::default(), Lsn(0), false);
    let mut log = Log::default();
    // The position to which each connection was recorded to bring the safekeeper.
    for (name, end) in [
        ("walproposer-v3-first-election", 0x149_DB10),
        ("sync-safekeepers-v3", 0x149_DB10),
        ("walproposer-v3-second-start", 0x14B_2350),
    ] {
        let Capture { client, server, .. } = captures::read(name);
        let recorded: Vec<_> = server
            .into_iter()
            .map(|b| ToProposer::decode(b).unwrap())
            .collect();
        let answers = replay(&mut acceptor, &mut log, client);
        assert_eq!(openings(&answers), openings(&recorded), "{name}");
        let (ours, theirs) = (positions(&answers), positions(&recorded));
        // Recorded answers stand for several requests at times; ours answer each.
        let mut rest = ours.iter();
        let missing = theirs.iter().find(|p| !rest.any(|o| o == *p));
        assert_eq!(missing, None, "{name}: not answered, or not in this order");
        assert_eq!(ours.last(), theirs.last(), "{name}");
        assert_eq!(acceptor.flush(), Lsn(end), "{name}");
        assert_eq!(acceptor.state().commit, Lsn(end), "{name}");
        assert_eq!(log.end(), end, "{name}");
    }
    let start = |term, at| TermStart {
        term: Term(term),
        start: Lsn(at),
    };
    let state = acceptor.state();
    assert_eq!(
        state.history.entries(),
        [
            start(1, 0x148_1660),
            start(2, 0x149_DB10),
            start(3, 0x149_DB10)
        ]
    );
    assert_eq!(
        (state.term, state.truncate),
        (Term(3), Lsn(0x14A_8148)),
        "as the safekeeper said of itself at the end"
    );
}

/// The log on the disk, which has no holes.
#[derive(Default)]
struct Log {
    start: u64,
    bytes: Vec<u8>,
}

impl Log {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn apply(&mut self, action: &Action) -> Option<Ticket> {
        match action {
            Action::Append { ticket, at, wal } => {
                assert_eq!(at.0, self.end(), "a hole in the log");
                self.bytes.extend_from_slice(wal);
                Some(*ticket)
            }
            Action::Truncate { ticket, to, .. } => {
                if self.bytes.is_empty() {
                    self.start = to.0;
                }
                self.bytes.truncate((to.0 - self.start) as usize);
                Some(*ticket)
            }
            Action::Persist { ticket, .. } => Some(*ticket),
            Action::Send { .. } => None,
            Action::Close(refusal) => panic!("{refusal}"),
        }
    }
}

/// Writes are durable at once; that answers wait for them is the simulator's to check.
fn replay(acceptor: &mut Acceptor, log: &mut Log, client: Vec<Bytes>) -> Vec<ToProposer> {
    let mut answers = Vec::new();
    for bytes in client {
        let mut todo = Vec::new();
        let message = ToAcceptor::decode(bytes).unwrap();
        acceptor.handle(EndpointEpoch(0), message, &mut todo);
        while !todo.is_empty() {
            let written = todo.iter().filter_map(|a| log.apply(a)).last();
            answers.extend(todo.drain(..).filter_map(|action| match action {
                Action::Send { message, .. } => Some(message),
                _ => None,
            }));
            if let Some(ticket) = written {
                acceptor.on_persisted(ticket, &mut todo);
            }
        }
    }
    answers
}

/// Greetings and votes. Only the node id is ours to choose.
fn openings(answers: &[ToProposer]) -> Vec<ToProposer> {
    let mut openings = Vec::new();
    for answer in answers {
        match answer.clone() {
            ToProposer::Greeting(mut m) => {
                m.node = NodeId(0);
                openings.push(ToProposer::Greeting(m));
            }
            vote @ ToProposer::Vote(_) => openings.push(vote),
            ToProposer::Append(_) => {}
        }
    }
    openings
}

/// The distinct positions of append answers, in their order.
fn positions(answers: &[ToProposer]) -> Vec<(Term, Lsn)> {
    let mut positions: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            ToProposer::Append(m) => Some((m.term, m.flush)),
            _ => None,
        })
        .collect();
    positions.dedup();
    positions
}
