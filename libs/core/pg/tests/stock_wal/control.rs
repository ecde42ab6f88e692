//! `pg_control` as a stock server wrote it, held to its `pg_controldata`.

use pg::control::ControlFile;
use stock::Scene;

/// Checks every field that is read here.
pub(super) fn check(scene: &Scene, control: &ControlFile) {
    let said = scene.run("pg_controldata data");
    let field = |name: &str| {
        let lines = said.lines().filter_map(|line| line.split_once(':'));
        let mut of_name = lines.filter(|(field, _)| *field == name);
        let found = of_name.next();
        assert!(found.is_some(), "no {name}: {said}");
        let (_, value) = found.unwrap();
        value.trim().to_owned()
    };
    let on = |on: bool| if on { "on" } else { "off" }.to_owned();
    let c = control.checkpoint();
    for (name, ours) in [
        (
            "Catalog version number",
            control.version().catalog_version().to_string(),
        ),
        (
            "Database system identifier",
            control.system_id().to_string(),
        ),
        (
            "Latest checkpoint location",
            control.checkpoint_lsn().to_string(),
        ),
        ("Latest checkpoint's REDO location", c.redo.to_string()),
        ("Latest checkpoint's TimeLineID", c.tli.to_string()),
        ("Latest checkpoint's PrevTimeLineID", c.prev_tli.to_string()),
        (
            "Latest checkpoint's full_page_writes",
            on(c.full_page_writes),
        ),
        (
            "Latest checkpoint's NextXID",
            format!("{}:{}", c.next_xid >> 32, c.next_xid as u32),
        ),
        ("Latest checkpoint's NextOID", c.next_oid.to_string()),
        (
            "Latest checkpoint's NextMultiXactId",
            c.next_multi.to_string(),
        ),
        (
            "Latest checkpoint's NextMultiOffset",
            c.next_multi_offset.to_string(),
        ),
        ("Latest checkpoint's oldestXID", c.oldest_xid.to_string()),
        (
            "Latest checkpoint's oldestXID's DB",
            c.oldest_xid_db.to_string(),
        ),
        (
            "Latest checkpoint's oldestActiveXID",
            c.oldest_active_xid.to_string(),
        ),
        (
            "Latest checkpoint's oldestMultiXid",
            c.oldest_multi.to_string(),
        ),
        (
            "Latest checkpoint's oldestMulti's DB",
            c.oldest_multi_db.to_string(),
        ),
        (
            "Latest checkpoint's oldestCommitTsXid",
            c.oldest_commit_ts_xid.to_string(),
        ),
        (
            "Latest checkpoint's newestCommitTsXid",
            c.newest_commit_ts_xid.to_string(),
        ),
        ("wal_log_hints setting", on(control.wal_log_hints())),
        (
            "track_commit_timestamp setting",
            on(control.track_commit_timestamp()),
        ),
        ("Bytes per WAL segment", control.segment_bytes().to_string()),
        (
            "Data page checksum version",
            control.checksum_version().to_string(),
        ),
    ] {
        let theirs = field(name);
        let same = match (theirs.parse::<ids::Lsn>(), ours.parse::<ids::Lsn>()) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            _ => theirs == ours,
        };
        assert!(same, "{name}: {theirs}, not {ours}");
    }
    let state = ["starting up", "shut down"].get(control.state() as usize);
    assert_eq!(state, Some(&field("Database cluster state").as_str()));
}
