use tokio::task::JoinSet;

use super::super::contract;
use super::super::refresh::RefreshToken;
use super::*;
use crate::server::cassandra::testing;

const NOW: Millis = Millis(1_795_377_600_000);
const LATER: Millis = Millis(NOW.0 + 1_000_000);

/// Accounts with a log of their own, in the keyspace of all tests.
async fn accounts() -> (CassandraAccounts, ()) {
    (on(&testing::connect().await, &testing::unique("log")).await, ())
}

async fn on(cassandra: &Cassandra, log: &str) -> CassandraAccounts {
    CassandraAccounts::with_log(cassandra, log).await.unwrap()
}

contract::accounts_contract!(accounts().await);

/// Two gateways: sessions with the database, and accounts, of their own.
async fn gateways() -> [Arc<CassandraAccounts>; 2] {
    let log = testing::unique("log");
    let (one, two) = (testing::connect().await, testing::connect().await);
    [Arc::new(on(&one, &log).await), Arc::new(on(&two, &log).await)]
}

fn name() -> Username {
    Username::new(&testing::unique("u")).unwrap()
}

async fn with_session(accounts: &CassandraAccounts) -> (NewSession, RefreshToken) {
    let (username, refresh) = (name(), RefreshToken::generate().unwrap());
    accounts.create_user(&username, "hash", NOW).await.unwrap();
    let session = NewSession {
        session_id: Uuid::new_v4(),
        username,
        verified_hash: Some("hash".into()),
        refresh: Some(refresh.hashes()),
        created_at: NOW,
        expires_at: LATER,
    };
    assert_eq!(accounts.start_session(&session).await.unwrap(), SessionStart::Started);
    (session, refresh)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_on_two_gateways_who_want_a_name_one_gets_it() {
    let (gateways, username) = (gateways().await, name());
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let (accounts, username) = (Arc::clone(&gateways[n % 2]), username.clone());
        tasks.spawn(async move { accounts.create_user(&username, &n.to_string(), NOW).await.unwrap() });
    }
    let created = tasks.join_all().await.into_iter().filter(|outcome| *outcome == Creation::Created).count();
    assert_eq!(created, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_on_two_gateways_who_use_a_refresh_token_one_gets_the_next() {
    let gateways = gateways().await;
    let (session, refresh) = with_session(&gateways[0]).await;
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let (accounts, refresh) = (Arc::clone(&gateways[n % 2]), refresh.clone());
        tasks.spawn(async move {
            let next = refresh.next().unwrap();
            accounts.rotate(&refresh.hashes(), &next.hashes(), NOW, LATER).await.unwrap()
        });
    }
    let outcomes = tasks.join_all().await;
    let count = |wanted: fn(&Rotation) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    assert_eq!(count(|outcome| matches!(outcome, Rotation::Rotated { .. })), 1, "{outcomes:?}");
    assert_eq!(count(|outcome| *outcome == Rotation::Reused), 1, "{outcomes:?}");
    assert_eq!(count(|outcome| *outcome == Rotation::Revoked), 18, "{outcomes:?}");
    let standing = gateways[1].standing(&session.username, session.session_id, Uuid::new_v4()).await.unwrap();
    assert_eq!(standing, Standing::SessionRevoked);
    assert_eq!(gateways[1].revocations_after(0, 100).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_misses_no_revocation_of_fifty_writers() {
    let gateways = gateways().await;
    let mut writers = JoinSet::new();
    for n in 0..50 {
        let (accounts, username) = (Arc::clone(&gateways[n % 2]), name());
        writers.spawn(async move {
            let token = Uuid::new_v4();
            accounts.revoke_token(&username, token, LATER, NOW).await.unwrap();
            token
        });
    }
    let mut seen: Vec<Revocation> = Vec::new();
    while seen.len() < 50 {
        let after = seen.last().map_or(0, |last| last.id);
        seen.extend(gateways[1].revocations_after(after, 7).await.unwrap());
        tokio::task::yield_now().await;
    }
    assert!(seen.iter().map(|revocation| revocation.id).eq(1..=50), "{seen:?}");
    let mut told: Vec<_> = seen.iter().filter_map(|revocation| revocation.token).collect();
    let mut revoked = writers.join_all().await;
    told.sort();
    revoked.sort();
    assert_eq!(told, revoked);
    assert_eq!(gateways[0].latest_revocation_id().await.unwrap(), 50);
}

#[tokio::test]
async fn a_revocation_that_a_crash_kept_from_the_log_is_told_with_the_next_call() {
    let gateways = gateways().await;
    let (session, _) = with_session(&gateways[0]).await;
    // As far as a process gets that dies between the two writes.
    let before = gateways[0].account(session.username.as_str(), false).await.unwrap().unwrap();
    let mut after = before.clone();
    assert!(after.end_one(session.session_id, NOW));
    after.last_change = Uuid::new_v4();
    assert!(matches!(gateways[0].write(&before, &after).await.unwrap(), Conditional::Applied));
    assert_eq!(gateways[1].latest_revocation_id().await.unwrap(), 0);

    for _ in 0..2 {
        assert!(!gateways[1].end_session(session.session_id, LATER).await.unwrap(), "it is ended already");
        let told = gateways[0].revocations_after(0, 100).await.unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].session, Some(session.session_id));
    }
    let account = gateways[0].account(session.username.as_str(), false).await.unwrap().unwrap();
    assert_eq!(account.unannounced, []);
}

#[tokio::test]
async fn an_entry_is_in_the_log_once_whoever_puts_it_there() {
    let gateways = gateways().await;
    let revocation = Unannounced { entry: Uuid::new_v4(), session_id: None, expires_at: CqlTimestamp(LATER.0) };
    let puts = [0, 1, 0, 1].map(|n: usize| gateways[n].append("ada", revocation.clone(), None));
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(gateways[0].latest_revocation_id().await.unwrap(), 1);
}

#[tokio::test]
async fn the_row_of_a_user_who_logs_in_and_out_for_ever_stays_small() {
    let (accounts, ()) = accounts().await;
    let (mut session, _) = with_session(&accounts).await;
    let mut account = accounts.account(session.username.as_str(), false).await.unwrap().unwrap();
    for n in 0..1000 {
        session.session_id = Uuid::new_v4();
        session.created_at = Millis(NOW.0 + n);
        account.start(&session).unwrap();
        if n % 3 == 0 {
            account.end_one(session.session_id, session.created_at);
        }
    }
    assert!(account.sessions.len() <= 130, "{}", account.sessions.len());
    assert!(account.has_live(account.sessions[account.sessions.len() - 2].session_id));
}
