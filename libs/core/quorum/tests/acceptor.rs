//! What one acceptor answers, message by message.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

use ids::{Generation, Lsn, NodeId, Term};
use pg::wire::wal_push::{AppendRequest, Elected, TermStart, ToAcceptor, ToProposer, VoteRequest};
use quorum::{Acceptor, Action, Durable, EndpointEpoch, History, Refusal, Ticket};

fn ask(acceptor: &mut Acceptor, epoch: u64, message: ToAcceptor) -> Vec<Action> {
    let mut out = Vec::new();
    acceptor.handle(EndpointEpoch(epoch), message, &mut out);
    out
}

fn vote(term: u64) -> ToAcceptor {
    ToAcceptor::Vote(VoteRequest {
        generation: Generation(0),
        term: Term(term),
    })
}

fn given(actions: &[Action]) -> bool {
    match actions.last() {
        Some(Action::Send {
            message: ToProposer::Vote(answer),
            ..
        }) => answer.given,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vote_waits_for_its_record_and_a_lower_endpoint_epoch_gets_none() {
    let mut acceptor = Acceptor::restore(NodeId(1), Durable::default(), Lsn(0), false);
    let actions = ask(&mut acceptor, 5, vote(1));
    assert!(given(&actions));
    assert!(matches!(
        actions[1],
        Action::Send {
            after: Some(Ticket(1)),
            ..
        }
    ));
    let Action::Persist { state, .. } = &actions[0] else {
        panic!("{actions:?}");
    };
    let stored = (state.term, state.epoch);
    assert_eq!(stored, (Term(1), EndpointEpoch(5)), "one write holds both");
    let (theirs, ours) = (EndpointEpoch(4), EndpointEpoch(5));
    let refused = [Action::Close(Refusal::Epoch { theirs, ours })];
    assert_eq!(ask(&mut acceptor, 4, vote(2)), refused, "A6");
    assert!(!given(&ask(&mut acceptor, 5, vote(1))), "A1");
    assert!(given(&ask(&mut acceptor, 5, vote(3))));
}

#[test]
fn a_stale_append_is_answered_bare_and_then_with_positions() {
    let state = Durable {
        term: Term(7),
        ..Durable::default()
    };
    let mut acceptor = Acceptor::restore(NodeId(1), state, Lsn(0x2000), false);
    let stale = AppendRequest {
        generation: Generation(0),
        term: Term(6),
        begin: Lsn(0x2000),
        commit: Lsn(0),
        truncate: Lsn(0),
        wal: vec![0; 8].into(),
    };
    let flushes: Vec<_> = ask(&mut acceptor, 0, ToAcceptor::Append(stale))
        .into_iter()
        .map(|action| match action {
            Action::Send {
                message: ToProposer::Append(m),
                ..
            } => (m.term, m.flush),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(flushes, [(Term(7), Lsn(0)), (Term(7), Lsn(0x2000))]);
}

#[test]
fn a_log_below_its_commit_position_takes_no_part() {
    let state = Durable {
        commit: Lsn(0x3000),
        ..Durable::default()
    };
    let mut acceptor = Acceptor::restore(NodeId(1), state, Lsn(0x2000), false);
    let refused = ask(&mut acceptor, 0, vote(1));
    let [Action::Persist { state, .. }, Action::Close(refusal)] = &refused[..] else {
        panic!("{refused:?}");
    };
    assert_eq!(*refusal, Refusal::Learner(NodeId(1)), "A5");
    // The next start remembers, whatever it finds.
    let mut acceptor = Acceptor::restore(NodeId(1), (**state).clone(), Lsn(0x3000), false);
    let refused = ask(&mut acceptor, 0, vote(1));
    assert_eq!(refused, [Action::Close(Refusal::Learner(NodeId(1)))], "A5");
}

#[test]
fn a_copied_log_promises_the_terms_that_are_in_it() {
    let history = vec![TermStart {
        term: Term(7),
        start: Lsn(0x1000),
    }];
    let state = Durable {
        term: Term(2),
        history: History::new(history).unwrap(),
        ..Durable::default()
    };
    let mut acceptor = Acceptor::restore(NodeId(1), state, Lsn(0x2000), false);
    assert!(!given(&ask(&mut acceptor, 0, vote(7))), "A1");
    assert!(given(&ask(&mut acceptor, 0, vote(8))));
}

#[test]
fn an_elected_that_would_cut_off_committed_wal_changes_nothing() {
    let terms = |starts: &[u64]| -> Vec<_> {
        let start = |(i, at): (usize, &u64)| TermStart {
            term: Term(1 + i as u64),
            start: Lsn(*at),
        };
        starts.iter().enumerate().map(start).collect()
    };
    let state = Durable {
        term: Term(1),
        history: History::new(terms(&[0x1000])).unwrap(),
        commit: Lsn(0x2000),
        ..Durable::default()
    };
    let elected = |at| {
        let start_streaming_at = Lsn(at);
        let history = terms(&[0x1000, at]);
        let (generation, term) = (Generation(0), Term(2));
        ToAcceptor::Elected(Elected {
            generation,
            term,
            start_streaming_at,
            history,
        })
    };
    let mut acceptor = Acceptor::restore(NodeId(1), state.clone(), Lsn(0x2800), false);
    let (at, commit) = (Lsn(0x1FF8), Lsn(0x2000));
    let refused = [Action::Close(Refusal::BelowCommit { at, commit })];
    assert_eq!(ask(&mut acceptor, 0, elected(at.0)), refused, "A3");
    assert_eq!(*acceptor.state(), state);
    // At the commit position nothing that is committed goes.
    let taken = ask(&mut acceptor, 0, elected(commit.0));
    let cut = matches!(taken[0], Action::Truncate { to, .. } if to == commit);
    assert!(cut, "{taken:?}");
}
