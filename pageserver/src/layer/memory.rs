//! The layer that takes new values, in memory only.
//!
//! It is lost with the process, and that is sound: the safekeepers keep the WAL that it came from
//! until the manifest names a layer file that holds the same values (D2).

use std::collections::BTreeMap;

use ids::{Key, Lsn};

use super::collect::Collected;
use crate::value::Value;

/// Values by (key, LSN).
#[derive(Debug, Default)]
pub(crate) struct MemoryLayer {
    entries: BTreeMap<(Key, Lsn), Vec<Value>>,
    bytes: usize,
}

impl MemoryLayer {
    /// Adds a value after those that the key has at this LSN.
    pub(crate) fn put(&mut self, key: Key, lsn: Lsn, value: Value) {
        self.bytes += approximate_size(&value);
        // Hardly ever more than one: room for more would be most of what is held.
        let values = self.entries.entry((key, lsn));
        let values = values.or_insert_with(|| Vec::with_capacity(1));
        if value.is_base() {
            values.clear();
        }
        values.push(value);
    }

    /// Collects what `key` held at `lsn`.
    pub(crate) fn collect(&self, key: Key, lsn: Lsn, into: &mut Collected) {
        for ((_, at), values) in self.entries.range((key, Lsn(0))..=(key, lsn)).rev() {
            if into.is_complete() {
                return;
            }
            into.push(*at, values.clone());
        }
    }

    /// Roughly, the memory that the values take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entries in the order of a layer file.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Lsn, &[Value])> {
        self.entries
            .iter()
            .map(|((key, lsn), values)| (*key, *lsn, values.as_slice()))
    }
}

/// The entry of the map, a list of one value, and the allocations of both.
const OVERHEAD_BYTES: usize = 160;

fn approximate_size(value: &Value) -> usize {
    OVERHEAD_BYTES
        + match value {
            Value::Image(bytes) | Value::ListAdd(bytes) | Value::ListRemove(bytes) => bytes.len(),
            Value::Record { record, .. } => record.len(),
            Value::Patch { bytes, .. } => bytes.len(),
            Value::ClogSet { xids, .. } => xids.len() * 4,
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ids::KeyKind;

    use super::*;

    #[test]
    fn a_read_sees_what_is_at_or_below_its_lsn_and_nothing_of_the_neighbour() {
        let mut layer = MemoryLayer::default();
        let (key, next) = (
            Key::new(KeyKind::ReplOrigin(1)),
            Key::new(KeyKind::ReplOrigin(2)),
        );
        let image = |n: u8| Value::Image(Bytes::copy_from_slice(&[n]));
        layer.put(key, Lsn(10), image(1));
        layer.put(key, Lsn(20), image(2));
        layer.put(next, Lsn(5), image(9));
        for (lsn, expected) in [(9, None), (10, Some(1)), (19, Some(1)), (20, Some(2))] {
            let mut collected = Collected::default();
            layer.collect(key, Lsn(lsn), &mut collected);
            let values = collected.into_oldest_first();
            assert_eq!(
                values.last().map(|(_, v)| v.clone()),
                expected.map(image),
                "at {lsn}"
            );
        }
    }

    #[test]
    fn the_second_value_of_a_record_is_kept_beside_the_first() {
        let mut layer = MemoryLayer::default();
        let key = Key::new(KeyKind::ReplOrigin(1));
        layer.put(key, Lsn(10), Value::Zeros);
        layer.put(
            key,
            Lsn(10),
            Value::VmClear {
                heap_block: 1,
                flags: 3,
            },
        );
        layer.put(
            key,
            Lsn(10),
            Value::VmClear {
                heap_block: 2,
                flags: 3,
            },
        );
        let mut collected = Collected::default();
        layer.collect(key, Lsn(10), &mut collected);
        assert_eq!(collected.into_oldest_first().len(), 3);
    }
}
