use axum::http::{HeaderMap, header};

/// Whether a handshake may come from its `Origin` (RFC 6455 §10.2): a browser always sends one, and a page of
/// somebody else's must not speak with the user's rights. Programs that are no browsers send none.
pub(super) fn is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if allowed.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(origin)) {
        return true;
    }
    // Same origin: the scheme is not compared, because a proxy in front may have ended TLS.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    allowed.is_empty()
        && origin
            .split_once("://")
            .is_some_and(|(_, authority)| host.is_some_and(|h| h.eq_ignore_ascii_case(authority)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "chat.example:8080".parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn by_default_only_the_same_origin() {
        assert!(is_allowed(&headers(None), &[]));
        assert!(is_allowed(&headers(Some("http://chat.example:8080")), &[]));
        for other in ["http://chat.example", "https://evil.example", "null", "http://chat.example:8080.evil.example"] {
            assert!(!is_allowed(&headers(Some(other)), &[]), "{other}");
        }
    }

    #[test]
    fn a_list_replaces_the_default() {
        let list = ["https://web.example".to_owned()];
        assert!(is_allowed(&headers(Some("https://web.example")), &list));
        assert!(!is_allowed(&headers(Some("http://chat.example:8080")), &list));
        assert!(is_allowed(&headers(Some("https://any.example")), &["*".to_owned()]));
    }
}
