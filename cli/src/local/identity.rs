//! The development authority: who the processes of a local system are to each other.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::home::{Home, make_directory, read_text, write_file};
use crate::exit::Failure;

/// Who the command line is.
pub(crate) const OPERATOR: &str = "operator";
/// Makes what is missing of the authority and the identities of `names`.
pub(crate) fn make(home: &Home, names: &[String]) -> Result<(), Failure> {
    let authority = home.identity("authority");
    make_directory(&authority, 0o700)?;
    let key = key_at(&authority.join("ca.key"), KeyPair::generate)?;
    let params = authority_params()?;
    let ca = authority.join("ca.pem");
    if !ca.exists() {
        let certificate = params.self_signed(&key).map_err(Failure::bug)?;
        write_file(&ca, certificate.pem().as_bytes(), 0o644)?;
    }
    let issuer = Issuer::new(params, key);
    for name in names {
        make_one(&home.identity(name), name, &ca, &issuer)?;
    }
    Ok(())
}

/// The same at every call: a new certificate has to fit the authority that exists.
fn authority_params() -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(Vec::new()).map_err(Failure::bug)?;
    let name = "Redoubt development authority";
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasting(&mut params);
    Ok(params)
}

fn make_one(
    directory: &Path,
    name: &str,
    ca: &Path,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(), Failure> {
    let certificate = directory.join("cert.pem");
    if certificate.exists() {
        return Ok(());
    }
    make_directory(directory, 0o700)?;
    let authority = std::fs::read(ca).map_err(|error| Failure::reading(ca, &error))?;
    write_file(&directory.join("ca.pem"), &authority, 0o644)?;
    let key = key_at(&directory.join("key.pem"), KeyPair::generate)?;
    let reached = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(reached).map_err(Failure::bug)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    lasting(&mut params);
    let signed = params.signed_by(&key, issuer).map_err(Failure::bug)?;
    // Last: what has a certificate is complete.
    write_file(&certificate, signed.pem().as_bytes(), 0o644)
}

/// Nobody renews certificates of a development system.
fn lasting(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
}

/// The key in the file, made by `generate` where there is none.
pub(super) fn key_at(
    path: &Path,
    generate: impl FnOnce() -> Result<KeyPair, rcgen::Error>,
) -> Result<KeyPair, Failure> {
    if path.exists() {
        return KeyPair::from_pem(&read_text(path)?)
            .map_err(|error| Failure::fix(format_args!("{} is no key: {error}", path.display())));
    }
    let key = generate().map_err(Failure::bug)?;
    write_file(path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home {
            root: directory.path().to_owned(),
        };
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        make(&home, &names).unwrap();
        (directory, home)
    }

    #[test]
    fn identities_are_made_once_and_later_ones_fit_the_same_authority() {
        crate::local::node::init();
        let (_directory, home) = made(&["safekeeper-1"]);
        let read = |name: &str, file: &str| std::fs::read(home.identity(name).join(file)).unwrap();
        let before = read("safekeeper-1", "cert.pem");
        make(&home, &["safekeeper-1".to_owned(), "compute-x".to_owned()]).unwrap();
        assert_eq!(read("safekeeper-1", "cert.pem"), before);
        assert_eq!(read("safekeeper-1", "ca.pem"), read("compute-x", "ca.pem"));
        for name in ["safekeeper-1", "compute-x"] {
            let directory = home.identity(name);
            api::Client::new("https://127.0.0.1:1", Some(&directory)).unwrap();
        }
    }
}
