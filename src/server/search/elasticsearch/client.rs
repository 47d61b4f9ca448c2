use std::error::Error as _;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use elasticsearch::Elasticsearch;
use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::Url;
use elasticsearch::http::response::Response;
use elasticsearch::http::transport::{SingleNodeConnectionPool, TransportBuilder};
use serde::Deserialize;

use crate::config;
use crate::server::tls;

/// No request is waited for longer; those that should end sooner say so themselves.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client of the configured server. Connects when it is first used.
pub fn connect(config: &config::Elasticsearch) -> anyhow::Result<Elasticsearch> {
    let url = Url::parse(&config.url).with_context(|| format!("elasticsearch.url: {}", config.url))?;
    let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url))
        // A proxy of the environment is meant for the way out, not for the servers of the deployment.
        .disable_proxy()
        .timeout(TIMEOUT);
    if !config.username.is_empty() {
        builder = builder.auth(Credentials::Basic(config.username.clone(), config.password.clone()));
    }
    if tls::is_set(&config.ca_file) {
        let shown = config.ca_file.display();
        let pem = fs::read(&config.ca_file).with_context(|| format!("can't read {shown} (elasticsearch.ca_file)"))?;
        let authorities =
            Certificate::from_pem(&pem).with_context(|| format!("{shown}: not a file of PEM certificates"))?;
        builder = builder.cert_validation(CertificateValidation::Full(authorities));
    }
    Ok(Elasticsearch::new(builder.build().context("no client for elasticsearch.url")?))
}

/// Why there was no answer, down to the cause: the outermost error only names the address.
pub fn failure(error: &elasticsearch::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    let advice = tls::advice("elasticsearch", None, &text);
    text + &advice
}

/// What an answer says is wrong, by status and type. Not by its reason: that quotes messages and queries, and this is
/// logged.
pub(super) async fn refusal(response: Response) -> String {
    let status = response.status_code().as_u16();
    if status == 401 {
        return "it wants a user: elasticsearch.username and password are missing or wrong".into();
    }
    let Ok(Answer { error: Some(error) }) = response.json::<Answer>().await else {
        return format!("status {status}");
    };
    let kind = error.root_cause.into_iter().next().map_or(error.kind, |root| root.kind);
    format!("status {status}, {}", kind.as_deref().unwrap_or("no type"))
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    root_cause: Vec<Refused>,
}
