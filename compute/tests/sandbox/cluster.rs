//! A stock cluster, and the base backup that a pageserver would make of it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use api::timeline::{BACKUP_MEMBER, Backup};
use pg::control::ControlFile;
use pg::datadir::wal_segment_name;
use pg::wal::{Decoder, WalShape};

pub(crate) const BIN: &str = "/usr/lib/postgresql/15/bin";
pub(crate) const PASSWORD: &str = "not a secret";

pub(crate) struct Cluster {
    home: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Cluster {
    /// initdb as user `postgres`.
    pub(crate) fn new() -> Self {
        let open = std::fs::Permissions::from_mode(0o777);
        let temporary = tempfile::Builder::new()
            .permissions(open)
            .tempdir()
            .unwrap();
        let home = temporary.path().to_owned();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(home.join("password"), PASSWORD).unwrap();
        let made = Command::new("runuser")
            .args(["-u", "postgres", "--"])
            .arg(format!("{BIN}/initdb"))
            .args(["--no-sync", "--username=postgres", "--auth=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(home.join("stock"))
            .arg("--pwfile")
            .arg(home.join("password"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self {
            home,
            _temporary: Some(temporary),
        }
    }

    /// The one that another process made.
    pub(crate) fn at(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            _temporary: None,
        }
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// An archive as `fullbackup` answers it, as of the end of the cluster's WAL.
    pub(crate) fn backup(&self) -> Vec<u8> {
        let data = self.home.join("stock");
        let control = std::fs::read(data.join("global/pg_control")).unwrap();
        let control = ControlFile::parse(&control).unwrap();
        let shape = WalShape {
            version: control.version(),
            segment_bytes: control.segment_bytes(),
            system_id: control.system_id(),
            tli: 1,
        };
        let last = control.checkpoint_lsn();
        let segment = wal_segment_name(1, last, shape.segment_bytes);
        let wal = std::fs::read(data.join("pg_wal").join(segment)).unwrap();
        let mut decoder = Decoder::new(shape, last);
        decoder.feed(&wal[last.segment_offset(shape.segment_bytes) as usize..]);
        let (_, end, _) = decoder.next().unwrap().unwrap();
        let description = Backup {
            lsn: end,
            previous_record: last,
            pg_major: 15,
            system_id: shape.system_id,
            wal_segment_bytes: shape.segment_bytes,
            checkpoint: hex::encode(control.checkpoint().encode()),
        };
        let description = serde_json::to_vec(&description).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(description.len() as u64);
        header.set_mode(0o600);
        builder
            .append_data(&mut header, BACKUP_MEMBER, &description[..])
            .unwrap();
        builder.append_dir_all("", data).unwrap();
        builder.into_inner().unwrap()
    }
}
