//! Which safekeepers answer, and since when others do not.

use std::collections::BTreeMap;
use std::time::Duration;

use ids::NodeId;

/// A connection may be away for this long before it is worth a word.
const WORTH_A_WORD: Duration = Duration::from_secs(2);

/// All safekeepers of the set, on BOOTTIME.
#[derive(Clone, Debug)]
pub struct Roll {
    now: Duration,
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// When it said something; at first when it was first asked.
    heard: Duration,
    /// Whether it said something on a connection that is still there.
    live: bool,
}

impl Roll {
    pub(super) fn new(nodes: impl Iterator<Item = NodeId>, now: Duration) -> Self {
        let (heard, live) = (now, false);
        let nodes = nodes.map(|node| (node, Node { heard, live })).collect();
        Self { now, nodes }
    }

    pub(super) fn heard(&mut self, node: NodeId, now: Duration) {
        let (heard, live) = (now, true);
        self.nodes.insert(node, Node { heard, live });
    }

    pub(super) fn gone(&mut self, node: NodeId) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.live = false;
        }
    }

    pub(super) fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    /// For how long no majority has said anything.
    #[must_use]
    pub fn majority_silence(&self) -> Duration {
        let mut silences: Vec<_> = self.nodes.values().map(|n| self.silence(n)).collect();
        silences.sort();
        let last_of_majority = silences.get(self.majority() - 1);
        last_of_majority.copied().unwrap_or(Duration::MAX)
    }

    /// Who does not answer and for how long, where so few answer that no majority does.
    #[must_use]
    pub fn without_majority(&self) -> Option<String> {
        let silent = |n: &Node| !n.live && self.silence(n) >= WORTH_A_WORD;
        let silent: Vec<_> = self.nodes.iter().filter(|(_, n)| silent(n)).collect();
        let answer = self.nodes.len() - silent.len();
        if answer >= self.majority() {
            return None;
        }
        let each = silent
            .iter()
            .map(|(node, n)| format!("{node} for {} s", self.silence(n).as_secs()));
        let (all, each) = (self.nodes.len(), each.collect::<Vec<_>>().join(", "));
        Some(format!(
            "{answer} of {all} safekeepers answer, {} must; no answer from {each}",
            self.majority()
        ))
    }

    fn silence(&self, node: &Node) -> Duration {
        self.now.saturating_sub(node.heard)
    }

    fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(100 + seconds)
    }

    #[test]
    fn a_majority_is_silent_for_as_long_as_its_last_member() {
        let mut roll = Roll::new([1, 2, 3].map(NodeId).into_iter(), at(0));
        roll.heard(NodeId(1), at(10));
        roll.tick(at(10));
        assert_eq!(roll.majority_silence(), Duration::from_secs(10));
        roll.heard(NodeId(3), at(9));
        assert_eq!(roll.majority_silence(), Duration::from_secs(1));
        roll.tick(at(70));
        assert_eq!(roll.majority_silence(), Duration::from_secs(61));
    }

    #[test]
    fn who_does_not_answer_is_named_with_the_time() {
        let mut roll = Roll::new([1, 2, 3].map(NodeId).into_iter(), at(0));
        assert_eq!(roll.without_majority(), None, "it has only begun");
        roll.heard(NodeId(2), at(1));
        roll.tick(at(35));
        let said = roll.without_majority().unwrap();
        assert!(
            said.starts_with("1 of 3 safekeepers answer, 2 must"),
            "{said}"
        );
        assert!(
            said.ends_with("no answer from 1 for 35 s, 3 for 35 s"),
            "{said}"
        );
        // It has nothing to say, and is there.
        roll.heard(NodeId(3), at(36));
        roll.tick(at(50));
        assert_eq!(roll.without_majority(), None);
        roll.gone(NodeId(3));
        assert!(roll.without_majority().unwrap().ends_with("3 for 14 s"));
    }
}
