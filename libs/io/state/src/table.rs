//! Tables share one key space: a key is the table's name, a zero, and the encoded key.

use std::marker::PhantomData;

/// Keys of a table. The order of the encodings is the order of scans.
pub trait TableKey: Sized {
    /// Appends the encoding.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads it back; `None` where the bytes are no key.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl TableKey for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl<const N: usize> TableKey for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

impl TableKey for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl TableKey for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// A table whose keys are `K` and whose values are opaque here.
#[derive(Debug)]
pub struct Table<K> {
    name: &'static str,
    key: PhantomData<fn() -> K>,
}

impl<K: TableKey> Table<K> {
    /// The table `name`, which has no zero byte in it; the name may never change.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(!name.is_empty(), "a table has a name");
        let bytes = name.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            assert!(
                bytes[at] != 0,
                "zero ends a name: another table would show in this one"
            );
            at += 1;
        }
        Self {
            name,
            key: PhantomData,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn prefix(&self) -> Vec<u8> {
        [self.name.as_bytes(), &[0]].concat()
    }

    pub(crate) fn full_key(&self, key: &K) -> Vec<u8> {
        let mut full = self.prefix();
        key.encode(&mut full);
        full
    }
}

pub(crate) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

/// Changes that are committed together.
#[derive(Default)]
pub struct Batch(pub(crate) Vec<Change>);

impl Batch {
    /// Without changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value.
    pub fn put<K: TableKey>(&mut self, table: &Table<K>, key: &K, value: &[u8]) -> &mut Self {
        self.0
            .push(Change::Put(table.full_key(key), value.to_vec()));
        self
    }

    /// Removes a value.
    pub fn delete<K: TableKey>(&mut self, table: &Table<K>, key: &K) -> &mut Self {
        self.0.push(Change::Delete(table.full_key(key)));
        self
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
