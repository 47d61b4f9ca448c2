//! What every backend of [`Accounts`] must do. A backend's test module calls [`accounts_contract`] with an expression
//! that makes a backend without revocations and a guard that keeps it alive. Other users may be in it: each test has names
//! of its own.

use std::sync::Arc;

use super::refresh::RefreshToken;
use super::*;

const NOW: Millis = Millis(1_795_377_600_000);
const LATER: Millis = Millis(NOW.0 + 1_000_000);

macro_rules! accounts_contract {
    ($make:expr) => {
        $crate::server::auth::contract::accounts_contract!($make;
            a_user_is_created_once,
            of_many_who_want_a_name_one_gets_it,
            a_new_password_ends_the_sessions,
            disabling_ends_the_sessions_and_enabling_does_not_bring_them_back,
            changes_of_nobody_change_nothing,
            users_are_listed_in_pages,
            missing_users_are_told_in_order,
            a_session_needs_a_user_in_good_standing,
            starting_a_session_twice_is_once,
            the_oldest_sessions_give_way,
            a_refresh_token_is_good_once,
            of_many_who_use_a_refresh_token_one_gets_the_next,
            a_used_refresh_token_ends_its_session,
            refresh_tokens_are_refused_for_a_reason,
            a_refresh_moves_the_expiry_and_never_back,
            ending_a_session_twice_is_once,
            all_sessions_of_a_user_end,
            a_revoked_token_leaves_its_session,
            standing_is_of_the_very_user,
            revocations_are_followed_by_id,
            what_has_expired_is_forgotten_a_little_at_a_time,
        );
    };
    ($make:expr; $($test:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let (accounts, _guard) = $make;
                $crate::server::auth::contract::$test(accounts).await;
            }
        )+
    };
}
pub(crate) use accounts_contract;

/// A name that begins with `text` and that no other test has.
fn name(text: &str) -> Username {
    Username::new(&format!("{text}-{}", &Uuid::new_v4().simple().to_string()[..12])).unwrap()
}

async fn with_user(accounts: &impl Accounts, text: &str) -> Username {
    with_user_named(accounts, name(text)).await
}

async fn with_user_named(accounts: &impl Accounts, username: Username) -> Username {
    assert_eq!(accounts.create_user(&username, "hash", NOW).await.unwrap(), Creation::Created);
    username
}

fn new_session(username: &Username) -> (NewSession, RefreshToken) {
    let refresh = RefreshToken::generate().unwrap();
    let session = NewSession {
        session_id: Uuid::new_v4(),
        username: username.clone(),
        verified_hash: Some("hash".into()),
        refresh: Some(refresh.hashes()),
        created_at: NOW,
        expires_at: LATER,
    };
    (session, refresh)
}

async fn with_session(accounts: &impl Accounts, username: &Username) -> (Uuid, RefreshToken) {
    let (session, refresh) = new_session(username);
    assert_eq!(accounts.start_session(&session).await.unwrap(), SessionStart::Started);
    (session.session_id, refresh)
}

async fn rotate(accounts: &impl Accounts, used: &RefreshToken) -> (Rotation, RefreshToken) {
    let next = used.next().unwrap();
    (accounts.rotate(&used.hashes(), &next.hashes(), NOW, LATER).await.unwrap(), next)
}

async fn standing(accounts: &impl Accounts, username: &Username, session: Uuid) -> Standing {
    accounts.standing(username, session, Uuid::new_v4()).await.unwrap()
}

async fn revocations(accounts: &impl Accounts) -> Vec<(Username, Option<Uuid>, Option<Uuid>)> {
    let all = accounts.revocations_after(0, 1000).await.unwrap();
    all.into_iter().map(|revocation| (revocation.username, revocation.session, revocation.token)).collect()
}

pub(crate) async fn a_user_is_created_once(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    assert_eq!(accounts.create_user(&ada, "other", LATER).await.unwrap(), Creation::Taken);
    let user = User { username: ada.clone(), created_at: NOW, disabled_at: None };
    assert_eq!(accounts.user(&ada).await.unwrap(), Some(user.clone()));
    assert_eq!(accounts.credentials(&ada).await.unwrap(), Some((user, "hash".into())));
    assert_eq!(accounts.user(&name("bob")).await.unwrap(), None);
    // A disabled user keeps the name.
    accounts.disable(&ada, LATER).await.unwrap();
    assert_eq!(accounts.create_user(&ada, "other", LATER).await.unwrap(), Creation::Taken);
}

