//! The agent's configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use api::Client;
use api::timeline::{NodeAddress, SafekeeperSet};
use ids::{NodeId, TenantId, TimelineId};
use serde::Deserialize;

use crate::postgres::settings;

/// Some heartbeats long.
const QUORUM_SILENCE_MS_MIN: u64 = 3_000;

/// What the file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's id, under which it asks for its lease.
    pub node_id: u64,
    /// The project.
    pub tenant: TenantId,
    /// The branch.
    pub timeline: TimelineId,
    /// Which start of this branch's compute it is, counted by whoever starts it: an agent of a
    /// lower count gets no vote of a safekeeper that voted for a higher one (C1).
    #[serde(default)]
    pub endpoint_epoch: u64,
    /// PostgreSQL's major version.
    #[serde(default = "pg_major")]
    pub pg_major: u32,
    /// Where clients connect.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Whether `listen` may be an address that other machines reach. Clients are authenticated by
    /// PostgreSQL (SCRAM), and nothing is encrypted on the way.
    #[serde(default)]
    pub beyond_loopback: bool,
    /// Where the state is shown.
    #[serde(default = "http")]
    pub http: SocketAddr,
    /// What the agent owns: `cipher` and `inside` (the sealed disk) and `run` (sockets).
    pub directory: PathBuf,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`.
    pub identity: Option<PathBuf>,
    /// The file of a tenant-scope token, shown to safekeepers and pageserver.
    pub token: Option<PathBuf>,
    /// Who grants the lease.
    #[serde(default)]
    pub keymanagers: Vec<String>,
    /// INSECURE: runs without a lease, so that no revocation ends it.
    #[serde(default)]
    pub development: bool,
    /// INSECURE: logs PostgreSQL's own words, data of rows among them. Only with `development`.
    #[serde(default)]
    pub danger_plain_log: bool,
    /// INSECURE: runs on a machine that swaps, to a disk that may be in plain text.
    #[serde(default)]
    pub danger_swap: bool,
    /// The pageserver.
    pub pageserver: NodeAddress,
    /// The safekeepers.
    pub safekeepers: SafekeeperSet,
    /// The directory of PostgreSQL's programs.
    #[serde(default = "postgres_bin")]
    pub postgres_bin: PathBuf,
    /// The module that holds back what is not durable yet (C2): `redoubt_guard.so`.
    pub guard: PathBuf,
    /// PostgreSQL reaches what this machine reaches, services on its loopback among it; else it has
    /// no network at all (C6).
    #[serde(default)]
    pub network: bool,
    /// The system user that PostgreSQL runs as.
    #[serde(default = "user")]
    pub user: String,
    /// Between two renewals of the lease, in milliseconds (K2).
    #[serde(default = "lease_renew_ms")]
    pub lease_renew_ms: u64,
    /// How long no majority of the safekeepers may answer before PostgreSQL, which could show what
    /// another compute has changed, is ended; in milliseconds (C1).
    #[serde(default = "quorum_silence_ms")]
    pub quorum_silence_ms: u64,
    /// How many bytes of WAL the pageserver may be behind before commits wait.
    #[serde(default = "pageserver_lag_bytes_max")]
    pub pageserver_lag_bytes_max: u64,
    /// How much WAL a start brings for logical replication slots; slots that need more are given
    /// up (C7).
    #[serde(default = "slot_wal_bytes_max")]
    pub slot_wal_bytes_max: u64,
    /// Settings of PostgreSQL; those that durability hangs on are refused.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

const fn pg_major() -> u32 {
    15
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 55_432))
}

fn http() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn postgres_bin() -> PathBuf {
    PathBuf::from("/usr/lib/postgresql/15/bin")
}

const fn lease_renew_ms() -> u64 {
    10_000
}

const fn quorum_silence_ms() -> u64 {
    60_000
}

const fn pageserver_lag_bytes_max() -> u64 {
    500 << 20
}

const fn slot_wal_bytes_max() -> u64 {
    1 << 30
}

fn user() -> String {
    "redoubt".to_owned()
}

/// A configuration that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigRefused {
    /// Nobody grants a lease.
    #[error("keymanagers is empty: name them, or set development = true (insecure: no lease)")]
    NoKeymanager,
    /// Both ways at once.
    #[error("development = true runs without a lease: remove keymanagers, or development")]
    TwoWays,
    /// Nobody checks anybody.
    #[error("development = true is insecure: with it, {0} must be a loopback address")]
    BeyondLoopback(SocketAddr),
    /// The log would leave in plain text.
    #[error("danger_plain_log = true is allowed only with development = true")]
    PlainLog,
    /// A version that is not built.
    #[error("pg_major {0} is not supported yet: this build runs PostgreSQL 15")]
    Version(u32),
    /// Heartbeats are not that frequent.
    #[error("quorum_silence_ms {0} is too short: {QUORUM_SILENCE_MS_MIN} at least")]
    Silence(u64),
    /// A setting that the agent owns.
    #[error("settings.{0} is the agent's own: durability or secrecy hangs on it")]
    Setting(String),
    /// Such WAL does not say all.
    #[error("settings.wal_level is replica or logical, not {0:?}")]
    WalLevel(String),
    /// The user does not exist.
    #[error("the system user {0:?} does not exist: useradd --system {0}")]
    User(String),
    /// PostgreSQL refuses to run as root.
    #[error("PostgreSQL does not run as root: set user to another one")]
    Root,
    /// The module is not there.
    #[error("guard {0} does not exist or is not an absolute path: build it with `make guard`")]
    NoGuard(PathBuf),
    /// A program is not there.
    #[error("postgres_bin holds no {0}")]
    NoPostgres(PathBuf),
    /// The token cannot be read.
    #[error("cannot read the token {path}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Who PostgreSQL runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Config {
    /// This node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    /// Refuses what cannot work or must not.
    ///
    /// # Errors
    /// [`ConfigRefused`].
    pub fn check(&self) -> Result<(), ConfigRefused> {
        match (self.development, self.keymanagers.is_empty()) {
            (false, true) => return Err(ConfigRefused::NoKeymanager),
            (true, false) => return Err(ConfigRefused::TwoWays),
            _ => {}
        }
        for address in [self.listen, self.http] {
            if self.development && !address.ip().is_loopback() {
                return Err(ConfigRefused::BeyondLoopback(address));
            }
        }
        if self.danger_plain_log && !self.development {
            return Err(ConfigRefused::PlainLog);
        }
        if self.pg_major != 15 {
            return Err(ConfigRefused::Version(self.pg_major));
        }
        if self.quorum_silence_ms < QUORUM_SILENCE_MS_MIN {
            return Err(ConfigRefused::Silence(self.quorum_silence_ms));
        }
        let level = self.settings.get("wal_level");
        if let Some(level) = level.filter(|level| !["replica", "logical"].contains(&&***level)) {
            return Err(ConfigRefused::WalLevel(level.clone()));
        }
        match self.settings.keys().find(|name| settings::is_ours(name)) {
            Some(name) => Err(ConfigRefused::Setting(name.clone())),
            None => Ok(()),
        }
    }

    /// Checks what the configuration names on this machine.
    ///
    /// # Errors
    /// [`ConfigRefused`].
    pub fn check_machine(&self, with_guard: bool) -> Result<Owner, ConfigRefused> {
        let program = self.postgres_bin.join("postgres");
        if !program.is_file() {
            return Err(ConfigRefused::NoPostgres(program));
        }
        // C2: no module, no start.
        if with_guard && !(self.guard.is_absolute() && self.guard.is_file()) {
            return Err(ConfigRefused::NoGuard(self.guard.clone()));
        }
        let found = nix::unistd::User::from_name(&self.user).ok().flatten();
        let found = found.ok_or_else(|| ConfigRefused::User(self.user.clone()))?;
        if found.uid.is_root() {
            return Err(ConfigRefused::Root);
        }
        Ok(Owner {
            uid: found.uid.as_raw(),
            gid: found.gid.as_raw(),
        })
    }

    /// The token; empty where none is configured.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_token(&self) -> Result<String, ConfigRefused> {
        let Some(path) = &self.token else {
            return Ok(String::new());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigRefused::Token {
            path: path.clone(),
            source,
        })?;
        Ok(text.trim().to_owned())
    }

    /// A client of the pageserver.
    ///
    /// # Errors
    /// An address or an identity that cannot be used.
    pub fn pageserver_client(&self, token: &str) -> Result<Client, api::ClientError> {
        let client = Client::new(&self.pageserver.http, self.identity.as_deref())?;
        Ok(if token.is_empty() {
            client
        } else {
            client.with_token(token.to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        node_id = 9
        tenant = "00000000000000000000000000000001"
        timeline = "00000000000000000000000000000002"
        directory = "/var/lib/redoubt/compute"
        guard = "/usr/lib/redoubt/redoubt_guard.so"
        pageserver = { node = 2, libpq = "127.0.0.1:64000", http = "http://127.0.0.1:9898" }
        [safekeepers]
        generation = 1
        [[safekeepers.members]]
        node = 1
        libpq = "127.0.0.1:5454"
        http = "http://127.0.0.1:7676"
    "#;

    fn config(more: &str) -> Config {
        toml::from_str(&format!("{more}\n{MINIMAL}")).unwrap()
    }

    #[test]
    fn a_compute_has_a_lease_or_says_that_it_is_insecure() {
        assert!(matches!(
            config("").check(),
            Err(ConfigRefused::NoKeymanager)
        ));
        let leased = "keymanagers = [\"https://127.0.0.1:7800\"]";
        assert!(config(leased).check().is_ok());
        assert!(config("development = true").check().is_ok());
        let both = format!("{leased}\ndevelopment = true");
        assert!(matches!(config(&both).check(), Err(ConfigRefused::TwoWays)));
        let open = config("development = true\nlisten = \"0.0.0.0:1\"");
        assert!(matches!(
            open.check(),
            Err(ConfigRefused::BeyondLoopback(_))
        ));
        let log = config(&format!("{leased}\ndanger_plain_log = true"));
        assert!(matches!(log.check(), Err(ConfigRefused::PlainLog)));
    }

    #[test]
    fn settings_that_durability_hangs_on_are_refused() {
        for name in ["synchronous_commit", "Shared_Preload_Libraries", "fsync"] {
            let with = config(&format!(
                "development = true\nsettings = {{ {name} = \"x\" }}"
            ));
            assert!(
                matches!(with.check(), Err(ConfigRefused::Setting(_))),
                "{name}"
            );
        }
        for good in ["work_mem = \"8MB\"", "wal_level = \"logical\""] {
            let with = config(&format!("development = true\nsettings = {{ {good} }}"));
            assert!(with.check().is_ok(), "{good}");
        }
        let minimal = config("development = true\nsettings = { wal_level = \"minimal\" }");
        assert!(matches!(minimal.check(), Err(ConfigRefused::WalLevel(_))));
    }
}
