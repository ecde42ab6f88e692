//! AWS KMS. One attempt per call and a bound on its time: whether and when to ask again is for
//! the unit's own backoff to say (K8).

use std::time::Duration;

use async_trait::async_trait;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use sealed::Kek;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Context, Kms, KmsError};
use crate::class::{self, ErrorClass};

/// For the connection alone.
const CONNECT: Duration = Duration::from_secs(2);
const KEK_BYTES: i32 = 32;

/// Which key, and where. Credentials come from the environment, as the SDK's default chain finds
/// them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsKey {
    /// The key's ARN; never an alias, which can be pointed at another key.
    pub key: String,
    /// Its region; without it the ARN's.
    pub region: Option<String>,
    /// Another endpoint than AWS's own, for tests.
    pub endpoint: Option<String>,
}

/// A key that is not named by its ARN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no ARN of a key: arn:<partition>:kms:<region>:<account>:key/<id>")]
pub struct BadKey(String);

/// One key of AWS KMS.
#[derive(Debug, Clone)]
pub struct AwsKms {
    client: Client,
    key: String,
}

impl AwsKey {
    /// # Errors
    /// [`BadKey`].
    fn region(&self) -> Result<Region, BadKey> {
        let parts: Vec<&str> = self.key.split(':').collect();
        match parts.as_slice() {
            ["arn", _, "kms", region, _, id] if id.starts_with("key/") && !region.is_empty() => {
                let region = self.region.as_deref().unwrap_or(region);
                Ok(Region::new(region.to_owned()))
            }
            _ => Err(BadKey(self.key.clone())),
        }
    }
}

impl AwsKms {
    /// The key, asked with the credentials of the environment; a call takes at most `longest`.
    ///
    /// # Errors
    /// [`BadKey`].
    pub async fn open(key: &AwsKey, longest: Duration) -> Result<Self, BadKey> {
        let region = key.region()?;
        // One TLS stack: the SDK's default would bring a second provider.
        let http = Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(region);
        Ok(Self::with(&loader.load().await, key, longest))
    }

    /// As [`AwsKms::open`], with everything else from `sdk`.
    #[must_use]
    pub fn with(sdk: &SdkConfig, key: &AwsKey, longest: Duration) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT.min(longest))
            .operation_timeout(longest)
            .build();
        let mut config = aws_sdk_kms::config::Builder::from(sdk)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(endpoint) = &key.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Self {
            client: Client::from_conf(config.build()),
            key: key.key.clone(),
        }
    }
}

/// The encryption context: authenticated, and in clear in the customer's CloudTrail.
fn pairs(context: &Context) -> [(&'static str, String); 4] {
    [
        ("svc", "redoubt".to_owned()),
        ("tenant", context.tenant.to_string()),
        ("kek", context.kek.to_string()),
        ("kekver", context.version.to_string()),
    ]
}

#[async_trait]
impl Kms for AwsKms {
    async fn generate(&self, context: &Context) -> Result<Vec<u8>, KmsError> {
        let mut request = self
            .client
            .generate_data_key_without_plaintext()
            .key_id(&self.key)
            .number_of_bytes(KEK_BYTES);
        for (name, value) in pairs(context) {
            request = request.encryption_context(name, value);
        }
        let answer = request.send().await.map_err(|e| graded(&e))?;
        let wrapped = answer.ciphertext_blob.map(Blob::into_inner);
        wrapped
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| malformed("no ciphertext in the answer"))
    }

    async fn unwrap(&self, context: &Context, wrapped: &[u8]) -> Result<Kek, KmsError> {
        // Always with the key: else a ciphertext could choose which key opens it.
        let mut request = self
            .client
            .decrypt()
            .key_id(&self.key)
            .ciphertext_blob(Blob::new(wrapped));
        for (name, value) in pairs(context) {
            request = request.encryption_context(name, value);
        }
        let answer = request.send().await.map_err(|e| graded(&e))?;
        let plaintext = answer.plaintext.map(Blob::into_inner).map(Zeroizing::new);
        let bytes = plaintext.ok_or_else(|| malformed("no plaintext in the answer"))?;
        match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(kek) => Ok(Kek::from_bytes(kek)),
            Err(_) => Err(KmsError {
                class: ErrorClass::BrokenBlob,
                detail: format!("what was wrapped has {} bytes, not 32", bytes.len()),
            }),
        }
    }

    async fn describe(&self) -> Result<String, KmsError> {
        let answer = self.client.describe_key().key_id(&self.key).send().await;
        let metadata = answer.map_err(|e| graded(&e))?.key_metadata;
        let state = metadata.and_then(|metadata| metadata.key_state);
        Ok(state.map_or_else(|| "unknown".to_owned(), |state| state.as_str().to_owned()))
    }
}

/// An answer that is none says nothing of the key.
fn malformed(detail: &str) -> KmsError {
    KmsError {
        class: ErrorClass::Outage,
        detail: detail.to_owned(),
    }
}

/// KEYS.md, part 3. The codes `AccessDeniedException` and `ThrottlingException` are no variants
/// of the SDK's errors: they stand in the generic metadata alone, so all are read from there.
fn graded<E>(error: &SdkError<E>) -> KmsError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let class = match error {
        SdkError::ServiceError(answered) => {
            let code = answered.err().code().unwrap_or_default();
            let class = class::aws(code);
            let status = answered.raw().status().as_u16();
            // A refusal of the customer is an answer to a request that was understood; what a
            // server in trouble says is none, whatever its body calls itself.
            match class {
                ErrorClass::Refused { .. } if status >= 500 => ErrorClass::Outage,
                _ => class,
            }
        }
        // It did not leave: no credentials, or none that can be used.
        SdkError::ConstructionFailure(_) => ErrorClass::OurFault,
        _ => ErrorClass::Outage,
    };
    KmsError {
        class,
        detail: DisplayErrorContext(error).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str, region: Option<&str>) -> AwsKey {
        AwsKey {
            key: key.to_owned(),
            region: region.map(str::to_owned),
            endpoint: None,
        }
    }

    #[test]
    fn a_key_is_named_by_its_arn_alone() {
        let arn = "arn:aws:kms:eu-central-1:123456789012:key/abc";
        let region = |key: AwsKey| key.region().map(|region| region.to_string());
        assert_eq!(region(key(arn, None)), Ok("eu-central-1".to_owned()));
        assert_eq!(
            region(key(arn, Some("eu-west-1"))),
            Ok("eu-west-1".to_owned())
        );
        for other in [
            "abc",
            "alias/abc",
            "arn:aws:kms:eu-central-1:123456789012:alias/abc",
            "arn:aws:kms::123456789012:key/abc",
        ] {
            assert_eq!(region(key(other, None)), Err(BadKey(other.to_owned())));
        }
    }
}
