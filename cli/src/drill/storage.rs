//! Whether storage nodes still give anything away: each is asked for content, as a client that is
//! let in, and for how many data keys it holds.

use std::collections::BTreeMap;

use api::timeline::{SafekeeperStatus, timeline_path};
use ids::Lsn;
use serde::Serialize;

use crate::exit::Failure;
use crate::local::home::{Home, read_text};
use crate::local::node::{Operator, metric};
use crate::local::programs::{self, Kind, Program};
use crate::local::system::{Branch, System};
use crate::local::tokens::ADMIN_TOKEN;
use crate::local::wire::{Answer, Question, ask};

/// The gauge of data keys in memory.
const HELD: &str = "redoubt_deks_held";

/// What a node was found to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Node {
    /// Whether it gave content away.
    pub(crate) served: bool,
    /// What it said instead.
    pub(crate) answer: String,
    /// Data keys in its memory; none where it does not say.
    pub(crate) keys_held: Option<f64>,
}

impl Node {
    /// It gives nothing away and holds no key.
    pub(crate) fn closed(&self) -> bool {
        !self.served && self.keys_held == Some(0.0)
    }
}

/// The storage nodes of one branch.
pub(crate) struct Storage {
    operator: Operator,
    token: String,
    options: String,
    /// Each with the question that asks for content.
    nodes: Vec<(Program, String)>,
}

impl Storage {
    pub(crate) fn of(
        home: &Home,
        system: &System,
        branch: &Branch,
        operator: Operator,
    ) -> Result<Self, Failure> {
        let (tenant, timeline) = (system.tenant, branch.timeline);
        let path = timeline_path(tenant, timeline);
        let mut nodes = Vec::new();
        for program in programs::all(system)? {
            let question = match program.kind {
                Kind::Pageserver => format!("basebackup {tenant} {timeline}"),
                Kind::Safekeeper => {
                    let status: SafekeeperStatus = operator.get(&program.url(), &path)?;
                    // Rows are written behind this point, so there is content to be had.
                    let lsn: Lsn = status.commit_lsn;
                    format!("START_REPLICATION PHYSICAL {lsn}")
                }
                Kind::Keymanager | Kind::Compute => continue,
            };
            nodes.push((program, question));
        }
        Ok(Self {
            token: read_text(&home.token(ADMIN_TOKEN))?,
            options: format!("-c tenant_id={tenant} -c timeline_id={timeline}"),
            operator,
            nodes,
        })
    }

    /// Whether every node serves; else a later refusal would prove nothing.
    pub(crate) fn served(&self) -> Result<bool, Failure> {
        let nodes = self.look()?;
        for (name, node) in nodes.iter().filter(|(_, node)| !node.served) {
            eprintln!(
                "{name} serves nothing before the revocation: {}",
                node.answer
            );
        }
        Ok(nodes.values().all(|node| node.served))
    }

    /// Asks every node.
    pub(crate) fn look(&self) -> Result<BTreeMap<String, Node>, Failure> {
        let asked = self.nodes.iter().map(|(program, query)| {
            let question = Question {
                startup: &[
                    ("user", "drill"),
                    ("database", "postgres"),
                    ("options", &self.options),
                ],
                password: &self.token,
                query: Some(query),
            };
            let answer = ask(program.libpq.unwrap_or(0), &question);
            let page = self.operator.text(&program.url(), "/metrics");
            let keys_held = page.ok().and_then(|page| metric(&page, HELD));
            (program.name.clone(), judged(answer, keys_held))
        });
        Ok(asked.collect())
    }
}

fn judged(answer: Answer, keys_held: Option<f64>) -> Node {
    let (served, answer) = match answer {
        Answer::Served => (true, "content".to_owned()),
        Answer::Refused { sqlstate, message } => (false, format!("{sqlstate} {message}")),
        Answer::Nothing(why) => (false, why),
    };
    Node {
        served,
        answer,
        keys_held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_closed_only_without_content_and_without_keys() {
        let refused = || Answer::Refused {
            sqlstate: "58R01".to_owned(),
            message: "revoked".to_owned(),
        };
        assert!(judged(refused(), Some(0.0)).closed());
        assert!(!judged(refused(), Some(1.0)).closed());
        assert!(!judged(refused(), None).closed(), "it has to say so");
        assert!(!judged(Answer::Served, Some(0.0)).closed());
        assert_eq!(judged(refused(), None).answer, "58R01 revoked");
    }
}
