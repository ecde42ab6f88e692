//! The configuration of a keymanager, and the keymanager that it describes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ids::{KekVersion, TenantId};
use serde::Deserialize;
use service::listen::Listen;
use service::token::Verifier;
use store::names::Cell;
use store::{Bucket, BucketConfig, ProbeError};

use super::{Keymanager, Tenant};
use crate::kek::{KekDocuments, KekRing, Provider};
use crate::kms::Kms;
use crate::kms::aws::{AwsKey, AwsKms};
use crate::kms::local::LocalKms;
use crate::ledger::Ledger;
use crate::request::Requests;
use crate::timings::Timings;

/// How often a bucket that does not answer is asked at the start, and the wait in between.
const BUCKET_ATTEMPTS: u32 = 30;
const BUCKET_AGAIN: Duration = Duration::from_secs(1);

/// The configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where nodes ask.
    pub listen: Listen,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`. Without it only this machine can ask.
    pub identity: Option<PathBuf>,
    /// The public key of tokens. With it nodes have to show one that allows the tenant (K4), and
    /// operators one of the scope `admin` (K7); without it who reaches this process is believed.
    pub token_key: Option<PathBuf>,
    /// Where the KEK documents are.
    pub bucket: BucketConfig,
    /// The cell there.
    pub cell: String,
    /// The file of the audit ledger.
    pub ledger: PathBuf,
    /// The tenants.
    #[serde(default)]
    pub tenants: Vec<TenantConfig>,
    /// Times other than the usual ones.
    #[serde(default)]
    pub timings: TimingsConfig,
}

/// One tenant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// Which.
    pub id: TenantId,
    /// The directory of its local KMS; or `aws`.
    pub local_kms: Option<PathBuf>,
    /// Its key in AWS KMS; or `local_kms`.
    pub aws: Option<AwsKey>,
    /// The lowest KEK version that is accepted (K10).
    #[serde(default = "first")]
    pub lowest_kek: KekVersion,
}

const fn first() -> KekVersion {
    KekVersion(1)
}

/// Times in milliseconds; what is not given is as in KEYS.md.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimingsConfig {
    probe_ms: Option<u64>,
    lease_ms: Option<u64>,
    strike_ms: Option<u64>,
    grace_ms: Option<u64>,
    heal_ms: Option<u64>,
    backoff_min_ms: Option<u64>,
    backoff_max_ms: Option<u64>,
}

impl From<&TimingsConfig> for Timings {
    fn from(config: &TimingsConfig) -> Self {
        let usual = Self::default();
        let time = |ms: Option<u64>, usual| ms.map_or(usual, Duration::from_millis);
        Self {
            probe: time(config.probe_ms, usual.probe),
            lease: time(config.lease_ms, usual.lease),
            strike: time(config.strike_ms, usual.strike),
            grace: time(config.grace_ms, usual.grace),
            heal: time(config.heal_ms, usual.heal),
            backoff_min: time(config.backoff_min_ms, usual.backoff_min),
            backoff_max: time(config.backoff_max_ms, usual.backoff_max),
            ..usual
        }
    }
}

impl Config {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// Whatever cannot be opened, by its name.
    pub async fn open(&self) -> anyhow::Result<Arc<Keymanager>> {
        anyhow::ensure!(
            self.identity.is_some() || !self.listen.beyond_loopback,
            "data keys leave this machine only under mutual TLS: set identity"
        );
        locked::begin()?;
        let bucket = Bucket::open(&self.bucket)?;
        probe(&bucket).await.context("the bucket is refused")?;
        let cell = Cell::new(&self.cell)?;
        let ledger = Ledger::open(&self.ledger)
            .with_context(|| format!("cannot use {}", self.ledger.display()))?;
        let timings = Timings::from(&self.timings);
        let mut tenants = Vec::new();
        for tenant in &self.tenants {
            let (provider, kms) = tenant.kms(&timings).await?;
            let documents = KekDocuments::new(bucket.clone(), cell.clone(), kms, provider);
            let ring = KekRing::new(documents);
            let (id, lowest) = (tenant.id, tenant.lowest_kek);
            let requests = Requests::new(bucket.clone(), &cell, id);
            tenants.push(Tenant::new(id, lowest, ring, requests, timings.clone()));
        }
        let verifier = self.token_key.as_ref().map(Verifier::load).transpose()?;
        Ok(Keymanager::new(tenants, ledger, verifier))
    }
}

/// D4: two keymanagers write KEK documents. A bucket that does not answer yet is asked again for a
/// while, since what starts together does not come up together.
async fn probe(bucket: &Bucket) -> Result<(), ProbeError> {
    for _ in 0..BUCKET_ATTEMPTS {
        match bucket.probe().await {
            Err(ProbeError::Unavailable(why)) => {
                tracing::warn!(error = why, "the bucket does not answer");
                tokio::time::sleep(BUCKET_AGAIN).await;
            }
            probed => return probed,
        }
    }
    bucket.probe().await
}

impl TenantConfig {
    async fn kms(&self, timings: &Timings) -> anyhow::Result<(Provider, Arc<dyn Kms>)> {
        let provider = |kind: &str, key: String| Provider {
            kind: kind.to_owned(),
            key,
        };
        match (&self.local_kms, &self.aws) {
            (Some(directory), None) => {
                let provider = provider("local", directory.display().to_string());
                Ok((provider, Arc::new(LocalKms::new(directory))))
            }
            (None, Some(key)) => {
                // Shorter than a strike: the probe is still there to read the answer.
                let kms = AwsKms::open(key, timings.strike * 4 / 5).await?;
                Ok((provider("aws", key.key.clone()), Arc::new(kms)))
            }
            _ => anyhow::bail!("tenant {}: name one of local_kms and aws", self.id),
        }
    }
}
