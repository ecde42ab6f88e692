//! The configuration files of the processes: what each crate's `config.rs` reads.

use std::path::{Path, PathBuf};

use api::timeline::{NodeAddress, SafekeeperSet};
use ids::{TenantId, TimelineId};
use serde::Serialize;

use super::home::{Home, make_directory, write_file};
use super::programs::{
    Kind, Program, keymanager_urls, pageserver_address, program_directory, safekeeper_set,
};
use super::system::{KmsKind, System};
use super::tokens::{TOKEN_KEY, token_file};
use crate::exit::Failure;

/// The one cell.
const CELL: &str = "dev";
/// The system user that Postgres runs as.
pub(crate) const POSTGRES_USER: &str = "redoubt";
/// Postgres's programs.
pub(crate) const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

/// The loadable module of Postgres that holds commits until the quorum has them (C2).
const GUARD: &str = "redoubt_guard.so";

/// Writes the configuration of a process.
pub(crate) fn write(home: &Home, system: &System, program: &Program) -> Result<(), Failure> {
    let text = render(home, system, program)?;
    let path = home.config(&program.name);
    make_directory(&home.root.join("config"), 0o755)?;
    write_file(&path, text.as_bytes(), 0o644)
}

/// The configuration of a process, as TOML.
pub(crate) fn render(home: &Home, system: &System, program: &Program) -> Result<String, Failure> {
    let rendered = match program.kind {
        Kind::Keymanager => toml::to_string(&keymanager(home, system, program)),
        Kind::Safekeeper | Kind::Pageserver => toml::to_string(&storage(home, system, program)?),
        Kind::Compute => toml::to_string(&compute(home, system, program)?),
    };
    rendered.map_err(Failure::bug)
}

#[derive(Serialize)]
struct Keymanager {
    identity: PathBuf,
    token_key: PathBuf,
    cell: &'static str,
    ledger: PathBuf,
    listen: Listen,
    bucket: Bucket,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    tenants: [Tenant; 1],
}

#[derive(Serialize)]
struct Listen {
    addr: String,
}

#[derive(Serialize)]
struct Tenant {
    id: TenantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_kms: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws: Option<Aws>,
}

#[derive(Serialize)]
struct Aws {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
}

/// What is not said is as usual.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Timings {
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strike_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heal_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff_max_ms: Option<u64>,
}

/// A drill in seconds. The lease outlives several renewals, so that a busy machine ends none.
const FAST: Timings = Timings {
    probe_ms: Some(1000),
    lease_ms: Some(10_000),
    strike_ms: Some(500),
    grace_ms: Some(120_000),
    heal_ms: Some(1000),
    backoff_max_ms: Some(1000),
};
/// Between two renewals, where leases are as short as [`FAST`] says.
const FAST_RENEW_MS: u64 = 1000;
/// For a drain, likewise.
const FAST_DRAIN_MS: u64 = 1000;

fn timings(system: &System) -> Option<Timings> {
    let usual = if system.fast_keys {
        FAST
    } else {
        Timings::default()
    };
    let grace = system.key_grace.map(|seconds| u64::from(seconds) * 1000);
    let timings = Timings {
        grace_ms: grace.or(usual.grace_ms),
        ..usual
    };
    (timings != Timings::default()).then_some(timings)
}

#[derive(Serialize)]
struct Bucket {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
}

fn bucket(home: &Home, system: &System) -> Bucket {
    let local = || format!("file://{}", home.bucket().display());
    Bucket {
        url: system.bucket.url.clone().unwrap_or_else(local),
        endpoint: system.bucket.endpoint.clone(),
    }
}

fn keymanager(home: &Home, system: &System, program: &Program) -> Keymanager {
    let (local_kms, aws) = match &system.kms {
        KmsKind::Local => (Some(home.kms()), None),
        KmsKind::Aws { key, endpoint } => {
            let (key, endpoint) = (key.clone(), endpoint.clone());
            (None, Some(Aws { key, endpoint }))
        }
    };
    Keymanager {
        identity: home.identity(&program.name),
        token_key: home.token(TOKEN_KEY),
        cell: CELL,
        ledger: home.data(&program.name).join("ledger"),
        listen: Listen {
            addr: format!("127.0.0.1:{}", program.http),
        },
        bucket: bucket(home, system),
        timings: timings(system),
        tenants: [Tenant {
            id: system.tenant,
            local_kms,
            aws,
        }],
    }
}

