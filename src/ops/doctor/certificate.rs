//! Until when a certificate is good, and which one a server shows.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::finding::Finding;
use crate::message::Millis;

/// Renewed sooner, nobody notices.
const SOON_MS: i64 = 30 * 24 * 3_600_000;
/// For each step of a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those of a file of PEM certificates, the one that ends first first.
pub fn of_file(check: &'static str, key: &str, file: &Path) -> Finding {
    let shown = file.display();
    let named = format!("{key} ({shown})");
    let read = || -> anyhow::Result<Vec<CertificateDer<'static>>> {
        Ok(CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?)
    };
    match read() {
        Ok(certificates) => judge(check, &named, &certificates),
        Err(error) => Finding::problem(
            check,
            format!("{named} can't be read as PEM certificates: {error}"),
            format!("set {key} to the right file, or give aula's user the right to read it"),
        ),
    }
}

/// What a server at `host:port` shows, whoever signed it.
pub async fn of_server(check: &'static str, host: String, port: u16) -> Finding {
    let named = format!("the certificate of {host}:{port}");
    let shown = tokio::task::spawn_blocking(move || shown_by(&host, port)).await;
    match shown.map_err(anyhow::Error::from).and_then(|shown| shown) {
        Ok(certificates) => judge(check, &named, &certificates),
        Err(error) => {
            let cure = "is it a server that speaks TLS? `openssl s_client -connect HOST:PORT`";
            Finding::unknown(check, format!("{named} can't be seen: {error:#}"), cure)
        }
    }
}

fn judge(check: &'static str, named: &str, certificates: &[CertificateDer<'_>]) -> Finding {
    let mut ends = Vec::new();
    for certificate in certificates {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
            let cure = "`openssl x509 -text -noout -in FILE` says more";
            return Finding::problem(check, format!("{named} is no certificate that can be read"), cure);
        };
        let validity = parsed.validity();
        let millis = |seconds: i64| Millis(seconds.saturating_mul(1_000));
        ends.push((millis(validity.not_after.timestamp()), millis(validity.not_before.timestamp())));
    }
    match ends.into_iter().min() {
        Some((end, begin)) => judge_times(check, named, begin, end, Millis::now()),
        None => Finding::problem(check, format!("{named} has no certificate in it"), "put the certificate there"),
    }
}

fn judge_times(check: &'static str, named: &str, begin: Millis, end: Millis, now: Millis) -> Finding {
    let day = |at: Millis| at.to_string().chars().take(10).collect::<String>();
    let renew = "have it renewed, put the new one in its place, and restart the processes that use it one by one";
    if now < begin {
        let clock = "wait until then, or set this host's clock right: `timedatectl status`";
        return Finding::problem(check, format!("{named} is not good before {}", day(begin)), clock);
    }
    let days = (end.0 - now.0) / (24 * 3_600_000);
    match end.0 - now.0 {
        ..0 => Finding::problem(check, format!("{named} has expired on {}", day(end)), renew),
        0..SOON_MS => Finding::warning(check, format!("{named} expires on {}, in {days} days", day(end)), renew),
        _ => Finding::ok(check, format!("{named} is good until {}", day(end))),
    }
}

fn shown_by(host: &str, port: u16) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).context("not the name of a host")?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let address = (host, port).to_socket_addrs()?.next().context("the name has no address")?;
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    while connection.is_handshaking() && connection.peer_certificates().is_none() {
        connection.complete_io(&mut socket)?;
    }
    let shown = connection.peer_certificates().context("it shows none")?;
    // The chain above it is the authority's business.
    Ok(shown.iter().take(1).map(|certificate| certificate.clone().into_owned()).collect())
}

/// Takes any certificate: nothing is sent to the server, it is only looked at. Those who use a connection check.
#[derive(Debug)]
struct Whoever(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn a_certificate_is_good_between_two_moments() {
        let judge = |now: i64| judge_times("certificates", "it", Millis(1_000), Millis(SOON_MS * 2), Millis(now)).state;
        assert_eq!(judge(999), State::Problem);
        assert_eq!(judge(1_000), State::Ok);
        assert_eq!(judge(SOON_MS + 1), State::Warning);
        assert_eq!(judge(SOON_MS * 2 + 1), State::Problem);
    }
}
