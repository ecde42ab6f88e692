//! Writes a payload as `pg_waldump` of its version does, cache invalidations left out.

use ids::RelTag;
use pg::PgMajor;
use pg::datadir::relation_path;
use pg::rmgr::{
    ClogRecord, CommitTsRecord, DatabaseRecord, DroppedStats, Finish, MultiXactRecord,
    OriginRecord, Outcome, Payload, Prepare, RelFile, StandbyRecord, StorageRecord,
    TablespaceRecord, XactRecord, XlogRecord, xinfo_bits,
};
use pg::wal::Record;

const WAL_LEVELS: [&str; 3] = ["minimal", "replica", "logical"];

/// The description in a line of `pg_waldump`.
pub(super) fn expected(line: &str) -> String {
    let text = &line[line.find("desc: ").unwrap() + 6..];
    let text = &text[..text.find(", blkref").unwrap_or(text.len())];
    text.split("; ")
        .filter(|part| !part.starts_with("inval msgs:") && !part.starts_with("relcache init file"))
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("; ")
}

/// The description of what was read; `None` where all is in the blocks.
pub(super) fn of(version: PgMajor, record: &Record, payload: &Payload) -> Option<String> {
    Some(match payload {
        Payload::Pages | Payload::Custom => return None,
        Payload::Xlog(read) => xlog(version, record, read),
        Payload::Xact(XactRecord::Finish(read)) => finish(version, record, read),
        Payload::Xact(XactRecord::Prepare(read)) => prepare(version, read),
        Payload::Xact(XactRecord::Assignment { top, subxacts }) => {
            format!("ASSIGNMENT xtop {top}: subxacts:{}", numbers(subxacts))
        }
        Payload::Xact(XactRecord::Invalidations) => "INVALIDATION".to_owned(),
        Payload::Storage(StorageRecord::Create(rel)) => {
            format!("CREATE {}", path(version, *rel))
        }
        Payload::Storage(StorageRecord::Truncate {
            file,
            blocks,
            flags,
        }) => format!(
            "TRUNCATE{} to {blocks} blocks flags {flags}",
            paths(version, &[*file])
        ),
        Payload::Clog(ClogRecord::ZeroPage(page)) => format!("ZEROPAGE page {page}"),
        Payload::CommitTs(CommitTsRecord::ZeroPage(page)) => format!("ZEROPAGE {page}"),
        Payload::Database(read) => database(version, read),
        Payload::Tablespace(TablespaceRecord::Create { spc, path }) => {
            format!("CREATE {spc} \"{}\"", String::from_utf8_lossy(path))
        }
        Payload::Tablespace(TablespaceRecord::Drop { spc }) => format!("DROP {spc}"),
        Payload::MultiXact(read) => multixact(read),
        Payload::Relmap(read) => format!(
            "UPDATE database {} tablespace {} size {}",
            read.db,
            read.spc,
            read.map.as_bytes().len()
        ),
        Payload::Standby(read) => standby(read),
        Payload::Origin(OriginRecord::Set { origin, lsn, force }) => {
            format!("SET set {origin}; lsn {lsn}; force: {}", u8::from(*force))
        }
        Payload::Origin(OriginRecord::Drop { origin }) => format!("DROP drop {origin}"),
        Payload::LogicalMessage(read) => {
            let hex: Vec<_> = read.message.iter().map(|b| format!("{b:02X}")).collect();
            format!(
                "MESSAGE {}transactional, prefix \"{}\"; payload ({} bytes): {}",
                if read.transactional { "" } else { "non-" },
                String::from_utf8_lossy(&read.prefix),
                read.message.len(),
                hex.join(" ")
            )
        }
        Payload::Clog(_) | Payload::CommitTs(_) => format!("not in the workload: {payload:?}"),
    })
}

fn numbers(numbers: &[u32]) -> String {
    numbers.iter().map(|number| format!(" {number}")).collect()
}

/// The path of a fork, in tablespaces too.
fn path(version: PgMajor, rel: RelTag) -> String {
    relation_path(rel, 0).unwrap_or_else(|| {
        let (major, catalog) = (version.number(), version.catalog_version());
        let RelTag { spc, db, rel, fork } = rel;
        let suffix = fork.suffix();
        format!("pg_tblspc/{spc}/PG_{major}_{catalog}/{db}/{rel}{suffix}")
    })
}

