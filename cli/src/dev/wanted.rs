//! What `redoubt dev up` is told: which system is wanted.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::exit::Failure;
use crate::local::home::Directory;
use crate::local::system::{KmsKind, System};

/// Only what is said at the first `up` counts: later ones need none of it.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) directory: Directory,
    /// An S3 bucket, s3://NAME; a local directory where nothing is said. Credentials come from
    /// the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION).
    #[arg(long, value_name = "URL")]
    bucket: Option<String>,
    /// The S3 server, where it is not AWS; and of the KMS, where --kms-endpoint names no other.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Who holds the master key.
    #[arg(long, value_enum)]
    kms: Option<Kms>,
    /// The master key in AWS KMS.
    #[arg(long, value_name = "ARN", required_if_eq("kms", "aws"))]
    key: Option<String>,
    /// The server that speaks as AWS KMS does, where it is not AWS.
    #[arg(long, value_name = "URL")]
    kms_endpoint: Option<String>,
    /// How many keymanagers; with two, the restart of one is not noticed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    keymanagers: Option<u16>,
    /// Probes and leases in seconds, so that a drill takes seconds.
    #[arg(long)]
    fast_keys: bool,
    /// How long an outage of the KMS is served.
    #[arg(long, value_name = "SECONDS")]
    key_grace: Option<u32>,
    /// Moves every port, so that several systems run beside each other.
    #[arg(long, value_name = "N")]
    port_offset: Option<u16>,
    /// The loadable module of Postgres, where it is not beside this program.
    #[arg(long, env = "REDOUBT_GUARD", value_name = "PATH")]
    guard: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Kinds of KMS.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kms {
    /// A directory of this system.
    Local,
    /// AWS KMS.
    Aws,
}

/// The system that is there, or the one that is asked for. What was decided once stays.
pub(super) fn described(options: &Options, existing: Option<System>) -> Result<System, Failure> {
    let is_new = existing.is_none();
    let mut system = match existing {
        Some(system) => system,
        None => System::new()?,
    };
    let before = system.clone();
    if let Some(offset) = options.port_offset {
        system.port_offset = offset;
    }
    if let Some(keymanagers) = options.keymanagers {
        system.keymanagers = keymanagers;
    }
    if let Some(url) = &options.bucket {
        if !url.starts_with("s3://") {
            return Err(Failure::fix(format_args!(
                "--bucket {url} is not s3://NAME"
            )));
        }
        system.bucket.url = Some(url.clone());
        system.bucket.endpoint.clone_from(&options.endpoint);
    }
    if let Some(kms) = options.kms {
        system.kms = kms_kind(options, kms)?;
    }
    if options.guard.is_some() {
        system.guard.clone_from(&options.guard);
    }
    system.fast_keys |= options.fast_keys;
    if options.key_grace.is_some() {
        system.key_grace = options.key_grace;
    }
    system.ports()?;
    let changed = before
        != System {
            guard: before.guard.clone(),
            ..system.clone()
        };
    if !is_new && changed {
        return Err(Failure::fix(
            "the local system was made with other settings, which stay: leave these flags out, \
             or remove it with `redoubt dev down --purge`, or take another --directory",
        ));
    }
    Ok(system)
}

fn kms_kind(options: &Options, kms: Kms) -> Result<KmsKind, Failure> {
    match (kms, &options.key) {
        (Kms::Local, None) => Ok(KmsKind::Local),
        (Kms::Local, Some(_)) => Err(Failure::fix("--key names a key in AWS KMS: say --kms aws")),
        (Kms::Aws, None) => Err(Failure::fix("--kms aws needs --key ARN")),
        (Kms::Aws, Some(key)) => Ok(KmsKind::Aws {
            key: key.clone(),
            endpoint: options
                .kms_endpoint
                .clone()
                .or_else(|| options.endpoint.clone()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().options
    }

    #[test]
    fn what_was_decided_once_stays() {
        let first = described(&options("--port-offset 7 --keymanagers 2"), None).unwrap();
        assert_eq!((first.port_offset, first.keymanagers), (7, 2));
        let again = described(&options(""), Some(first.clone())).unwrap();
        assert_eq!(again, first);
        let same = described(&options("--port-offset 7"), Some(first.clone())).unwrap();
        assert_eq!(same, first);
        for other in [
            "--port-offset 8",
            "--bucket s3://x",
            "--fast-keys",
            "--key-grace 1",
        ] {
            let refused = described(&options(other), Some(first.clone())).err();
            assert_eq!(refused.map(|f| f.code()), Some(2), "{other}");
        }
        let guard = described(&options("--guard /g.so"), Some(first)).unwrap();
        assert_eq!(guard.guard, Some(PathBuf::from("/g.so")));
    }

    #[test]
    fn one_endpoint_serves_bucket_and_kms_unless_two_are_named() {
        let all = "--bucket s3://b --endpoint http://s --kms aws --key k";
        let endpoint = |line: &str| match described(&options(line), None).unwrap().kms {
            KmsKind::Aws { endpoint, .. } => endpoint,
            KmsKind::Local => None,
        };
        assert_eq!(endpoint(all).as_deref(), Some("http://s"));
        let two = format!("{all} --kms-endpoint http://k");
        assert_eq!(endpoint(&two).as_deref(), Some("http://k"));
        assert!(described(&options("--bucket /x"), None).is_err());
        assert!(described(&options("--kms local --key k"), None).is_err());
    }
}