pub(crate) async fn of_many_who_want_a_name_one_gets_it(accounts: impl Accounts) {
    let (accounts, ada) = (Arc::new(accounts), name("ada"));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (accounts, ada) = (Arc::clone(&accounts), ada.clone());
        tasks.spawn(async move { accounts.create_user(&ada, &n.to_string(), NOW).await.unwrap() });
    }
    let created = tasks.join_all().await.into_iter().filter(|outcome| *outcome == Creation::Created).count();
    assert_eq!(created, 1);
}

pub(crate) async fn a_new_password_ends_the_sessions(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (session, refresh) = with_session(&accounts, &ada).await;
    assert_eq!(accounts.set_password(&ada, "new", NOW).await.unwrap(), Change::Done);
    assert_eq!(accounts.credentials(&ada).await.unwrap().unwrap().1, "new");
    assert_eq!(standing(&accounts, &ada, session).await, Standing::SessionRevoked);
    assert_eq!(rotate(&accounts, &refresh).await.0, Rotation::Revoked);
    assert_eq!(revocations(&accounts).await, [(ada.clone(), None, None)]);
    // A log-in that was checked against the old password comes too late.
    let (late, _) = new_session(&ada);
    assert_eq!(accounts.start_session(&late).await.unwrap(), SessionStart::PasswordChanged);
    assert_eq!(standing(&accounts, &ada, late.session_id).await, Standing::SessionRevoked);
}

pub(crate) async fn disabling_ends_the_sessions_and_enabling_does_not_bring_them_back(accounts: impl Accounts) {
    let (ada, bob) = (with_user(&accounts, "ada").await, with_user(&accounts, "bob").await);
    let (session, refresh) = with_session(&accounts, &ada).await;
    let (bobs, _) = with_session(&accounts, &bob).await;
    assert_eq!(accounts.disable(&ada, LATER).await.unwrap(), Change::Done);
    assert_eq!(accounts.disable(&ada, Millis(LATER.0 + 1)).await.unwrap(), Change::Done);
    assert_eq!(accounts.user(&ada).await.unwrap().unwrap().disabled_at, Some(LATER), "the first time counts");
    assert_eq!(revocations(&accounts).await, [(ada.clone(), None, None)]);
    assert_eq!(standing(&accounts, &ada, session).await, Standing::Disabled);
    assert_eq!(rotate(&accounts, &refresh).await.0, Rotation::Disabled);
    assert_eq!(accounts.start_session(&new_session(&ada).0).await.unwrap(), SessionStart::Disabled);

    assert_eq!(accounts.enable(&ada).await.unwrap(), Change::Done);
    assert_eq!(accounts.user(&ada).await.unwrap().unwrap().disabled_at, None);
    assert_eq!(standing(&accounts, &ada, session).await, Standing::SessionRevoked);
    assert_eq!(rotate(&accounts, &refresh).await.0, Rotation::Revoked);
    let (again, _) = with_session(&accounts, &ada).await;
    assert_eq!(standing(&accounts, &ada, again).await, Standing::Active);
    assert_eq!(standing(&accounts, &bob, bobs).await, Standing::Active);
}

pub(crate) async fn changes_of_nobody_change_nothing(accounts: impl Accounts) {
    let nobody = name("nobody");
    assert_eq!(accounts.set_password(&nobody, "hash", NOW).await.unwrap(), Change::UnknownUser);
    assert_eq!(accounts.disable(&nobody, NOW).await.unwrap(), Change::UnknownUser);
    assert_eq!(accounts.enable(&nobody).await.unwrap(), Change::UnknownUser);
    assert_eq!(accounts.end_sessions(&nobody, NOW).await.unwrap(), Change::UnknownUser);
    assert!(!accounts.end_session(Uuid::new_v4(), NOW).await.unwrap());
    assert_eq!(accounts.start_session(&new_session(&nobody).0).await.unwrap(), SessionStart::UnknownUser);
    assert_eq!(accounts.user(&nobody).await.unwrap(), None);
    assert_eq!(accounts.latest_revocation_id().await.unwrap(), 0);
}