/// Safekeepers and pageservers are set alike.
#[derive(Serialize)]
struct Storage {
    node_id: u64,
    listen: String,
    http: String,
    data_directory: PathBuf,
    cell: &'static str,
    identity: PathBuf,
    token_key: PathBuf,
    token: PathBuf,
    keymanagers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_renew_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_drain_ms: Option<u64>,
    bucket: Bucket,
}

fn storage(home: &Home, system: &System, program: &Program) -> Result<Storage, Failure> {
    Ok(Storage {
        node_id: program.node,
        listen: libpq(program),
        http: format!("127.0.0.1:{}", program.http),
        data_directory: home.data(&program.name),
        cell: CELL,
        identity: home.identity(&program.name),
        token_key: home.token(TOKEN_KEY),
        token: home.token(&token_file(program)),
        keymanagers: keymanager_urls(system)?,
        lease_renew_ms: system.fast_keys.then_some(FAST_RENEW_MS),
        lease_drain_ms: system.fast_keys.then_some(FAST_DRAIN_MS),
        bucket: bucket(home, system),
    })
}

#[derive(Serialize)]
struct Compute {
    node_id: u64,
    tenant: TenantId,
    timeline: TimelineId,
    endpoint_epoch: u64,
    pg_major: u32,
    listen: String,
    http: String,
    directory: PathBuf,
    identity: PathBuf,
    token: PathBuf,
    keymanagers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_renew_ms: Option<u64>,
    postgres_bin: &'static str,
    guard: PathBuf,
    user: &'static str,
    pageserver: NodeAddress,
    safekeepers: SafekeeperSet,
}

fn compute(home: &Home, system: &System, program: &Program) -> Result<Compute, Failure> {
    let branch = program.branch.as_ref();
    let branch = branch.ok_or_else(|| Failure::bug("a compute without a branch"))?;
    Ok(Compute {
        node_id: program.node,
        tenant: system.tenant,
        timeline: branch.timeline,
        endpoint_epoch: branch.starts,
        pg_major: 15,
        listen: libpq(program),
        http: format!("127.0.0.1:{}", program.http),
        directory: home.data(&program.name),
        identity: home.identity(&program.name),
        token: home.token(&token_file(program)),
        keymanagers: keymanager_urls(system)?,
        lease_renew_ms: system.fast_keys.then_some(FAST_RENEW_MS),
        postgres_bin: POSTGRES_BIN,
        guard: home.guard(),
        user: POSTGRES_USER,
        pageserver: pageserver_address(system)?,
        safekeepers: safekeeper_set(system)?,
    })
}

/// Copies the module of Postgres into the system: inside a compute's sandbox other places, /tmp
/// among them, may not be there.
pub(crate) fn copy_guard(home: &Home, system: &System) -> Result<(), Failure> {
    let from = match &system.guard {
        Some(path) => path.clone(),
        None => guard_file(&program_directory()?),
    };
    let module = std::fs::read(&from).map_err(|error| {
        Failure::fix(format_args!(
            "cannot read {}: {error}; build it with `make build`, or name it by --guard",
            from.display()
        ))
    })?;
    let to = home.guard();
    if std::fs::read(&to).is_ok_and(|there| there == module) {
        return Ok(());
    }
    make_directory(&home.root.join("lib"), 0o755)?;
    write_file(&to, &module, 0o644)
}

/// The module of Postgres: beside the programs, or where a build in the checkout leaves it.
fn guard_file(programs: &Path) -> PathBuf {
    let beside = programs.join(GUARD);
    let checkout = programs
        .ancestors()
        .nth(2)
        .map(|top| top.join("compute/guard").join(GUARD));
    match checkout {
        Some(built) if !beside.is_file() && built.is_file() => built,
        _ => beside,
    }
}

