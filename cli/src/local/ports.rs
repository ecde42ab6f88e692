//! The ports of a local system: those of DESIGN, moved by an offset.

use crate::exit::Failure;

/// Computes that one local system has room for: ports of one kind stay apart from the others'.
pub(crate) const COMPUTES: u16 = 200;

/// Debian's own cluster, which is neither made nor touched.
const DEBIAN: u16 = 5432;
/// Ports below are the operating system's.
const LOWEST: u32 = 1024;

/// Where the processes listen, on loopback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    offset: u16,
}

impl Ports {
    /// The usual ports, each moved by `offset`; what leaves the range comes in again below. Two
    /// ports never meet: the move is the same for all.
    pub(crate) fn new(offset: u16) -> Result<Self, Failure> {
        let ports = Self { offset };
        let storage = (1..=9).flat_map(|n| {
            [
                ports.keymanager(n),
                ports.safekeeper(n),
                ports.safekeeper_http(n),
            ]
        });
        let computes = (0..COMPUTES).flat_map(|n| [ports.compute(n), ports.compute_http(n)]);
        let mut all = storage
            .chain([ports.pageserver(), ports.pageserver_http()])
            .chain(computes);
        if all.any(|port| port == DEBIAN) {
            return Err(Failure::fix(format_args!(
                "--port-offset {offset} moves a port to {DEBIAN}, which is Debian's: take another"
            )));
        }
        Ok(ports)
    }

    pub(crate) fn keymanager(self, number: u16) -> u16 {
        self.moved(7800 + number - 1)
    }

    pub(crate) fn safekeeper(self, number: u16) -> u16 {
        self.moved(5454 + number - 1)
    }

    pub(crate) fn safekeeper_http(self, number: u16) -> u16 {
        self.moved(7676 + number - 1)
    }

    pub(crate) fn pageserver(self) -> u16 {
        self.moved(64000)
    }

    pub(crate) fn pageserver_http(self) -> u16 {
        self.moved(9898)
    }

    pub(crate) fn compute(self, ordinal: u16) -> u16 {
        self.moved(55432 + ordinal)
    }

    pub(crate) fn compute_http(self, ordinal: u16) -> u16 {
        self.moved(56500 + ordinal)
    }

    fn moved(self, port: u16) -> u16 {
        let moved = u32::from(port) + u32::from(self.offset);
        let room = u32::from(u16::MAX) + 1 - LOWEST;
        let within = if moved > u32::from(u16::MAX) {
            (moved - LOWEST) % room + LOWEST
        } else {
            moved
        };
        u16::try_from(within).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_offset_they_are_the_documented_ones() {
        let ports = Ports::new(0).unwrap();
        assert_eq!(ports.keymanager(1), 7800);
        assert_eq!(
            (ports.safekeeper(3), ports.safekeeper_http(3)),
            (5456, 7678)
        );
        assert_eq!((ports.pageserver(), ports.pageserver_http()), (64000, 9898));
        assert_eq!((ports.compute(0), ports.compute(1)), (55432, 55433));
    }

    #[test]
    fn an_offset_keeps_every_port_in_range_and_apart() {
        let ports = Ports::new(12000).unwrap();
        assert_eq!(ports.pageserver(), 11488);
        assert_eq!(ports.compute(0), 2920);
        for offset in (12000..13000).step_by(200) {
            assert!(Ports::new(offset).is_ok(), "{offset}");
        }
    }

    #[test]
    fn no_offset_lands_on_debians_cluster() {
        // 5454 + 65536 - 1024 - 22 comes in again at 5432.
        let refused = Ports::new(64490).err();
        assert!(refused.is_some_and(|failure| failure.code() == 2));
    }
}
