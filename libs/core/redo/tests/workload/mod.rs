//! Lets a stock server write WAL of every kind that redo knows.

use std::fs;
use std::path::{Path, PathBuf};

use ids::Lsn;
use pg::wal::{Record, decode};
use stock::wal::Wal;
use stock::{DEBIAN, Release, Scene};

const SETTINGS: &str = "-c full_page_writes=off -c wal_level=replica";
/// What a run does, beside `pgbench`.
const SCRIPTS: [&str; 8] = [
    "heap.sql",
    "heap_rare.sql",
    "btree.sql",
    "brin.sql",
    "hash.sql",
    "gin.sql",
    "gist.sql",
    "spgist.sql",
];

/// A directory with PostgreSQL's sources, `source-15` and `source-18`: their suites are run too.
const SUITES: &str = "REDOUBT_SUITES";

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
        if let Some(sources) = std::env::var_os(SUITES) {
            run_suites(&scene, &PathBuf::from(sources));
        }
        scene.bench("-i -s 1 -q");
        scene.bench("-c 4 -t 1000");
        let end = scene.insert_lsn();
        scene.stop("data", "fast");
        let wal = Wal::after(&scene, "base", "data");
        Self { scene, wal, end }
    }

    /// Reads what was written, all of it, in order: records, and their bytes.
    pub(crate) fn for_each_record(&self, mut each: impl FnMut(&Record, &[u8])) {
        let version = self.scene.release.major;
        let read = self.wal.for_each(|start, end, bytes| {
            each(&decode(version, start, end, bytes).unwrap(), bytes);
        });
        assert!(
            read >= self.end,
            "WAL was read to {read}, not to {}",
            self.end
        );
    }
}

/// Runs PostgreSQL's suites; there are none of 14, 16 and 17 themselves.
fn run_suites(scene: &Scene, sources: &Path) {
    let (of, source) = match scene.release.major.number() {
        14 | 15 => (DEBIAN, "source-15"),
        _ => ("18.6", "source-18"),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workload/suites.sh");
    fs::copy(script, scene.at().join("suites.sh")).unwrap();
    let ran = scene.run(&format!(
        "bash suites.sh {} {} {} {}",
        sources.join(source).display(),
        Release::of(of).bin.display(),
        scene.release.bin.display(),
        scene.at().display(),
    ));
    println!("{} tests of PostgreSQL's suites were run", ran.trim());
    assert!(ran.trim().parse::<u32>().unwrap() > 200);
}
