//! A line of `pg_waldump`, without the description of the payload.

use ids::{Fork, Lsn};
use pg::wal::{Record, rmgr};

/// What a record looks like there.
pub(super) fn of(record: &Record, total: usize) -> String {
    let blocks: String = record
        .blocks
        .iter()
        .map(|block| {
            let rel = block.rel;
            let fork = match rel.fork {
                Fork::Main => "",
                Fork::Fsm => " fork fsm",
                Fork::Vm => " fork vm",
                Fork::Init => " fork init",
            };
            let image = if block.applied_image().is_some() {
                " FPW"
            } else {
                ""
            };
            format!(
                " blkref #{}: rel {}/{}/{}{fork} blk {}{image}",
                block.id, rel.spc, rel.db, rel.rel, block.blkno
            )
        })
        .collect();
    format!(
        "{} {total} {} {} {}{blocks}",
        rmgr::name(record.rmid),
        record.xid,
        record.start,
        record.prev
    )
}

/// The same parts out of the line.
pub(super) fn expected(line: &str) -> String {
    let between = |from: &str, to: &str| {
        let rest = &line[line.find(from).unwrap() + from.len()..];
        rest[..rest.find(to).unwrap()].trim().to_owned()
    };
    let lsn = |text: String| text.parse::<Lsn>().unwrap();
    let length = between("len (rec/tot):", ", tx");
    let total = length.split('/').nth(1).unwrap().trim().to_owned();
    let blocks: String = line
        .match_indices("blkref #")
        .map(|(at, _)| {
            let part = &line[at..];
            let end = part.find(", blkref").unwrap_or(part.len());
            format!(" {}", part[..end].trim_end())
        })
        .collect();
    format!(
        "{} {total} {} {} {}{blocks}",
        between("rmgr: ", " len"),
        between("tx:", ","),
        lsn(between("lsn: ", ",")),
        lsn(between("prev ", ","))
    )
}

/// The kind of the record.
pub(super) fn kind(line: &str) -> Option<&str> {
    let (_, description) = line.split_once("desc: ")?;
    description.split([' ', ',']).next()
}
