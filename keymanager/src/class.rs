//! What an error of a KMS means (KEYS.md, part 3), one table per provider.

use api::keys::RevokeReason;

/// What an error of a KMS means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The customer withholds the key.
    Refused {
        /// How.
        reason: RevokeReason,
        /// Counts without a second strike (K8).
        at_once: bool,
    },
    /// The KMS cannot be asked.
    Outage,
    /// Our own credentials or clock: we are paged, serving treats it as an outage.
    OurFault,
    /// This ciphertext does not open; says nothing about the key.
    BrokenBlob,
}

impl ErrorClass {
    /// One word, for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Outage => "outage",
            Self::OurFault => "our_fault",
            Self::BrokenBlob => "broken_blob",
        }
    }
}

const fn strike(reason: RevokeReason) -> ErrorClass {
    ErrorClass::Refused {
        reason,
        at_once: false,
    }
}

const DISABLED: ErrorClass = ErrorClass::Refused {
    reason: RevokeReason::Disabled,
    at_once: true,
};

/// AWS KMS, by error code. An unknown code is an outage: it must never fence a tenant by itself.
#[must_use]
pub fn aws(code: &str) -> ErrorClass {
    match code {
        "DisabledException" => DISABLED,
        "KMSInvalidStateException" => strike(RevokeReason::PendingDeletion),
        "NotFoundException" => strike(RevokeReason::NotFound),
        "AccessDeniedException" | "AccessDenied" => strike(RevokeReason::AccessDenied),
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired" => ErrorClass::OurFault,
        "InvalidCiphertextException"
        | "IncorrectKeyException"
        | "InvalidKeyUsageException"
        | "InvalidGrantTokenException" => ErrorClass::BrokenBlob,
        _ => ErrorClass::Outage,
    }
}

/// Azure Key Vault, by HTTP status and the inner error code.
#[must_use]
pub fn azure(status: u16, inner: &str) -> ErrorClass {
    match (status, inner) {
        (403, "KeyDisabled") => DISABLED,
        (403, "ForbiddenByPolicy" | "ForbiddenByRbac" | "ForbiddenByFirewall") => {
            strike(RevokeReason::AccessDenied)
        }
        (404, "KeyNotFound") => strike(RevokeReason::NotFound),
        (401, _) => ErrorClass::OurFault,
        (400, "BadParameter") => ErrorClass::BrokenBlob,
        _ => ErrorClass::Outage,
    }
}

/// Google Cloud KMS, by the name of the gRPC status and its message.
#[must_use]
pub fn google(status: &str, message: &str) -> ErrorClass {
    match status {
        "FAILED_PRECONDITION" if message.contains("DESTROY") => {
            strike(RevokeReason::PendingDeletion)
        }
        "FAILED_PRECONDITION" if message.contains("DISABLED") => DISABLED,
        "PERMISSION_DENIED" => strike(RevokeReason::AccessDenied),
        "NOT_FOUND" => strike(RevokeReason::NotFound),
        "UNAUTHENTICATED" => ErrorClass::OurFault,
        "INVALID_ARGUMENT" => ErrorClass::BrokenBlob,
        _ => ErrorClass::Outage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_codes_have_their_class() {
        for (code, class) in [
            ("DisabledException", DISABLED),
            (
                "KMSInvalidStateException",
                strike(RevokeReason::PendingDeletion),
            ),
            ("NotFoundException", strike(RevokeReason::NotFound)),
            ("AccessDeniedException", strike(RevokeReason::AccessDenied)),
            ("ThrottlingException", ErrorClass::Outage),
            ("KeyUnavailableException", ErrorClass::Outage),
            ("DependencyTimeoutException", ErrorClass::Outage),
            ("KMSInternalException", ErrorClass::Outage),
            ("never heard of", ErrorClass::Outage),
            ("UnrecognizedClientException", ErrorClass::OurFault),
            ("InvalidCiphertextException", ErrorClass::BrokenBlob),
            ("IncorrectKeyException", ErrorClass::BrokenBlob),
        ] {
            assert_eq!(aws(code), class, "{code}");
        }
    }

    #[test]
    fn azure_answers_have_their_class() {
        for (status, inner, class) in [
            (403, "KeyDisabled", DISABLED),
            (403, "ForbiddenByRbac", strike(RevokeReason::AccessDenied)),
            (404, "KeyNotFound", strike(RevokeReason::NotFound)),
            (404, "", ErrorClass::Outage),
            (429, "", ErrorClass::Outage),
            (503, "", ErrorClass::Outage),
            (401, "", ErrorClass::OurFault),
            (400, "BadParameter", ErrorClass::BrokenBlob),
        ] {
            assert_eq!(azure(status, inner), class, "{status} {inner}");
        }
    }

    #[test]
    fn google_statuses_have_their_class() {
        let off = "key is not enabled, current state is: DISABLED";
        let gone = "key is not enabled, current state is: DESTROY_SCHEDULED";
        for (status, message, class) in [
            ("FAILED_PRECONDITION", off, DISABLED),
            (
                "FAILED_PRECONDITION",
                gone,
                strike(RevokeReason::PendingDeletion),
            ),
            ("FAILED_PRECONDITION", "other", ErrorClass::Outage),
            ("PERMISSION_DENIED", "", strike(RevokeReason::AccessDenied)),
            ("NOT_FOUND", "", strike(RevokeReason::NotFound)),
            ("RESOURCE_EXHAUSTED", "", ErrorClass::Outage),
            ("UNAUTHENTICATED", "", ErrorClass::OurFault),
            ("INVALID_ARGUMENT", "", ErrorClass::BrokenBlob),
        ] {
            assert_eq!(google(status, message), class, "{status} {message}");
        }
    }
}
