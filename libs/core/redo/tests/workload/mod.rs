//! Lets a stock server write WAL of every kind that redo knows.

use std::fs;
use std::path::Path;

use ids::Lsn;
use pg::wal::{Record, decode};
use stock::Scene;
use stock::wal::Wal;

const SETTINGS: &str = "-c full_page_writes=off -c wal_level=replica";
/// What a run does, beside `pgbench`.
const SCRIPTS: [&str; 6] = [
    "heap.sql",
    "brin.sql",
    "hash.sql",
    "gin.sql",
    "gist.sql",
    "spgist.sql",
];

/// What a run left behind: the data directories `base`, before it, and `data`, after it.
pub(crate) struct Run {
    pub(crate) scene: Scene,
    pub(crate) wal: Wal,
    end: Lsn,
}

impl Run {
    /// Runs the workload; `initdb`, `settings`: more of them.
    pub(crate) fn record(scene: Scene, initdb: &str, settings: &str) -> Self {
        scene.initdb(initdb);
        scene.run("cp -r data base");
        scene.start("data", &format!("{SETTINGS} {settings}"));
        for script in SCRIPTS {
            let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workload");
            fs::copy(sql.join(script), scene.at().join(script)).unwrap();
            scene.script(script, 0);
        }
        scene.bench("-i -s 1 -q");
        scene.bench("-c 4 -t 1000");
        let end = scene.insert_lsn();
        scene.stop("data", "fast");
        let wal = Wal::after(&scene, "base", "data");
        Self { scene, wal, end }
    }

    /// Reads what was written, all of it, in order.
    pub(crate) fn for_each_record(&self, mut each: impl FnMut(&Record)) {
        let version = self.scene.release.major;
        let read = self.wal.for_each(|start, end, bytes| {
            each(&decode(version, start, end, bytes).unwrap());
        });
        assert!(
            read >= self.end,
            "WAL was read to {read}, not to {}",
            self.end
        );
    }
}
