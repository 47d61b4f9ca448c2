use super::*;
use crate::server::auth::testing::{auth, until_after};
use crate::wire::ErrorCode;

fn password(text: &str) -> Password {
    Password::new(text.to_owned())
}

async fn with_ada(auth: &Auth) -> Username {
    auth.sign_up("ada", password("correct horse"), None).await.unwrap().username
}

async fn log_in(auth: &Auth) -> Grant {
    auth.log_in("ada", password("correct horse"), None).await.ok().unwrap()
}

fn refusal<T>(outcome: Result<T, AuthError>) -> Refusal {
    match outcome.err() {
        Some(AuthError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_from_sign_up_to_log_out() {
    let (auth, _guard) = auth(|_| ());
    let ada = with_ada(&auth).await;
    let grant = log_in(&auth).await;
    assert_eq!(grant.expires_in, Duration::from_secs(900));
    let identity = auth.authenticate(&grant.access_token).await.unwrap();
    assert_eq!(identity.username, ada);
    assert!(identity.expires_at > Millis::now());

    let renewed = auth.refresh(&grant.refresh_token).await.ok().unwrap();
    let later = auth.authenticate(&renewed.access_token).await.unwrap();
    assert_eq!(later.session_id, identity.session_id);
    assert_ne!(later.token_id, identity.token_id);
    assert!(auth.authenticate(&grant.access_token).await.is_ok(), "the first token is good until it expires");

    for _ in 0..2 {
        auth.log_out(&later).await.unwrap();
    }
    for token in [&grant.access_token, &renewed.access_token] {
        assert_eq!(refusal(auth.authenticate(token).await), Refusal::Revoked);
    }
    let refused = auth.refresh(&renewed.refresh_token).await.err().unwrap();
    assert_eq!(refused.to_string(), "the session has ended");
}

#[tokio::test]
async fn sign_up_is_refused_for_a_reason() {
    let (auth_open, _guard) = auth(|_| ());
    with_ada(&auth_open).await;
    let code = async |name: &str, text: &str| {
        auth_open.sign_up(name, password(text), None).await.map(|_| ()).unwrap_err().code()
    };
    assert_eq!(code("ada", "correct horse").await, ErrorCode::Conflict);
    assert_eq!(code("Ada", "correct horse").await, ErrorCode::Invalid);
    assert_eq!(code("bob", "short").await, ErrorCode::Invalid);
    assert_eq!(code("bob", "éééé").await, ErrorCode::Invalid, "characters count, not bytes");
    assert_eq!(code("bob", &"x".repeat(1025)).await, ErrorCode::Invalid);
    assert!(auth_open.sign_up("bob", password(&"x".repeat(1024)), None).await.is_ok());

    let (closed, _guard) = auth(|options| options.signup_open = false);
    let refused = closed.sign_up("ada", password("correct horse"), None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Forbidden);
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_look_the_same() {
    let (auth, _guard) = auth(|_| ());
    with_ada(&auth).await;
    let refused =
        async |name: &str, text: &str| auth.log_in(name, password(text), None).await.err().unwrap().to_string();
    let wrong = refused("ada", "wrong").await;
    assert_eq!(refused("bob", "correct horse").await, wrong);
    assert_eq!(refused("Not A Name", "correct horse").await, wrong);
    assert_eq!(refused("ada", &"x".repeat(2000)).await, wrong);
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once() {
    let (auth, _guard) = auth(|_| ());
    let ada = with_ada(&auth).await;
    let grant = log_in(&auth).await;
    auth.accounts().disable(&ada, Millis::now()).await.unwrap();
    assert_eq!(refusal(auth.authenticate(&grant.access_token).await), Refusal::UserDisabled);
    let right = auth.log_in("ada", password("correct horse"), None).await.err().unwrap();
    assert!(matches!(right, AuthError::Disabled), "{right:?}");
    let wrong = auth.log_in("ada", password("wrong"), None).await.err().unwrap();
    assert!(matches!(wrong, AuthError::BadCredentials), "told only to who knows the password: {wrong:?}");
    let refreshed = auth.refresh(&grant.refresh_token).await.err().unwrap();
    assert_eq!(refreshed.to_string(), "the account is disabled");
}

#[tokio::test]
async fn a_used_refresh_token_ends_the_session() {
    let (auth, _guard) = auth(|_| ());
    with_ada(&auth).await;
    let first = log_in(&auth).await;
    let second = auth.refresh(&first.refresh_token).await.ok().unwrap();
    let reused = auth.refresh(&first.refresh_token).await.err().unwrap();
    assert_eq!(reused.code(), ErrorCode::Unauthorized);
    assert!(reused.to_string().contains("used before"), "{reused}");
    assert_eq!(refusal(auth.authenticate(&second.access_token).await), Refusal::Revoked);
    for unknown in ["", "aula_rt_x", &first.access_token] {
        assert_eq!(auth.refresh(unknown).await.err().unwrap().code(), ErrorCode::Unauthorized);
    }
}

#[tokio::test]
async fn tokens_expire() {
    let (auth, _guard) = auth(|options| {
        options.access_ttl = Duration::from_secs(3600);
        options.refresh_ttl = Duration::from_secs(1);
    });
    with_ada(&auth).await;
    let grant = log_in(&auth).await;
    assert_eq!(grant.expires_in, Duration::from_secs(1), "no token outlives its session");
    until_after(Millis(Millis::now().0 + 1000)).await;
    assert!(matches!(refusal(auth.authenticate(&grant.access_token).await), Refusal::Expired { .. }));
    assert_eq!(auth.refresh(&grant.refresh_token).await.err().unwrap().to_string(), "the refresh token has expired");
}

#[tokio::test]
async fn attempts_are_limited_by_address_and_by_username() {
    let (auth, _guard) = auth(|options| options.logins_per_minute = 3);
    with_ada(&auth).await;
    let from = |address: &str| Some(address.parse().unwrap());
    let code = async |name: &str, address: Option<IpAddr>| {
        auth.log_in(name, password("wrong"), address).await.err().unwrap().code()
    };
    // Many addresses, one user.
    for n in 0..3 {
        assert_eq!(code("ada", from(&format!("192.0.2.{n}"))).await, ErrorCode::Unauthorized);
    }
    let refused = auth.log_in("ada", password("correct horse"), from("192.0.2.9")).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::RateLimited);
    assert!(refused.retry_after().unwrap() > Duration::from_secs(10), "{refused:?}");
    // One address, many users.
    for name in ["bob", "carl", "dora"] {
        assert_eq!(code(name, from("198.51.100.1")).await, ErrorCode::Unauthorized);
    }
    assert_eq!(code("emil", from("198.51.100.1")).await, ErrorCode::RateLimited);
    assert_eq!(code("emil", from("198.51.100.2")).await, ErrorCode::Unauthorized);
}

#[tokio::test]
async fn an_operator_mints_and_revokes() {
    let (auth, _guard) = auth(|_| ());
    let ada = with_ada(&auth).await;
    let (token, identity) = auth.mint(&ada, Duration::from_secs(60)).await.unwrap();
    let (other, _) = auth.mint(&ada, Duration::from_secs(60)).await.unwrap();
    assert_eq!(auth.authenticate(&token).await.unwrap(), identity);
    assert_eq!(auth.revoke(&token).await.unwrap(), identity);
    assert_eq!(refusal(auth.authenticate(&token).await), Refusal::Revoked);
    assert!(auth.authenticate(&other).await.is_ok());
    let nobody = Username::new("nobody").unwrap();
    assert_eq!(refusal(auth.mint(&nobody, Duration::from_secs(60)).await), Refusal::UnknownUser);
    assert_eq!(refusal(auth.revoke("rubbish").await), Refusal::Malformed);
    assert!(!auth.prune().await.unwrap(), "nothing is old enough");
}