fn paths(version: PgMajor, files: &[RelFile]) -> String {
    files
        .iter()
        .map(|file| path(version, file.fork(ids::Fork::Main)))
        .map(|path| format!(" {path}"))
        .collect()
}

fn stats(stats: &[DroppedStats]) -> String {
    stats
        .iter()
        .map(|stats| format!(" {}/{}/{}", stats.kind, stats.db, stats.object))
        .collect()
}

/// A part of a description, left out where there is nothing to list.
fn part(name: &str, list: &str) -> String {
    if list.is_empty() {
        return String::new();
    }
    format!("; {name}:{list}")
}

/// Microseconds since 2000 as a date and time of UTC.
fn time(micros: i64) -> String {
    let (mut days, mut year) = (micros.div_euclid(86_400_000_000), 2000);
    let micros = micros.rem_euclid(86_400_000_000);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year}-{month:02}-{:02} {hours:02}:{minutes:02}:{seconds:02}.{micros:06} UTC",
        days + 1
    )
}

fn finish(version: PgMajor, record: &Record, read: &Finish) -> String {
    let op = match read.outcome {
        Outcome::Commit => "COMMIT",
        Outcome::Abort => "ABORT",
    };
    let prepared = if read.was_prepared {
        format!("_PREPARED {}:", read.xid)
    } else {
        String::new()
    };
    let sync = if read.xinfo & xinfo_bits::FORCE_SYNC != 0 {
        "; sync"
    } else {
        ""
    };
    let origin = read.origin.map_or_else(String::new, |origin| {
        format!(
            "; origin: node {}, lsn {}, at {}",
            record.origin.unwrap(),
            origin.lsn,
            time(origin.time)
        )
    });
    format!(
        "{op}{prepared} {}{}{}{}{sync}{origin}",
        time(read.time),
        part("rels", &paths(version, &read.dropped)),
        part("subxacts", &numbers(&read.subxacts)),
        part("dropped stats", &stats(&read.dropped_stats)),
    )
}

fn prepare(version: PgMajor, read: &Prepare) -> String {
    format!(
        "PREPARE gid {}: {}{}{}{}{}{}",
        String::from_utf8_lossy(&read.gid),
        time(read.time),
        part("rels(commit)", &paths(version, &read.commit_drops)),
        part("rels(abort)", &paths(version, &read.abort_drops)),
        part("commit dropped stats", &stats(&read.commit_stats)),
        part("abort dropped stats", &stats(&read.abort_stats)),
        part("subxacts", &numbers(&read.subxacts)),
    )
}

fn database(version: PgMajor, read: &DatabaseRecord) -> String {
    match read {
        DatabaseRecord::CreateFileCopy {
            db,
            spc,
            from_db,
            from_spc,
        } => {
            let op = if version < PgMajor::V15 {
                "CREATE"
            } else {
                "CREATE_FILE_COPY"
            };
            format!("{op} copy dir {from_spc}/{from_db} to {spc}/{db}")
        }
        DatabaseRecord::CreateWalLog { db, spc } => {
            format!("CREATE_WAL_LOG create dir {spc}/{db}")
        }
        DatabaseRecord::Drop { db, spcs } => {
            let dirs: String = spcs.iter().map(|spc| format!(" {spc}/{db}")).collect();
            format!("DROP dir{dirs}")
        }
    }
}

fn multixact(read: &MultiXactRecord) -> String {
    match read {
        MultiXactRecord::ZeroOffsetsPage(page) => format!("ZERO_OFF_PAGE {page}"),
        MultiXactRecord::ZeroMembersPage(page) => format!("ZERO_MEM_PAGE {page}"),
        MultiXactRecord::Create {
            multi,
            offset,
            members,
        } => {
            let names = ["keysh", "sh", "fornokeyupd", "forupd", "nokeyupd", "upd"];
            let list: String = members
                .iter()
                .map(|member| format!(" {} ({})", member.xid, names[member.status as usize]))
                .collect();
            let count = members.len();
            format!("CREATE_ID {multi} offset {offset} nmembers {count}:{list}")
        }
        MultiXactRecord::Truncate { .. } => format!("not in the workload: {read:?}"),
    }
}