pub(crate) async fn users_are_listed_in_pages(accounts: impl Accounts) {
    // The tests' own corner: names that begin like no others.
    let corner = name("l");
    let named = |text: &str| Username::new(&format!("{corner}{text}")).unwrap();
    for text in ["bob", "ada", "ada-2", "ada.1", "adam", "ad", "z"] {
        with_user_named(&accounts, named(text)).await;
    }
    accounts.disable(&named("ada.1"), NOW).await.unwrap();
    let list = async |query: UserQuery| {
        let users = accounts.list_users(&query).await.unwrap();
        let short = |user: User| user.username.as_str().replace(corner.as_str(), "");
        users.into_iter().map(short).collect::<Vec<_>>()
    };
    let all = UserQuery { prefix: corner.to_string(), limit: 100, ..UserQuery::default() };
    assert_eq!(list(all.clone()).await, ["ad", "ada", "ada-2", "adam", "bob", "z"]);
    let ada = UserQuery { prefix: named("ada").to_string(), with_disabled: true, limit: 3, ..UserQuery::default() };
    assert_eq!(list(ada.clone()).await, ["ada", "ada-2", "ada.1"]);
    assert_eq!(list(UserQuery { limit: 2, with_disabled: false, ..ada.clone() }).await, ["ada", "ada-2"]);
    assert_eq!(list(UserQuery { after: Some(named("ada-2")), with_disabled: false, ..ada.clone() }).await, ["adam"]);
    assert_eq!(list(UserQuery { after: Some(named("ada.1")), ..ada.clone() }).await, ["adam"]);
    assert_eq!(list(UserQuery { after: Some(named("adam")), ..ada }).await, [""; 0]);
    assert_eq!(list(UserQuery { after: Some(Username::new("0").unwrap()), limit: 1, ..all.clone() }).await, ["ad"]);
    assert_eq!(list(UserQuery { prefix: "%".into(), ..all.clone() }).await, [""; 0]);
    assert_eq!(list(UserQuery { limit: 0, ..all }).await, [""; 0]);

    // Without a prefix the order goes on from one beginning to the next.
    let far = [with_user(&accounts, "0").await, with_user(&accounts, "z").await];
    let from = |after: &Username| UserQuery { after: Some(after.clone()), limit: 6, ..UserQuery::default() };
    assert_eq!(list(from(&corner)).await, ["ad", "ada", "ada-2", "adam", "bob", "z"]);
    let everybody = list(UserQuery { limit: 10_000, ..UserQuery::default() }).await;
    assert!(everybody.contains(&far[0].to_string()) && everybody.contains(&far[1].to_string()));
    let page = list(UserQuery { prefix: "0".into(), limit: 10_000, ..UserQuery::default() }).await;
    assert!(page.contains(&far[0].to_string()) && !page.contains(&far[1].to_string()));
}

pub(crate) async fn missing_users_are_told_in_order(accounts: impl Accounts) {
    let (ada, bob) = (with_user(&accounts, "ada").await, with_user(&accounts, "bob").await);
    accounts.disable(&bob, NOW).await.unwrap();
    let (zoe, carl) = (name("zoe"), name("carl"));
    let asked = [zoe.clone(), ada.clone(), bob.clone(), carl.clone()];
    assert_eq!(accounts.missing(&asked).await.unwrap(), [zoe, bob, carl]);
    assert_eq!(accounts.missing(&[ada]).await.unwrap(), []);
    assert_eq!(accounts.missing(&[]).await.unwrap(), []);
}

pub(crate) async fn a_session_needs_a_user_in_good_standing(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (mut session, _) = new_session(&ada);
    session.verified_hash = Some("another".into());
    assert_eq!(accounts.start_session(&session).await.unwrap(), SessionStart::PasswordChanged);
    assert_eq!(standing(&accounts, &ada, session.session_id).await, Standing::SessionRevoked);
    session.verified_hash = None;
    session.refresh = None;
    assert_eq!(accounts.start_session(&session).await.unwrap(), SessionStart::Started);
    assert_eq!(standing(&accounts, &ada, session.session_id).await, Standing::Active);
    // Sessions without refresh tokens don't exclude each other.
    session.session_id = Uuid::new_v4();
    assert_eq!(accounts.start_session(&session).await.unwrap(), SessionStart::Started);
}

pub(crate) async fn starting_a_session_twice_is_once(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (session, refresh) = new_session(&ada);
    for _ in 0..2 {
        assert_eq!(accounts.start_session(&session).await.unwrap(), SessionStart::Started);
    }
    assert!(matches!(rotate(&accounts, &refresh).await.0, Rotation::Rotated { .. }));
    // A repetition that comes late must not bring the used token back.
    assert_eq!(accounts.start_session(&session).await.unwrap(), SessionStart::Started);
    assert_eq!(rotate(&accounts, &refresh).await.0, Rotation::Reused);
}

