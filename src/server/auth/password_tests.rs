use std::time::{Duration, Instant};

use super::*;

fn password(text: &str) -> Password {
    Password::new(text.to_owned())
}

#[tokio::test]
async fn a_password_matches_its_own_hash_only() {
    let passwords = Passwords::new(2, 10);
    let stored = passwords.hash(password("correct horse")).await.unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    assert!(passwords.verify(password("correct horse"), Some(stored.clone())).await.unwrap());
    assert!(!passwords.verify(password("correct horse "), Some(stored)).await.unwrap());
    assert!(!passwords.verify(password("correct horse"), None).await.unwrap());
}

#[test]
fn hashes_of_other_implementations_are_understood() {
    // From the reference implementation's test.c: version 0x13, argon2id, 64 MiB, 2 passes.
    let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert!(verify(&password("password"), Some(stored)).unwrap());
}

#[test]
fn a_damaged_hash_is_an_error_and_not_a_wrong_password() {
    let huge = "$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    let argon2i = "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    for bad in ["", "plain", "$argon2id$v=19$m=65536,t=2,p=1", huge, argon2i] {
        assert!(matches!(verify(&password("password"), Some(bad)), Err(PasswordError::Damaged(_))), "{bad}");
    }
}

#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_known_one() {
    let stored = hash(&password("correct horse")).unwrap();
    let once = |stored: Option<&str>| {
        let started = Instant::now();
        verify(&password("wrong"), stored).unwrap();
        started.elapsed()
    };
    // In turns: what else the machine does meanwhile falls on both.
    let both: Vec<_> = (0..10).map(|_| (once(Some(&stored)), once(None))).collect();
    let known = both.iter().map(|(known, _)| *known).min().unwrap();
    let unknown = both.iter().map(|(_, unknown)| *unknown).min().unwrap();
    assert!(unknown * 2 > known, "{unknown:?} for an unknown user, {known:?} for a known one");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_bound_are_refused_at_once() {
    let passwords = Passwords::new(1, 2);
    let attempts: Vec<_> = (0..10)
        .map(|_| {
            let passwords = passwords.clone();
            tokio::spawn(async move { passwords.verify(password("x"), None).await })
        })
        .collect();
    let mut refused = 0;
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(matches) => assert!(!matches),
            Err(error) => {
                assert!(matches!(error, PasswordError::Overloaded));
                refused += 1;
            }
        }
    }
    assert!((1..=7).contains(&refused), "{refused} of 10 refused with room for 3");
    // The room is free again.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(passwords.verify(password("x"), None).await.is_ok());
}

#[test]
fn a_password_is_not_printed() {
    assert!(!format!("{:?}", password("hunter2")).contains("hunter2"));
}

/// Other tests of this process use memory too: this one asks for a process of its own.
#[test]
fn memory_goes_back_to_the_operating_system() {
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new(this)
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "server::auth::password::tests::resident_memory_after_many_hashes",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run in a process of its own by memory_goes_back_to_the_operating_system"]
async fn resident_memory_after_many_hashes() {
    let passwords = Passwords::new(2, 100);
    let before = resident_kib();
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let passwords = passwords.clone();
            tokio::spawn(async move { passwords.hash(password("x")).await.map(drop) })
        })
        .collect();
    for attempt in attempts {
        attempt.await.unwrap().unwrap();
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB stayed resident");
}

/// Without the pages of files: those of the program itself come and go.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