fn standby(read: &StandbyRecord) -> String {
    match read {
        StandbyRecord::Locks(locks) => {
            let list: String = locks
                .iter()
                .map(|lock| format!(" xid {} db {} rel {}", lock.xid, lock.db, lock.rel))
                .collect();
            format!("LOCK{list}")
        }
        StandbyRecord::RunningXacts(read) => format!(
            "RUNNING_XACTS nextXid {} latestCompletedXid {} oldestRunningXid {}{}{}{}",
            read.next_xid,
            read.latest_completed_xid,
            read.oldest_running_xid,
            part(&format!("{} xacts", read.xids.len()), &numbers(&read.xids)),
            if read.subxids_overflowed {
                "; subxid ovf"
            } else {
                ""
            },
            part(
                &format!("{} subxacts", read.subxids.len()),
                &numbers(&read.subxids)
            ),
        ),
        StandbyRecord::Invalidations { .. } => "INVALIDATIONS".to_owned(),
    }
}

fn xlog(version: PgMajor, record: &Record, read: &XlogRecord) -> String {
    let on = |on| if on { "on" } else { "off" };
    match read {
        XlogRecord::CheckPoint {
            shutdown,
            checkpoint: c,
        } => format!(
            "CHECKPOINT_{} redo {}; tli {}; prev tli {}; fpw {};{} xid {}:{}; oid {}; multi {}; \
             offset {}; oldest xid {} in DB {}; oldest multi {} in DB {}; oldest/newest commit \
             timestamp xid: {}/{}; oldest running xid {}; {}",
            if *shutdown { "SHUTDOWN" } else { "ONLINE" },
            c.redo,
            c.tli,
            c.prev_tli,
            c.full_page_writes,
            if version < PgMajor::V17 {
                String::new()
            } else {
                format!(" wal_level {};", WAL_LEVELS[c.wal_level as usize])
            },
            c.next_xid >> 32,
            c.next_xid & 0xFFFF_FFFF,
            c.next_oid,
            c.next_multi,
            c.next_multi_offset,
            c.oldest_xid,
            c.oldest_xid_db,
            c.oldest_multi,
            c.oldest_multi_db,
            c.oldest_commit_ts_xid,
            c.newest_commit_ts_xid,
            c.oldest_active_xid,
            if *shutdown { "shutdown" } else { "online" },
        ),
        XlogRecord::NextOid(oid) => format!("NEXTOID {oid}"),
        XlogRecord::Switch => "SWITCH".to_owned(),
        XlogRecord::ParameterChange(change) => format!(
            "PARAMETER_CHANGE max_connections={} max_worker_processes={} max_wal_senders={} \
             max_prepared_xacts={} max_locks_per_xact={} wal_level={} wal_log_hints={} \
             track_commit_timestamp={}",
            change.max_connections,
            change.max_worker_processes,
            change.max_wal_senders,
            change.max_prepared_xacts,
            change.max_locks_per_xact,
            WAL_LEVELS[change.wal_level as usize],
            on(change.wal_log_hints),
            on(change.track_commit_timestamp),
        ),
        XlogRecord::RestorePoint { name, .. } => {
            format!("RESTORE_POINT {}", String::from_utf8_lossy(name))
        }
        XlogRecord::FullPageWrites(value) => format!("FPW_CHANGE {value}"),
        XlogRecord::Images if record.op() == 0xA0 => "FPI_FOR_HINT".to_owned(),
        XlogRecord::Images => "FPI".to_owned(),
        XlogRecord::BackupEnd(lsn) => format!("BACKUP_END {lsn}"),
        XlogRecord::CheckPointRedo { wal_level } => {
            format!(
                "CHECKPOINT_REDO wal_level {}",
                WAL_LEVELS[*wal_level as usize]
            )
        }
        XlogRecord::Noop
        | XlogRecord::EndOfRecovery { .. }
        | XlogRecord::OverwriteContrecord { .. } => format!("not in the workload: {read:?}"),
    }
}
