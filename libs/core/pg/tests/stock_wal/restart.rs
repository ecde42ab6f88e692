//! A stock server starts from a clean shutdown that was made here, as a compute does.

use std::fs;

use ids::Lsn;
use pg::control::ControlFile;
use pg::datadir::wal_segment_name;
use pg::wal::{WalShape, segment_prefix, shutdown_checkpoint};
use stock::Scene;

/// Replaces all WAL behind the record that begins and ends there by a made shutdown, and starts.
pub(super) fn check(scene: &Scene, control: &ControlFile, (last, end): (Lsn, Lsn)) {
    let shape = WalShape {
        version: control.version(),
        segment_bytes: control.segment_bytes(),
        system_id: control.system_id(),
        tli: 1,
    };
    let (laid, checkpoint) = shutdown_checkpoint(&shape, end, last, &control.checkpoint());
    let mut wal = [segment_prefix(&shape, end), laid.bytes].concat();
    wal.resize(wal.len().next_multiple_of(shape.segment_bytes as usize), 0);
    let mut made = control.clone();
    made.set_shutdown(laid.start, &checkpoint);

    // The server's user takes them over: the files in its directory are its own.
    scene.run("rm -r data/pg_wal/0*");
    fs::write(scene.at().join("control"), made.as_bytes()).unwrap();
    scene.run("cp control data/global/pg_control");
    let mut at = end;
    for segment in wal.chunks(shape.segment_bytes as usize) {
        fs::write(scene.at().join("segment"), segment).unwrap();
        let name = wal_segment_name(1, at, shape.segment_bytes);
        scene.run(&format!("cp segment data/pg_wal/{name}"));
        at = at + shape.segment_bytes;
    }
    if control.version() >= pg::PgMajor::V17 {
        // `DIRECTORIES` has it not: this is why.
        scene.run("rmdir data/pg_wal/summaries");
    }
    let redo = scene.control("data", "Latest checkpoint's REDO location");
    assert_eq!(redo.parse::<Lsn>().unwrap(), laid.start);
    scene.start("data", "");
    assert_eq!(scene.psql("SELECT count(*) FROM a").trim(), "102");
    let prepared = scene.psql("SELECT gid FROM pg_prepared_xacts");
    assert_eq!(prepared.trim(), "kept");
    scene.stop("data", "fast");
    let log = fs::read_to_string(scene.at().join("data.log")).unwrap();
    assert!(
        !log.contains("recovery") && log.contains("was shut down at"),
        "{log}"
    );
}
