//! The opcodes of every resource manager, by the names that `pg_waldump` gives them.

use super::rmgr;
use crate::PgMajor;

/// The name of the kind of a record, `None` where that version has no such kind: of a custom
/// resource manager nobody but its extension knows the kinds.
#[must_use]
pub fn op_name(version: PgMajor, rmid: u8, info: u8) -> Option<&'static str> {
    let op = usize::from(info >> 4);
    let name = match (rmid, op) {
        (rmgr::XLOG, 0xE) if version < PgMajor::V17 => "",
        (rmgr::DBASE, op) if version < PgMajor::V15 => *DBASE_BEFORE_15.get(op)?,
        (rmgr::HEAP2, 1..=3) if version < PgMajor::V17 => *HEAP2_BEFORE_17.get(op)?,
        _ => *OPS.get(usize::from(rmid))?.get(op)?,
    };
    (!name.is_empty()).then_some(name)
}

const DBASE_BEFORE_15: [&str; 2] = ["CREATE", "DROP"];
const HEAP2_BEFORE_17: [&str; 4] = ["", "PRUNE", "VACUUM", "FREEZE_PAGE"];

/// By resource manager, then by the high four bits of `info`; of 17 and 18.
const OPS: [&[&str]; 22] = [
    &[
        "CHECKPOINT_SHUTDOWN",
        "CHECKPOINT_ONLINE",
        "NOOP",
        "NEXTOID",
        "SWITCH",
        "BACKUP_END",
        "PARAMETER_CHANGE",
        "RESTORE_POINT",
        "FPW_CHANGE",
        "END_OF_RECOVERY",
        "FPI_FOR_HINT",
        "FPI",
        "",
        "OVERWRITE_CONTRECORD",
        "CHECKPOINT_REDO",
    ],
    // The highest bit says that `xinfo` follows.
    &[
        "COMMIT",
        "PREPARE",
        "ABORT",
        "COMMIT_PREPARED",
        "ABORT_PREPARED",
        "ASSIGNMENT",
        "INVALIDATION",
        "",
        "COMMIT",
        "",
        "ABORT",
        "COMMIT_PREPARED",
        "ABORT_PREPARED",
    ],
    &["", "CREATE", "TRUNCATE"],
    &["ZEROPAGE", "TRUNCATE"],
    &["CREATE_FILE_COPY", "CREATE_WAL_LOG", "DROP"],
    &["CREATE", "DROP"],
    &["ZERO_OFF_PAGE", "ZERO_MEM_PAGE", "CREATE_ID", "TRUNCATE_ID"],
    &["UPDATE"],
    &["LOCK", "RUNNING_XACTS", "INVALIDATIONS"],
    // The highest bit of both heap managers says that the page is made anew.
    &[
        "REWRITE",
        "PRUNE_ON_ACCESS",
        "PRUNE_VACUUM_SCAN",
        "PRUNE_VACUUM_CLEANUP",
        "VISIBLE",
        "MULTI_INSERT",
        "LOCK_UPDATED",
        "NEW_CID",
        "",
        "",
        "",
        "",
        "",
        "MULTI_INSERT+INIT",
    ],
    &[
        "INSERT",
        "DELETE",
        "UPDATE",
        "TRUNCATE",
        "HOT_UPDATE",
        "HEAP_CONFIRM",
        "LOCK",
        "INPLACE",
        "INSERT+INIT",
        "",
        "UPDATE+INIT",
        "",
        "HOT_UPDATE+INIT",
    ],
    &[
        "INSERT_LEAF",
        "INSERT_UPPER",
        "INSERT_META",
        "SPLIT_L",
        "SPLIT_R",
        "INSERT_POST",
        "DEDUP",
        "DELETE",
        "UNLINK_PAGE",
        "UNLINK_PAGE_META",
        "NEWROOT",
        "MARK_PAGE_HALFDEAD",
        "VACUUM",
        "REUSE_PAGE",
        "META_CLEANUP",
    ],
    &[
        "INIT_META_PAGE",
        "INIT_BITMAP_PAGE",
        "INSERT",
        "ADD_OVFL_PAGE",
        "SPLIT_ALLOCATE_PAGE",
        "SPLIT_PAGE",
        "SPLIT_COMPLETE",
        "MOVE_PAGE_CONTENTS",
        "SQUEEZE_PAGE",
        "DELETE",
        "SPLIT_CLEANUP",
        "UPDATE_META_PAGE",
        "VACUUM_ONE_PAGE",
    ],
    &[
        "",
        "CREATE_PTREE",
        "INSERT",
        "SPLIT",
        "VACUUM_PAGE",
        "DELETE_PAGE",
        "UPDATE_META_PAGE",
        "INSERT_LISTPAGE",
        "DELETE_LISTPAGE",
        "VACUUM_DATA_LEAF_PAGE",
    ],
    &[
        "PAGE_UPDATE",
        "DELETE",
        "PAGE_REUSE",
        "PAGE_SPLIT",
        "",
        "",
        "PAGE_DELETE",
        "ASSIGN_LSN",
    ],
    &["LOG"],
    &[
        "",
        "ADD_LEAF",
        "MOVE_LEAFS",
        "ADD_NODE",
        "SPLIT_TUPLE",
        "PICKSPLIT",
        "VACUUM_LEAF",
        "VACUUM_ROOT",
        "VACUUM_REDIRECT",
    ],
    // The highest bit says that the page is made anew.
    &[
        "CREATE_INDEX",
        "INSERT",
        "UPDATE",
        "SAMEPAGE_UPDATE",
        "REVMAP_EXTEND",
        "DESUMMARIZE",
        "",
        "",
        "",
        "INSERT+INIT",
        "UPDATE+INIT",
    ],
    &["ZEROPAGE", "TRUNCATE"],
    &["SET", "DROP"],
    &["Generic"],
    &["MESSAGE"],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_those_of_the_version() {
        let name = |version, rmid, info| op_name(version, rmid, info);
        assert_eq!(name(PgMajor::V14, rmgr::DBASE, 0x10), Some("DROP"));
        assert_eq!(name(PgMajor::V14, rmgr::DBASE, 0x20), None);
        assert_eq!(
            name(PgMajor::V15, rmgr::DBASE, 0x10),
            Some("CREATE_WAL_LOG")
        );
        assert_eq!(name(PgMajor::V16, rmgr::HEAP2, 0x22), Some("VACUUM"));
        assert_eq!(
            name(PgMajor::V17, rmgr::HEAP2, 0x22),
            Some("PRUNE_VACUUM_SCAN")
        );
        assert_eq!(name(PgMajor::V16, rmgr::XLOG, 0xE0), None);
        assert_eq!(
            name(PgMajor::V17, rmgr::XLOG, 0xE0),
            Some("CHECKPOINT_REDO")
        );
        assert_eq!(name(PgMajor::V18, rmgr::GIN, 0x00), None);
        assert_eq!(name(PgMajor::V18, rmgr::SEQ, 0x10), None);
        for rmid in [22, 127, rmgr::CUSTOM_MIN, rmgr::NEON, 255] {
            assert_eq!(name(PgMajor::V18, rmid, 0), None);
        }
    }
}
