//! What the answers of several keymanagers mean for each tenant (K2, K3).
//!
//! A revocation that one of them knows counts at once; silence, or not knowing, does not keep the
//! next one from being asked. A grant without the KMS's word counts only where nobody else has
//! that word: a keymanager that is cut off from the KMS must not outlive a revocation that another
//! one has seen.

use std::collections::{BTreeMap, BTreeSet};

use api::keys::{KeyErrorKind, Lease as Answer, LeaseId, TenantState};
use ids::{KekVersion, TenantId};

use crate::KeyError;

/// A lease as one keymanager granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) server: usize,
    pub(crate) lease: LeaseId,
    pub(crate) epoch: u64,
    pub(crate) kek: KekVersion,
    pub(crate) deadline_ms: u64,
}

/// The answers so far.
pub(crate) struct Verdicts {
    decided: BTreeMap<TenantId, Result<Grant, KeyError>>,
    open: BTreeMap<TenantId, Open>,
    /// What happened with the last keymanager that did not answer.
    silence: String,
}

/// What is known of a tenant about which another keymanager has to be asked.
#[derive(Default)]
struct Open {
    unverified: Option<Grant>,
    refusal: Option<KeyError>,
}

impl Verdicts {
    pub(crate) fn of(tenants: impl IntoIterator<Item = TenantId>) -> Self {
        let open = tenants.into_iter().map(|tenant| (tenant, Open::default()));
        Self {
            decided: BTreeMap::new(),
            open: open.collect(),
            silence: "none is configured".to_owned(),
        }
    }

    /// The tenants about which the next keymanager is to be asked.
    pub(crate) fn open(&self) -> BTreeSet<TenantId> {
        self.open.keys().copied().collect()
    }

    pub(crate) fn silent(&mut self, detail: String) {
        self.silence = detail;
    }

    /// Whether the answer is a grant on the KMS's word; `sent` is when the question left.
    pub(crate) fn heard(&mut self, server: usize, sent: u64, answer: &Answer) -> bool {
        let tenant = answer.tenant;
        let Some(open) = self.open.get_mut(&tenant) else {
            return false;
        };
        match granted(server, sent, answer) {
            Ok(grant) if answer.state == TenantState::Active => self.decide(tenant, Ok(grant)),
            Ok(grant) => _ = open.unverified.get_or_insert(grant),
            Err(revoked @ KeyError::Revoked { .. }) => self.decide(tenant, Err(revoked)),
            Err(error) => open.refusal = Some(error),
        }
        matches!(self.decided.get(&tenant), Some(Ok(_)))
    }

    fn decide(&mut self, tenant: TenantId, verdict: Result<Grant, KeyError>) {
        self.open.remove(&tenant);
        self.decided.insert(tenant, verdict);
    }

    /// What is decided by now, once.
    pub(crate) fn take_decided(&mut self) -> BTreeMap<TenantId, Result<Grant, KeyError>> {
        std::mem::take(&mut self.decided)
    }

    /// Everybody was asked: one verdict for each tenant.
    pub(crate) fn conclude(mut self) -> BTreeMap<TenantId, Result<Grant, KeyError>> {
        for (tenant, open) in self.open {
            let verdict = match (open.unverified, open.refusal) {
                (Some(grant), _) => Ok(grant),
                (None, Some(refusal)) => Err(refusal),
                (None, None) => Err(KeyError::Unreachable {
                    tenant,
                    detail: self.silence.clone(),
                }),
            };
            self.decided.insert(tenant, verdict);
        }
        self.decided
    }
}

fn granted(server: usize, sent: u64, answer: &Answer) -> Result<Grant, KeyError> {
    let tenant = answer.tenant;
    let refused = |kind| Err(KeyError::Refused { tenant, kind });
    match (answer.lease, answer.state) {
        (_, TenantState::Revoked(reason)) => Err(KeyError::Revoked { tenant, reason }),
        (Some(lease), TenantState::Active | TenantState::Unverified) => Ok(Grant {
            server,
            lease,
            epoch: answer.epoch,
            kek: answer.active_kek,
            deadline_ms: sent.saturating_add(answer.remaining_ms),
        }),
        (_, TenantState::Unknown) => refused(KeyErrorKind::NotKnownYet),
        (None, TenantState::Unverified) => refused(KeyErrorKind::Outage),
        (None, TenantState::Active) => refused(KeyErrorKind::StalePlacement),
    }
}

