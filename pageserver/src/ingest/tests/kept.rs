//! Files that PostgreSQL does not log (C7).

use pg::kept::{FILE_BYTES_MAX, FILES_MAX, ORIGIN, PREFIX};

use super::*;

const SETTINGS: &str = "postgresql.auto.conf";

/// A message as `pg_logical_emit_message` writes it in a session with this origin.
fn message(origin: Option<u16>, prefix: &str, content: &[u8]) -> Bytes {
    let mut main = words(&[5, 1]);
    main.extend((prefix.len() as u64 + 1).to_le_bytes());
    main.extend((content.len() as u64).to_le_bytes());
    main.extend([prefix.as_bytes(), b"\0", content].concat());
    let mut body = Vec::new();
    if let Some(origin) = origin {
        body.push(253);
        body.extend(origin.to_le_bytes());
    }
    body.push(254);
    body.extend(words(&[main.len() as u32]));
    body.extend(main);
    let mut header = pg::wal::RecordHeader {
        total_bytes: 24 + body.len() as u32,
        xid: 700,
        prev: Lsn(0x10),
        info: 0,
        rmid: rmgr::LOGICALMSG,
        crc: 0,
    };
    let mut record = [&header.encode()[..], &body].concat();
    header.crc = pg::wal::record_crc(&record).unwrap();
    record[..24].copy_from_slice(&header.encode());
    record.into()
}

fn kept(ingest: &mut Ingest, path: &str, content: &[u8]) -> Result<Vec<(Key, Value)>, IngestError> {
    let content = hex::encode(content);
    let record = message(Some(ORIGIN), &format!("{PREFIX}{path}"), content.as_bytes());
    let out = ingest.ingest(Lsn(0x100), Lsn(0x180), &record)?.values;
    let files = out
        .into_iter()
        .filter(|(key, _)| matches!(key.kind(), Some(KeyKind::AuxFiles | KeyKind::AuxFile(_))));
    Ok(files.collect())
}

fn listed(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[test]
fn a_file_is_listed_once_replaced_and_removed() {
    let mut ingest = with(&[]);
    let (list, file) = (Key::new(KeyKind::AuxFiles), Key::new(KeyKind::AuxFile(0)));
    let out = kept(&mut ingest, SETTINGS, b"work_mem = '8MB'").unwrap();
    assert_eq!(out[0], (list, Value::ListAdd(listed(0))));
    let Value::Image(content) = &out[1].1 else {
        unreachable!("{out:?}")
    };
    let (path, content) = super::super::kept::decode(content).unwrap();
    assert_eq!(
        (path.as_str(), &content[..]),
        (SETTINGS, &b"work_mem = '8MB'"[..])
    );

    let slot = kept(&mut ingest, "pg_replslot/s/state", b"x").unwrap();
    assert_eq!(slot[0], (list, Value::ListAdd(listed(1))));
    let again = kept(&mut ingest, SETTINGS, b"y").unwrap();
    assert!(matches!(&again[..], [(key, Value::Image(_))] if *key == file));

    let gone = kept(&mut ingest, SETTINGS, b"").unwrap();
    let removed = (list, Value::ListRemove(listed(0)));
    assert_eq!(gone, [removed, (file, Value::Gone)]);
    assert_eq!(kept(&mut ingest, SETTINGS, b"").unwrap(), []);
    assert_eq!(ingest.directory().kept.len(), 1);
}

#[test]
fn messages_of_others_and_other_paths_are_passed_over() {
    let mut ingest = with(&[]);
    let prefix = format!("{PREFIX}{SETTINGS}");
    for (origin, prefix) in [
        (None, prefix.as_str()),
        (Some(1), prefix.as_str()),
        (Some(ORIGIN), "outbox"),
        (Some(ORIGIN), "redoubt/file/../postgresql.auto.conf"),
        (Some(ORIGIN), "redoubt/file//etc/passwd"),
        (Some(ORIGIN), "redoubt/file/global/pg_control"),
    ] {
        let record = message(origin, prefix, b"x");
        ingest.ingest(Lsn(0x100), Lsn(0x180), &record).unwrap();
        assert!(ingest.directory().kept.is_empty(), "{origin:?} {prefix}");
    }
}

#[test]
fn what_is_kept_is_bounded_and_beyond_it_ingest_stops_by_name() {
    let mut ingest = with(&[]);
    let longest = vec![b'x'; FILE_BYTES_MAX];
    kept(&mut ingest, SETTINGS, &longest).unwrap();
    let longer = vec![b'x'; FILE_BYTES_MAX + 1];
    let error = kept(&mut ingest.clone(), SETTINGS, &longer).unwrap_err();
    assert!(error.to_string().contains(SETTINGS), "{error}");
    let garbled = message(Some(ORIGIN), &format!("{PREFIX}{SETTINGS}"), b"0g");
    let error = ingest.clone().ingest(Lsn(0x100), Lsn(0x180), &garbled);
    assert!(error.unwrap_err().to_string().contains("hexadecimal"));
    for number in 1..FILES_MAX {
        let path = format!("pg_replslot/s{number}/state");
        kept(&mut ingest, &path, b"x").unwrap();
    }
    let error = kept(&mut ingest.clone(), "pg_replslot/one_more/state", b"x").unwrap_err();
    assert!(error.to_string().contains("one_more"), "{error}");
    kept(&mut ingest, SETTINGS, b"there before").unwrap();
}

#[test]
fn a_damaged_file_is_none() {
    for bytes in [
        &b""[..],
        b"\x05",
        b"\xff\xffab",
        b"\x03\0abc",
        b"\x01\0\xff",
    ] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert_eq!(super::super::kept::decode(&bytes), None, "{bytes:?}");
    }
}
