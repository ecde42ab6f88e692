//! Archives, sound and hostile.

use ids::Lsn;

use super::*;

const INIT: &str = "base/5/16384_init";

fn backup() -> Backup {
    Backup {
        lsn: Lsn(0x0200_0028),
        previous_record: Lsn(0x0200_0000),
        pg_major: 15,
        system_id: 7,
        wal_segment_bytes: 16 << 20,
        checkpoint: "00".repeat(88),
    }
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        // Set as bytes, so that hostile names pass.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn owner() -> Owner {
    Owner {
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    }
}

fn unpacked(members: &[(&str, &[u8])]) -> (tempfile::TempDir, Result<Backup, UnpackError>) {
    let directory = tempfile::tempdir().unwrap();
    let bytes = archive(members);
    let result = unpack(&bytes[..], &directory.path().join("data"), owner());
    (directory, result)
}

#[test]
fn a_backup_is_unpacked_and_unlogged_relations_are_empty() {
    let description = serde_json::to_vec(&backup()).unwrap();
    let (directory, result) = unpacked(&[
        (BACKUP_MEMBER, &description),
        ("PG_VERSION", b"15\n"),
        ("base/5/16384", b"rows of before the crash"),
        ("base/5/16384.1", b"more"),
        ("base/5/16384_fsm", b"map"),
        (INIT, b"initial"),
        ("base/5/16385", b"logged"),
        ("pg_wal/000000010000000000000001", b"old"),
    ]);
    assert_eq!(result.unwrap(), backup());
    let read = |name: &str| fs::read(directory.path().join("data").join(name)).ok();
    assert_eq!(read("PG_VERSION").unwrap(), b"15\n");
    assert_eq!(read("base/5/16384").unwrap(), b"initial");
    assert_eq!(read("base/5/16385").unwrap(), b"logged");
    for gone in [
        "base/5/16384.1",
        "base/5/16384_fsm",
        "pg_wal/000000010000000000000001",
    ] {
        assert_eq!(read(gone), None, "{gone}");
    }
    for wanted in DIRECTORIES {
        assert!(
            directory.path().join("data").join(wanted).is_dir(),
            "{wanted}"
        );
    }
}

#[test]
fn hostile_archives_are_refused() {
    let description = serde_json::to_vec(&backup()).unwrap();
    for member in [
        "../escaped",
        "/escaped",
        "base/../../escaped",
        "backup_label",
        "./standby.signal",
        "recovery.signal",
    ] {
        let (directory, result) = unpacked(&[(BACKUP_MEMBER, &description), (member, b"x")]);
        assert!(matches!(result, Err(UnpackError::Member(_))), "{member}");
        assert!(!directory.path().join("escaped").exists());
    }
    let (_, result) = unpacked(&[("PG_VERSION", b"15\n")]);
    assert!(matches!(result, Err(UnpackError::NoDescription)));
    let (_, result) = unpacked(&[(BACKUP_MEMBER, b"{}")]);
    assert!(matches!(result, Err(UnpackError::Description(_))));
    let (_, result) = unpacked(&[]);
    assert!(matches!(result, Err(UnpackError::NoDescription)));
    let cut = archive(&[(BACKUP_MEMBER, &description), ("a", &[1; 4000])]);
    let directory = tempfile::tempdir().unwrap();
    let result = unpack(&cut[..2000], &directory.path().join("data"), owner());
    assert!(matches!(result, Err(UnpackError::Io { .. })));
}

#[test]
fn what_is_packed_holds_every_file_under_its_plain_name() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    fs::create_dir(data.join("global")).unwrap();
    let holes = File::create(data.join("global/1")).unwrap();
    holes.set_len(1 << 20).unwrap();
    fs::write(data.join("PG_VERSION"), b"15\n").unwrap();
    let mut bytes = Vec::new();
    pack(data, &mut bytes).unwrap();
    let mut found = Vec::new();
    for member in Archive::new(&bytes[..]).entries().unwrap() {
        let member = member.unwrap();
        let kind = member.header().entry_type();
        found.push((
            member.path().unwrap().display().to_string(),
            kind,
            member.size(),
        ));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("PG_VERSION".to_owned(), EntryType::Regular, 3),
        ("global".to_owned(), EntryType::Directory, 0),
        ("global/1".to_owned(), EntryType::Regular, 1 << 20),
    ];
    let found: Vec<_> = found
        .into_iter()
        .map(|(n, k, s)| (n.trim_end_matches('/').to_owned(), k, s))
        .collect();
    assert_eq!(found, expected);
}
