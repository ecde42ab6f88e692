//! The tokens of a local system: the operator's, and one for each node, which says where it is
//! placed (K4).

use ids::{Generation, NodeId, TenantId};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ED25519};
use serde::Serialize;

use super::clock::UnixTime;
use super::home::{Home, make_directory, write_file};
use super::identity::key_at;
use super::programs::{Kind, Program};
use crate::exit::Failure;

/// The token file that opens everything.
pub(crate) const ADMIN_TOKEN: &str = "admin.jwt";
/// The public half of the key that tokens are signed with.
pub(crate) const TOKEN_KEY: &str = "public.pem";
const TOKEN_PRIVATE: &str = "private.pem";

/// Tokens of a development system hold this long.
const TOKEN_SECONDS: u64 = 10 * 365 * 86_400;

/// As `service::token::Claims` reads them.
#[derive(Serialize)]
struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantId>,
    scope: &'static str,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
}

#[derive(Serialize)]
struct Placement {
    node: NodeId,
    generation: Generation,
}

/// The token file of a node.
pub(crate) fn token_file(program: &Program) -> String {
    format!("{}.jwt", program.name)
}

/// Makes what is missing of the key and the tokens of the operator and of `programs`.
pub(crate) fn make(home: &Home, tenant: TenantId, programs: &[Program]) -> Result<(), Failure> {
    make_at(home, tenant, programs, UnixTime::now().seconds())
}

/// Removes the token of a node that is none any more: its number will be another one's.
pub(crate) fn forget(home: &Home, program: &Program) -> Result<(), Failure> {
    let path = home.token(&token_file(program));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::doing(
            format_args!("remove {}", path.display()),
        )(error)),
        _ => Ok(()),
    }
}

fn make_at(home: &Home, tenant: TenantId, programs: &[Program], now: u64) -> Result<(), Failure> {
    make_directory(&home.root.join("tokens"), 0o700)?;
    let key = key_at(&home.token(TOKEN_PRIVATE), || {
        KeyPair::generate_for(&PKCS_ED25519)
    })?;
    let public = key.public_key_pem();
    write_file(&home.token(TOKEN_KEY), public.as_bytes(), 0o644)?;
    let signing = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).map_err(Failure::bug)?;
    let admin = Claims {
        tenant: None,
        scope: "admin",
        exp: now + TOKEN_SECONDS,
        placement: None,
    };
    make_one(home, ADMIN_TOKEN, &admin, &signing)?;
    for program in programs {
        let (scope, tenant) = match program.kind {
            Kind::Keymanager => continue,
            Kind::Safekeeper | Kind::Pageserver => ("node", None),
            Kind::Compute => ("tenant", Some(tenant)),
        };
        let placement = Placement {
            node: NodeId(program.node),
            // A token that is made anew is of a later placement than the one before it.
            generation: Generation(u32::try_from(now).unwrap_or(u32::MAX)),
        };
        let claims = Claims {
            tenant,
            scope,
            exp: now + TOKEN_SECONDS,
            placement: Some(placement),
        };
        make_one(home, &token_file(program), &claims, &signing)?;
    }
    Ok(())
}

fn make_one(
    home: &Home,
    file: &str,
    claims: &Claims,
    signing: &EncodingKey,
) -> Result<(), Failure> {
    let path = home.token(file);
    if path.exists() {
        return Ok(());
    }
    let header = Header::new(Algorithm::EdDSA);
    let token = jsonwebtoken::encode(&header, claims, signing).map_err(Failure::bug)?;
    write_file(&path, token.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;
    use crate::local::home::read_text;
    use crate::local::programs::all;
    use crate::local::system::System;

    #[test]
    fn tokens_say_what_nodes_expect_and_a_new_one_is_of_a_later_placement() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home {
            root: directory.path().to_owned(),
        };
        let programs = all(&System::new().unwrap()).unwrap();
        let now = UnixTime::now().seconds();
        let make = |now| make_at(&home, TenantId([7; 16]), &programs, now).unwrap();
        make(now);
        let public = std::fs::read(home.token(TOKEN_KEY)).unwrap();
        let key = DecodingKey::from_ed_pem(&public).unwrap();
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.required_spec_claims = HashSet::from(["exp".to_owned()]);
        let claims = |file: &str| {
            let token = read_text(&home.token(file)).unwrap();
            jsonwebtoken::decode::<serde_json::Value>(&token, &key, &rules)
                .unwrap()
                .claims
        };
        let admin = claims(ADMIN_TOKEN);
        assert_eq!(
            (&admin["scope"], admin.get("placement")),
            (&"admin".into(), None)
        );
        let compute = claims("compute-main.jwt");
        assert_eq!(compute["scope"], "tenant");
        assert_eq!(compute["tenant"], "07".repeat(16));
        let before = claims("safekeeper-2.jwt");
        assert_eq!(
            (&before["scope"], before.get("tenant")),
            (&"node".into(), None)
        );
        assert_eq!(before["placement"]["node"], 2);
        for program in programs.iter().filter(|p| p.kind != Kind::Keymanager) {
            let placed = claims(&token_file(program))["placement"]["node"].clone();
            assert_eq!(placed, program.node, "{}", program.name);
        }
        assert!(!home.token("keymanager-1.jwt").exists());

        make(now + 1);
        assert_eq!(claims("safekeeper-2.jwt"), before, "it is kept");
        for _ in 0..2 {
            let safekeeper = programs.iter().find(|p| p.name == "safekeeper-2").unwrap();
            forget(&home, safekeeper).unwrap();
        }
        make(now + 1);
        let generation = |claims: &serde_json::Value| claims["placement"]["generation"].as_u64();
        assert_eq!(generation(&before), Some(now));
        assert_eq!(generation(&claims("safekeeper-2.jwt")), Some(now + 1));
    }
}
