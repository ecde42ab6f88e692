//! Files that PostgreSQL does not log: the agent writes them into WAL as messages (C7).
//!
//! The content of a key is `length of the path 2 | path | content of the file`, little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ids::KeyKind;
use pg::kept::{FILE_BYTES_MAX, FILES_MAX, KeptPath, ORIGIN};
use pg::rmgr::LogicalMessage;
use pg::wal::Record;

use super::{Changes, Ingest, Reason};
use crate::value::Value;

impl Ingest {
    /// A message of the agent, in hexadecimal, replaces a file, or removes it where it is empty. Those of others,
    /// whatever they call themselves, and of paths that are not kept say nothing.
    pub(super) fn keep(
        &mut self,
        record: &Record,
        message: &LogicalMessage,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        if record.origin != Some(ORIGIN) {
            return Ok(());
        }
        let Some(path) = KeptPath::of_prefix(&message.prefix) else {
            return Ok(());
        };
        let kept = &mut self.directory.kept;
        let known = kept.get(&path).copied();
        if message.message.is_empty() {
            if let Some(number) = known {
                kept.remove(&path);
                out.put(KeyKind::AuxFiles, Value::ListRemove(item(number)));
                out.put(KeyKind::AuxFile(number), Value::Gone);
            }
            return Ok(());
        }
        let Ok(file) = hex::decode(&message.message) else {
            return Err(Reason::GarbledFile(path));
        };
        let bytes = file.len();
        if bytes > FILE_BYTES_MAX {
            return Err(Reason::LongFile { path, bytes });
        }
        let number = match known {
            Some(number) => number,
            None if kept.len() >= FILES_MAX => return Err(Reason::ManyFiles(path)),
            None => {
                let number = kept.values().max().map_or(0, |last| last.wrapping_add(1));
                out.put(KeyKind::AuxFiles, Value::ListAdd(item(number)));
                number
            }
        };
        let content = encode(&path, &file);
        out.put(KeyKind::AuxFile(number), Value::Image(content));
        self.directory.kept.insert(path, number);
        Ok(())
    }
}

fn item(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn encode(path: &KeptPath, content: &[u8]) -> Bytes {
    let path = path.as_str().as_bytes();
    let mut bytes = BytesMut::with_capacity(2 + path.len() + content.len());
    bytes.put_u16_le(path.len() as u16); // a path that is kept is far shorter
    bytes.put_slice(path);
    bytes.put_slice(content);
    bytes.freeze()
}

/// The path and the content of a file that is kept.
pub(crate) fn decode(file: &Bytes) -> Option<(KeptPath, Bytes)> {
    let mut content = file.clone();
    let length = usize::from(content.try_get_u16_le().ok()?);
    if length > content.len() {
        return None;
    }
    let path = content.split_to(length);
    Some((KeptPath::new(std::str::from_utf8(&path).ok()?)?, content))
}
