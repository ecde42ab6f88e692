//! Asking the processes of a local system over HTTP, as their operator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{Client, ClientError};
use reqwest::{Certificate, Identity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::home::{Home, read_text};
use super::identity::OPERATOR;
use super::tokens::ADMIN_TOKEN;
use crate::exit::Failure;

/// A page of text is asked for this long.
const TEXT: Duration = Duration::from_secs(5);

/// Chooses the TLS provider; idempotent.
pub(crate) fn init() {
    // An error says that one is installed already: by an earlier call of this function.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Who asks.
pub(crate) struct Operator {
    runtime: Runtime,
    identity: PathBuf,
    token: String,
    text: reqwest::Client,
}

impl Operator {
    /// The operator of the system in `home`.
    pub(crate) fn of(home: &Home) -> Result<Self, Failure> {
        init();
        let identity = home.identity(OPERATOR);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::doing("start a runtime"))?;
        Ok(Self {
            runtime,
            token: read_text(&home.token(ADMIN_TOKEN))?,
            text: text_client(&identity)?,
            identity,
        })
    }

    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        base: &str,
        path: &str,
    ) -> Result<T, ClientError> {
        let client = self.client(base)?;
        self.runtime.block_on(client.get(path))
    }

    pub(crate) fn put<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        base: &str,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let client = self.client(base)?;
        self.runtime.block_on(client.put(path, body))
    }

    pub(crate) fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        base: &str,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let client = self.client(base)?;
        self.runtime.block_on(client.post(path, body))
    }

    /// A page of text: metrics, readiness. An error is one sentence.
    pub(crate) fn text(&self, base: &str, path: &str) -> Result<String, String> {
        let ask = async {
            let answer = self.text.get(format!("{base}{path}")).send().await?;
            Ok((answer.status(), answer.text().await?))
        };
        let asked: Result<_, reqwest::Error> = self.runtime.block_on(ask);
        match asked {
            Ok((status, text)) if status.is_success() => Ok(text),
            Ok((status, text)) => Err(refusal(&text).unwrap_or_else(|| status.to_string())),
            Err(error) if error.is_connect() => Err("does not listen".to_owned()),
            Err(error) if error.is_timeout() => Err("does not answer in time".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether a process can do its work, or why not.
    pub(crate) fn ready(&self, base: &str) -> Result<(), String> {
        self.text(base, "/ready").map(drop)
    }

    fn client(&self, base: &str) -> Result<Client, ClientError> {
        let client = Client::new(base, Some(&self.identity))?;
        Ok(client.with_token(self.token.clone()))
    }
}

/// What a refusal of ours says.
fn refusal(text: &str) -> Option<String> {
    let body: api::ErrorBody = serde_json::from_str(text).ok()?;
    Some(body.to_string())
}

fn text_client(directory: &Path) -> Result<reqwest::Client, Failure> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|error| Failure::reading(&path, &error))
    };
    let mut own = read("key.pem")?;
    own.push(b'\n');
    own.extend_from_slice(&read("cert.pem")?);
    let ca = Certificate::from_pem(&read("ca.pem")?).map_err(Failure::fix)?;
    reqwest::Client::builder()
        .no_proxy()
        .timeout(TEXT)
        .tls_certs_only([ca])
        .identity(Identity::from_pem(&own).map_err(Failure::fix)?)
        .build()
        .map_err(Failure::bug)
}

/// The sum of a metric over its labels; none where it is not there.
pub(crate) fn metric(page: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = page
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labelled) => labelled.rsplit_once('}')?.1,
                None => rest.starts_with(' ').then_some(rest)?,
            };
            value.split_whitespace().next()?.parse().ok()
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_told_from_longer_names() {
        let page = "# HELP held x\n# TYPE held gauge\nheld{tenant=\"a b}c\"} 2\nheld{} 3\n\
                    held_total 99\nfree 0\n";
        assert_eq!(metric(page, "held"), Some(5.0));
        assert_eq!(metric(page, "free"), Some(0.0));
        assert_eq!(metric(page, "lost"), None);
    }
}