#[cfg(test)]
mod tests {
    use api::keys::RevokeReason;

    use super::*;

    const TENANT: TenantId = TenantId([7; 16]);
    const SENT: u64 = 1000;

    fn answer(state: TenantState, lease: Option<u64>) -> Answer {
        Answer {
            tenant: TENANT,
            lease: lease.map(LeaseId),
            remaining_ms: 45,
            epoch: 1,
            kek_id: None,
            active_kek: KekVersion(1),
            lowest_kek: KekVersion(1),
            state,
        }
    }

    fn grant(server: usize, lease: u64) -> Grant {
        Grant {
            server,
            lease: LeaseId(lease),
            epoch: 1,
            kek: KekVersion(1),
            deadline_ms: SENT + 45,
        }
    }

    #[test]
    fn one_verdict_out_of_what_keymanagers_say() {
        use TenantState::{Active, Revoked, Unknown, Unverified};
        let (yes, cut_off) = (answer(Active, Some(1)), answer(Unverified, Some(2)));
        let (over, young) = (answer(Unverified, None), answer(Unknown, None));
        let (stale, no) = (
            answer(Active, None),
            answer(Revoked(RevokeReason::Disabled), None),
        );
        let refused = |kind| {
            Err(KeyError::Refused {
                tenant: TENANT,
                kind,
            })
        };
        let revoked = Err(KeyError::Revoked {
            tenant: TENANT,
            reason: RevokeReason::Disabled,
        });
        let silent = Err(KeyError::Unreachable {
            tenant: TENANT,
            detail: "silence".to_owned(),
        });
        // What each keymanager says in its turn, how many are asked, and the verdict.
        let cases = [
            (vec![Some(&yes), Some(&no)], 1, Ok(grant(0, 1))),
            (vec![Some(&no), Some(&yes)], 1, revoked.clone()),
            (vec![Some(&cut_off), Some(&yes)], 2, Ok(grant(1, 1))),
            (vec![Some(&cut_off), Some(&no)], 2, revoked),
            (vec![Some(&cut_off), None], 2, Ok(grant(0, 2))),
            (vec![None, Some(&yes)], 2, Ok(grant(1, 1))),
            (vec![Some(&over), None], 2, refused(KeyErrorKind::Outage)),
            (vec![Some(&young)], 1, refused(KeyErrorKind::NotKnownYet)),
            (vec![Some(&stale)], 1, refused(KeyErrorKind::StalePlacement)),
            (vec![None, None], 2, silent),
        ];
        for (case, (said, asks, wanted)) in cases.into_iter().enumerate() {
            let mut verdicts = Verdicts::of([TENANT]);
            let mut asked = 0;
            for (server, said) in said.into_iter().enumerate() {
                if verdicts.open().is_empty() {
                    break;
                }
                asked += 1;
                match said {
                    Some(answer) => _ = verdicts.heard(server, SENT, answer),
                    None => verdicts.silent("silence".to_owned()),
                }
            }
            assert_eq!(asked, asks, "case {case}");
            assert_eq!(verdicts.conclude()[&TENANT], wanted, "case {case}");
        }
    }

    #[test]
    fn an_answer_about_others_is_not_heard() {
        let mut verdicts = Verdicts::of([TenantId([8; 16])]);
        assert!(!verdicts.heard(0, SENT, &answer(TenantState::Active, Some(1))));
        assert_eq!(verdicts.open().len(), 1);
    }

    #[test]
    fn a_keymanager_that_has_yet_to_ask_the_kms_is_asked_again() {
        let error = granted(0, 0, &answer(TenantState::Unknown, None)).unwrap_err();
        assert_eq!(error.grade(), api::Grade::KeyUnavailable);
        assert!(error.leaves_running(), "a lease of another one goes on");
        assert!(error.to_string().contains("yet"), "{error}");
    }
}