pub(crate) async fn the_oldest_sessions_give_way(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let mut ids = Vec::new();
    for n in 0..i64::from(MAX_SESSIONS_PER_USER) + 2 {
        let (mut session, _) = new_session(&ada);
        session.created_at = Millis(NOW.0 + n);
        accounts.start_session(&session).await.unwrap();
        ids.push(session.session_id);
    }
    assert_eq!(standing(&accounts, &ada, ids[1]).await, Standing::SessionRevoked);
    assert_eq!(standing(&accounts, &ada, ids[2]).await, Standing::Active);
    assert_eq!(standing(&accounts, &ada, ids[ids.len() - 1]).await, Standing::Active);
    assert_eq!(revocations(&accounts).await, [(ada.clone(), Some(ids[0]), None), (ada.clone(), Some(ids[1]), None)]);
}

pub(crate) async fn a_refresh_token_is_good_once(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (session_id, mut refresh) = with_session(&accounts, &ada).await;
    for _ in 0..5 {
        let (rotation, next) = rotate(&accounts, &refresh).await;
        assert_eq!(rotation, Rotation::Rotated { username: ada.clone(), session_id });
        refresh = next;
    }
    assert_eq!(accounts.latest_revocation_id().await.unwrap(), 0);
}

pub(crate) async fn of_many_who_use_a_refresh_token_one_gets_the_next(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (session, refresh) = with_session(&accounts, &ada).await;
    let accounts = Arc::new(accounts);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (accounts, refresh) = (Arc::clone(&accounts), refresh.clone());
        tasks.spawn(async move { rotate(&*accounts, &refresh).await.0 });
    }
    let outcomes = tasks.join_all().await;
    let count = |wanted: fn(&Rotation) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    assert_eq!(count(|outcome| matches!(outcome, Rotation::Rotated { .. })), 1);
    assert_eq!(count(|outcome| *outcome == Rotation::Reused), 1);
    assert_eq!(count(|outcome| *outcome == Rotation::Revoked), 8);
    assert_eq!(standing(&*accounts, &ada, session).await, Standing::SessionRevoked);
}

pub(crate) async fn a_used_refresh_token_ends_its_session(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (session, first) = with_session(&accounts, &ada).await;
    let (other, _) = with_session(&accounts, &ada).await;
    let (_, second) = rotate(&accounts, &first).await;
    assert_eq!(rotate(&accounts, &first).await.0, Rotation::Reused);
    assert_eq!(rotate(&accounts, &second).await.0, Rotation::Revoked, "the thief's token as well");
    assert_eq!(standing(&accounts, &ada, session).await, Standing::SessionRevoked);
    assert_eq!(standing(&accounts, &ada, other).await, Standing::Active);
    assert_eq!(revocations(&accounts).await, [(ada.clone(), Some(session), None)]);
}

pub(crate) async fn refresh_tokens_are_refused_for_a_reason(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (session, refresh) = with_session(&accounts, &ada).await;
    let unknown = RefreshToken::generate().unwrap();
    assert_eq!(rotate(&accounts, &unknown).await.0, Rotation::Unknown);
    let next = refresh.next().unwrap();
    let late = accounts.rotate(&refresh.hashes(), &next.hashes(), LATER, Millis(LATER.0 + 1)).await.unwrap();
    assert_eq!(late, Rotation::Expired(LATER));
    // Nothing happened: by a clock set right again it is still good.
    assert!(matches!(rotate(&accounts, &refresh).await.0, Rotation::Rotated { .. }));
    assert_eq!(standing(&accounts, &ada, session).await, Standing::Active);
}

pub(crate) async fn a_refresh_moves_the_expiry_and_never_back(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (_, first) = with_session(&accounts, &ada).await;
    let second = first.next().unwrap();
    let longer = Millis(LATER.0 + 5000);
    accounts.rotate(&first.hashes(), &second.hashes(), NOW, longer).await.unwrap();
    let (rotation, third) = rotate(&accounts, &second).await;
    assert!(matches!(rotation, Rotation::Rotated { .. }));
    let next = third.next().unwrap();
    let at = Millis(longer.0 - 1);
    let rotation = accounts.rotate(&third.hashes(), &next.hashes(), at, longer).await.unwrap();
    assert!(matches!(rotation, Rotation::Rotated { .. }), "{rotation:?}");
}

pub(crate) async fn ending_a_session_twice_is_once(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (session, refresh) = with_session(&accounts, &ada).await;
    assert!(accounts.end_session(session, NOW).await.unwrap());
    assert!(!accounts.end_session(session, NOW).await.unwrap());
    assert_eq!(rotate(&accounts, &refresh).await.0, Rotation::Revoked);
    assert_eq!(revocations(&accounts).await, [(ada, Some(session), None)]);
}

