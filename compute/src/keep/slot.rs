//! What the state of a replication slot says (`ReplicationSlotOnDisk`, versions 2 to 5).

use ids::Lsn;

const MAGIC: u32 = 0x0105_1CA1;
const DATABASE: usize = 80;
const PERSISTENCY: usize = 84;
const RESTART: usize = 96;
const PERSISTENT: u32 = 0;

/// A logical slot that outlives its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The first WAL that it needs.
    pub(super) restart: Lsn,
}

/// `None` for what is no state, and for slots that are not kept: physical ones, those of a session,
/// those that are being made, and those that have lost their WAL.
pub(super) fn read(state: &[u8]) -> Option<Slot> {
    let word = |at: usize| {
        let bytes = state.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let kept = word(0)? == MAGIC && word(DATABASE)? != 0 && word(PERSISTENCY)? == PERSISTENT;
    let restart = Lsn(u64::from_le_bytes(*state.get(RESTART..)?.first_chunk()?));
    (kept && restart != Lsn::INVALID).then_some(Slot { restart })
}

#[cfg(test)]
pub(super) fn state(database: u32, persistency: u32, restart: u64) -> Vec<u8> {
    let mut state = vec![0; 200];
    state[..4].copy_from_slice(&MAGIC.to_le_bytes());
    state[DATABASE..DATABASE + 4].copy_from_slice(&database.to_le_bytes());
    state[PERSISTENCY..PERSISTENCY + 4].copy_from_slice(&persistency.to_le_bytes());
    state[RESTART..RESTART + 8].copy_from_slice(&restart.to_le_bytes());
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logical_slots_that_outlive_their_session_are_kept() {
        let restart = Lsn(0x0100_0028);
        assert_eq!(read(&state(5, 0, restart.0)), Some(Slot { restart }));
        assert_eq!(read(&state(0, 0, restart.0)), None, "physical");
        assert_eq!(read(&state(5, 1, restart.0)), None, "being made");
        assert_eq!(read(&state(5, 2, restart.0)), None, "temporary");
        assert_eq!(read(&state(5, 0, 0)), None, "its WAL is lost");
        let whole = state(5, 0, restart.0);
        for cut in 0..104 {
            assert_eq!(read(&whole[..cut]), None);
        }
    }
}
