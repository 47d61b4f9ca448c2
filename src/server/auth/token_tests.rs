use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Millis = Millis(1_795_377_600_000);
const LATER: Millis = Millis(NOW.0 + 900_000);

fn claims() -> Claims {
    Claims::new(Username::new("ada").unwrap(), Uuid::new_v4(), NOW, LATER)
}

fn tokens() -> Tokens {
    Tokens::new(SigningKeys::ephemeral().unwrap())
}

/// Any header and claims, signed with the right key.
fn signed(tokens: &Tokens, header: &serde_json::Value, claims: &serde_json::Value) -> String {
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), tokens.keys.signing().1, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn header(tokens: &Tokens) -> serde_json::Value {
    json!({"alg": "HS256", "typ": "JWT", "kid": tokens.keys.signing().0})
}

#[test]
fn a_minted_token_is_good_until_it_expires() {
    let (tokens, claims) = (tokens(), claims());
    let token = tokens.mint(&claims).unwrap();
    assert_eq!(tokens.check(&token, NOW), Ok(claims.clone()));
    assert_eq!(tokens.check(&token, Millis(LATER.0 - 1)), Ok(claims));
    assert_eq!(tokens.check(&token, LATER), Err(Refusal::Expired { since: LATER }));
}

#[test]
fn a_clock_set_back_an_hour_refuses_nothing_fresh() {
    let (tokens, claims) = (tokens(), claims());
    let token = tokens.mint(&claims).unwrap();
    assert_eq!(tokens.check(&token, Millis(NOW.0 - 3_600_000)), Ok(claims));
}

#[test]
fn the_signature_is_the_one_everybody_computes() {
    // RFC 7515, appendix A.1.
    let key = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0\
                   dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    hs256::install();
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &jsonwebtoken::EncodingKey::from_secret(&key), Algorithm::HS256);
    assert_eq!(signature.unwrap(), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

#[test]
fn refusals_tell_the_reason() {
    let tokens = tokens();
    let good_header = header(&tokens);
    let good_claims = serde_json::to_value(claims()).unwrap();
    let with = |value: &serde_json::Value, field: &str, to: serde_json::Value| {
        let mut value = value.clone();
        value[field] = to;
        value
    };
    let check = |token: &str| tokens.check(token, NOW).unwrap_err();

    let cases = [
        (with(&good_header, "alg", json!("none")), good_claims.clone(), Refusal::WrongAlgorithm),
        (with(&good_header, "alg", json!("HS512")), good_claims.clone(), Refusal::WrongAlgorithm),
        (with(&good_header, "alg", json!({"$ne": null})), good_claims.clone(), Refusal::Malformed),
        (with(&good_header, "kid", json!("other")), good_claims.clone(), Refusal::UnknownKey),
        (with(&good_header, "kid", json!(null)), good_claims.clone(), Refusal::UnknownKey),
        (good_header.clone(), with(&good_claims, "iss", json!("other")), Refusal::WrongIssuer),
        (good_header.clone(), with(&good_claims, "sub", json!("../ada")), Refusal::Malformed),
        (good_header.clone(), with(&good_claims, "exp", json!("never")), Refusal::Malformed),
        (good_header.clone(), with(&good_claims, "exp", json!(null)), Refusal::Malformed),
        (good_header.clone(), with(&good_claims, "exp", json!(-1)), Refusal::Expired { since: Millis(-1000) }),
        (good_header.clone(), with(&good_claims, "nbf", json!(LATER.0 / 1000)), Refusal::NotYetValid { until: LATER }),
    ];
    for (header, claims, refusal) in cases {
        assert_eq!(check(&signed(&tokens, &header, &claims)), refusal, "{header} {claims}");
    }
    assert_eq!(tokens.check(&signed(&tokens, &good_header, &good_claims), NOW).map(|_| ()), Ok(()));

    for malformed in ["", ".", "..", "a.b.c", "e30.e30.", &"a".repeat(5000), "é.é.é"] {
        assert_eq!(check(malformed), Refusal::Malformed, "{malformed}");
    }
}

#[test]
fn another_servers_key_of_the_same_name_does_not_help() {
    let tokens = tokens();
    let name = tokens.keys.signing().0.to_owned();
    let mut forged = Header::new(Algorithm::HS256);
    forged.kid = Some(name);
    let key = jsonwebtoken::EncodingKey::from_secret(&[7; 32]);
    let token = jsonwebtoken::encode(&forged, &claims(), &key).unwrap();
    assert_eq!(tokens.check(&token, NOW), Err(Refusal::BadSignature));
}

proptest! {
    #[test]
    fn no_changed_token_is_accepted(position in 0usize..400, replacement in "[A-Za-z0-9_.-]") {
        let tokens = tokens();
        let token = tokens.mint(&claims()).unwrap();
        let position = position % token.len();
        let changed = format!("{}{}{}", &token[..position], replacement, &token[position + 1..]);
        prop_assume!(changed != token);
        prop_assert!(tokens.check(&changed, NOW).is_err(), "{}", changed);
    }

    #[test]
    fn nothing_makes_the_check_panic(token in "\\PC{0,80}") {
        prop_assert!(tokens().check(&token, NOW).is_err());
    }
}