fn libpq(program: &Program) -> String {
    format!("127.0.0.1:{}", program.libpq.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::programs::{all, named};
    use crate::local::system::BucketAt;

    fn rendered(system: &System, name: &str) -> toml::Table {
        let home = Home {
            root: PathBuf::from("/home/x"),
        };
        let program = named(system, name).unwrap();
        render(&home, system, &program).unwrap().parse().unwrap()
    }

    #[test]
    fn every_file_is_toml_and_names_its_own_identity() {
        let system = System::new().unwrap();
        for program in all(&system).unwrap() {
            let table = rendered(&system, &program.name);
            let identity = table["identity"].as_str().unwrap();
            assert_eq!(identity, format!("/home/x/identity/{}", program.name));
        }
    }

    #[test]
    fn storage_nodes_know_bucket_keymanagers_and_tokens() {
        let mut system = System::new().unwrap();
        system.keymanagers = 2;
        system.bucket = BucketAt {
            url: Some("s3://dev".to_owned()),
            endpoint: Some("http://127.0.0.1:9000".to_owned()),
        };
        for name in ["safekeeper-2", "pageserver-1"] {
            let table = rendered(&system, name);
            assert_eq!(table["bucket"]["url"].as_str(), Some("s3://dev"));
            assert_eq!(table["keymanagers"].as_array().unwrap().len(), 2);
            assert_eq!(
                table["token_key"].as_str(),
                Some("/home/x/tokens/public.pem")
            );
            let token = format!("/home/x/tokens/{name}.jwt");
            assert_eq!(table["token"].as_str(), Some(token.as_str()), "K4");
            assert!(!table.contains_key("lease_renew_ms"));
        }
        assert_eq!(
            rendered(&system, "safekeeper-2")["node_id"].as_integer(),
            Some(2)
        );
    }

    #[test]
    fn a_compute_gets_a_token_of_its_own_and_no_bucket() {
        let system = System::new().unwrap();
        let table = rendered(&system, "compute-main");
        assert_eq!(
            table["token"].as_str(),
            Some("/home/x/tokens/compute-main.jwt")
        );
        assert!(!table.contains_key("bucket"));
        let members = table["safekeepers"]["members"].as_array().unwrap();
        assert_eq!(members.len(), 3);
        assert_eq!(members[2]["libpq"].as_str(), Some("127.0.0.1:5456"));
        assert_eq!(
            table["pageserver"]["http"].as_str(),
            Some("https://127.0.0.1:9898")
        );
    }

    #[test]
    fn every_start_of_a_compute_has_an_epoch_of_its_own() {
        let mut system = System::new().unwrap();
        system.add_branch("other", Some("main"), None).unwrap();
        let epoch = |system: &System, name| rendered(system, name)["endpoint_epoch"].as_integer();
        assert_eq!(epoch(&system, "compute-main"), Some(0));
        system.count_start("main");
        system.count_start("main");
        assert_eq!(epoch(&system, "compute-main"), Some(2), "C1");
        assert_eq!(epoch(&system, "compute-other"), Some(0));
    }

    #[test]
    fn the_guard_is_found_beside_the_programs_and_in_a_checkout() {
        let checkout = tempfile::tempdir().unwrap();
        let programs = checkout.path().join("target/debug");
        let built = checkout.path().join("compute/guard");
        for directory in [&programs, &built] {
            std::fs::create_dir_all(directory).unwrap();
        }
        assert_eq!(guard_file(&programs), programs.join(GUARD));
        std::fs::write(built.join(GUARD), "").unwrap();
        assert_eq!(guard_file(&programs), built.join(GUARD));
        std::fs::write(programs.join(GUARD), "").unwrap();
        assert_eq!(guard_file(&programs), programs.join(GUARD));
    }

    #[test]
    fn the_master_key_is_of_the_kind_that_was_asked_for() {
        let mut system = System::new().unwrap();
        let tenant = |system: &System| {
            let table = rendered(system, "keymanager-1");
            table["tenants"].as_array().unwrap()[0]
                .as_table()
                .unwrap()
                .clone()
        };
        assert_eq!(tenant(&system)["local_kms"].as_str(), Some("/home/x/kms"));
        system.kms = KmsKind::Aws {
            key: "arn:aws:kms:x".to_owned(),
            endpoint: None,
        };
        assert!(!tenant(&system).contains_key("local_kms"));
        assert_eq!(
            tenant(&system)["aws"]["key"].as_str(),
            Some("arn:aws:kms:x")
        );
    }

    #[test]
    fn times_of_keys_are_usual_unless_something_else_is_said() {
        let mut system = System::new().unwrap();
        assert!(!rendered(&system, "keymanager-1").contains_key("timings"));
        assert!(!rendered(&system, "compute-main").contains_key("lease_renew_ms"));
        system.key_grace = Some(7);
        let table = rendered(&system, "keymanager-1");
        assert_eq!(table["timings"]["grace_ms"].as_integer(), Some(7000));
        assert_eq!(table["timings"].as_table().unwrap().len(), 1);
        system.fast_keys = true;
        let table = rendered(&system, "keymanager-1");
        assert_eq!(table["timings"]["grace_ms"].as_integer(), Some(7000));
        let lease = table["timings"]["lease_ms"].as_integer().unwrap();
        let renew = rendered(&system, "compute-main")["lease_renew_ms"].as_integer();
        assert!(lease < 45_000 && renew.unwrap() * 5 < lease);
    }
}
