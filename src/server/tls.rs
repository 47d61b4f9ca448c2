//! TLS towards the servers that aula uses.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// A client that trusts the authorities of `ca_file` (PEM; empty: the usual public ones) and shows the certificate of
/// `cert_file` with the key of `key_file` (both empty: none).
pub fn client(ca_file: &Path, cert_file: &Path, key_file: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    if is_set(ca_file) {
        for certificate in certificates(ca_file)? {
            roots.add(certificate).with_context(|| format!("{}: not an authority's certificate", ca_file.display()))?;
        }
    } else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    if !is_set(cert_file) {
        return Ok(Arc::new(builder.with_no_client_auth()));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).with_context(|| format!("{}: not a key", key_file.display()))?;
    let config = builder.with_client_auth_cert(certificates(cert_file)?, key);
    Ok(Arc::new(config.with_context(|| format!("{} does not go with its key", cert_file.display()))?))
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let not_pem = || format!("{}: not a file of PEM certificates", file.display());
    let found: Vec<_> =
        CertificateDer::pem_file_iter(file).with_context(not_pem)?.collect::<Result<_, _>>().with_context(not_pem)?;
    anyhow::ensure!(!found.is_empty(), not_pem());
    Ok(found)
}

/// An empty path in the configuration means none.
pub fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// What to set when a server and this client don't trust each other, in brackets; nothing if that isn't the trouble.
/// `said` is the error's text, `section` that of the server in the configuration.
pub fn advice(section: &str, cert_file: Option<&Path>, said: &str) -> String {
    let mentions = |words: &[&str]| words.iter().any(|word| said.contains(word));
    // A server that misses a certificate may close the connection before its alert is read.
    let closed = ["reset by peer", "Broken pipe", "Connection broken", "end of file", "no answer within"];
    let shows_none = cert_file.is_some_and(|file| !is_set(file));
    if mentions(&["UnknownIssuer"]) {
        format!(" (set {section}.ca_file to the authority that signed the server's certificate)")
    } else if mentions(&["CertificateRequired", "CertificateUnknown"]) || (shows_none && mentions(&closed)) {
        format!(" (the server may want a certificate that it trusts: {section}.cert_file and key_file)")
    } else {
        String::new()
    }
}