pub(crate) async fn all_sessions_of_a_user_end(accounts: impl Accounts) {
    let (ada, bob) = (with_user(&accounts, "ada").await, with_user(&accounts, "bob").await);
    let sessions = [with_session(&accounts, &ada).await.0, with_session(&accounts, &ada).await.0];
    let (bobs, _) = with_session(&accounts, &bob).await;
    assert_eq!(accounts.end_sessions(&ada, NOW).await.unwrap(), Change::Done);
    for session in sessions {
        assert_eq!(standing(&accounts, &ada, session).await, Standing::SessionRevoked);
    }
    assert_eq!(standing(&accounts, &bob, bobs).await, Standing::Active);
    assert_eq!(revocations(&accounts).await, [(ada, None, None)]);
}

pub(crate) async fn a_revoked_token_leaves_its_session(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    let (session, _) = with_session(&accounts, &ada).await;
    let token = Uuid::new_v4();
    accounts.revoke_token(&ada, token, LATER, NOW).await.unwrap();
    assert_eq!(accounts.standing(&ada, session, token).await.unwrap(), Standing::TokenRevoked);
    assert_eq!(standing(&accounts, &ada, session).await, Standing::Active);
    assert_eq!(revocations(&accounts).await, [(ada, None, Some(token))]);
}

pub(crate) async fn standing_is_of_the_very_user(accounts: impl Accounts) {
    let (ada, bob) = (with_user(&accounts, "ada").await, with_user(&accounts, "bob").await);
    let (session, _) = with_session(&accounts, &ada).await;
    assert_eq!(standing(&accounts, &ada, session).await, Standing::Active);
    assert_eq!(standing(&accounts, &bob, session).await, Standing::SessionRevoked);
    assert_eq!(standing(&accounts, &name("carl"), session).await, Standing::UnknownUser);
    assert_eq!(standing(&accounts, &ada, Uuid::new_v4()).await, Standing::SessionRevoked);
}

pub(crate) async fn revocations_are_followed_by_id(accounts: impl Accounts) {
    assert_eq!(accounts.latest_revocation_id().await.unwrap(), 0);
    let ada = with_user(&accounts, "ada").await;
    for _ in 0..5 {
        accounts.revoke_token(&ada, Uuid::new_v4(), LATER, NOW).await.unwrap();
    }
    let first = accounts.revocations_after(0, 3).await.unwrap();
    let rest = accounts.revocations_after(first[2].id, 100).await.unwrap();
    let ids: Vec<_> = first.iter().chain(&rest).map(|revocation| revocation.id).collect();
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let latest = accounts.latest_revocation_id().await.unwrap();
    assert_eq!(latest, ids[4]);
    assert_eq!(accounts.revocations_after(latest, 100).await.unwrap(), []);

    // Forgotten ids don't come back.
    while accounts.prune(Millis(LATER.0 + 1), 100).await.unwrap() > 0 {}
    assert_eq!(accounts.latest_revocation_id().await.unwrap(), latest);
    accounts.revoke_token(&ada, Uuid::new_v4(), LATER, NOW).await.unwrap();
    assert!(accounts.revocations_after(latest, 100).await.unwrap()[0].id > latest);
}

pub(crate) async fn what_has_expired_is_forgotten_a_little_at_a_time(accounts: impl Accounts) {
    let ada = with_user(&accounts, "ada").await;
    for _ in 0..5 {
        let (session, _) = with_session(&accounts, &ada).await;
        accounts.end_session(session, NOW).await.unwrap();
    }
    let (mut longer, refresh) = new_session(&ada);
    longer.expires_at = Millis(LATER.0 + 1);
    accounts.start_session(&longer).await.unwrap();

    assert_eq!(accounts.prune(LATER, 100).await.unwrap(), 0, "what expires now is not before now");
    let forgotten = accounts.prune(Millis(LATER.0 + 1), 3).await.unwrap();
    assert!((1..=6).contains(&forgotten), "{forgotten}");
    while accounts.prune(Millis(LATER.0 + 1), 3).await.unwrap() > 0 {}
    assert_eq!(accounts.revocations_after(0, 100).await.unwrap(), []);
    assert_eq!(standing(&accounts, &ada, longer.session_id).await, Standing::Active);
    assert!(matches!(rotate(&accounts, &refresh).await.0, Rotation::Rotated { .. }));
    assert!(accounts.user(&ada).await.unwrap().is_some());
}
