//! Users that chat through restarts, as a careful client would: they reconnect, resume from what they have without
//! a hole, repeat what has no answer under the same `client_id` (oldest first, before anything new in that channel),
//! and keep several sends in flight. What they saw goes to the oracle.
//!
//! Where there are several gateways, each reconnect goes to another one, and every other user has a second session that
//! only listens, on another gateway than the first.

mod user;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use aula::oracle::frame::Message;
use aula::oracle::{self, Promise, Record, Recorder, Verdict, Violation};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Client, Encoding, recorder};
use crate::http::Http;
use crate::server::Server;
use user::User;

const USERS: [&str; 8] = ["ada", "bob", "cleo", "dan", "eve", "fay", "gus", "hal"];
const GROUPS: [(&str, &[usize]); 3] =
    [("everyone", &[0, 1, 2, 3, 4, 5, 6, 7]), ("few", &[0, 1, 2]), ("odd", &[1, 3, 5, 7])];
const DIRECT: [(usize, usize); 3] = [(0, 1), (2, 7), (4, 5)];
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Load,
    /// No new sends; each user ends when all of its sends are persisted (or accepted, if it is trusting).
    Settle,
    /// The listeners end, too.
    Over,
}

/// How hard and how patient the users are.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often each user does something.
    pub tick: Duration,
    /// How long a welcome may take.
    pub welcome: Duration,
    /// How long the index may be behind at the end.
    pub search: Duration,
}

impl Pace {
    /// For one server that has the machine to itself.
    pub const FAST: Self =
        Self { tick: Duration::from_millis(4), welcome: Duration::from_secs(15), search: Duration::from_secs(5) };
    /// For a deployment of several processes and servers on one machine, whose faults take seconds.
    pub const STEADY: Self =
        Self { tick: Duration::from_millis(40), welcome: Duration::from_secs(60), search: Duration::from_secs(45) };
    /// For servers that have to start beside it.
    pub const CALM: Self = Self { tick: Duration::from_millis(200), ..Self::STEADY };
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub connections: u64,
    pub messages: u64,
    pub attempts: u64,
    pub retries: u64,
    pub accepted: u64,
    pub persisted: u64,
    pub deferred: u64,
    pub gaps: u64,
    pub received: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.messages += other.messages;
        self.attempts += other.attempts;
        self.retries += other.retries;
        self.accepted += other.accepted;
        self.persisted += other.persisted;
        self.deferred += other.deferred;
        self.gaps += other.gaps;
        self.received += other.received;
    }
}

pub struct Swarm {
    /// The servers that are up; empty while there is none.
    places: watch::Sender<Vec<SocketAddr>>,
    phase: watch::Sender<Phase>,
    tasks: JoinSet<(User, Record)>,
    listeners: JoinSet<Record>,
    /// Of what was before the users began, and after they ended.
    recorder: Recorder,
    /// Of the users and listeners that have ended.
    records: Vec<Record>,
    pace: Pace,
}

impl Swarm {
    /// The limits that eight users at full speed would meet, lifted.
    pub fn server() -> Server {
        Server::builder().env("AULA_SESSION_REQUESTS_PER_SECOND", 100_000).start()
    }

    /// Makes users and channels on a running server, and sets them going.
    pub async fn start(server: &Server, seed: u64) -> Self {
        Self::start_at(&[server.addr()], seed, Pace::FAST).await
    }

    /// As `start`, on any number of gateways.
    pub async fn start_at(places: &[SocketAddr], seed: u64, pace: Pace) -> Self {
        let place = |index: usize| places[index % places.len()];
        let mut clients = Vec::new();
        let mut tokens = Vec::new();
        for (index, name) in USERS.iter().enumerate() {
            let token = Http::new(place(index)).new_user(name).await;
            clients.push(Client::connect(place(index), name, &token, Encoding::BOTH[index % 2]).await);
            tokens.push(token);
        }
        let mut channels: Vec<Vec<String>> = vec![Vec::new(); USERS.len()];
        for (name, members) in GROUPS {
            let others: Vec<&str> = members[1..].iter().map(|member| USERS[*member]).collect();
            let id = clients[members[0]].create_group(name, &others).await;
            members.iter().for_each(|member| channels[*member].push(id.clone()));
        }
        for (one, other) in DIRECT {
            let id = clients[one].create_direct(USERS[other]).await;
            [one, other].iter().for_each(|member| channels[*member].push(id.clone()));
        }
        for (client, channels) in clients.iter().zip(&channels) {
            for id in channels {
                client.wait_for(|frame| frame["op"] == "channel_created" && frame["channel"]["id"] == **id).await;
            }
            client.close().await;
        }
        let mut swarm = Self {
            places: watch::Sender::new(places.to_vec()),
            phase: watch::Sender::new(Phase::Load),
            tasks: JoinSet::new(),
            listeners: JoinSet::new(),
            recorder: recorder(),
            records: Vec::new(),
            pace,
        };
        clients.iter().for_each(|client| client.record(&mut swarm.recorder));
        for (index, (token, channels)) in tokens.into_iter().zip(channels).enumerate() {
            if places.len() > 1 && index % 2 == 0 {
                // Where its user isn't, to begin with.
                let listener = User::new(index, token.clone(), &channels, seed, pace).at_place(index + 1);
                swarm.listeners.spawn(listener.listen(swarm.places.subscribe(), swarm.phase.subscribe()));
            }
            let user = User::new(index, token, &channels, seed, pace);
            swarm.tasks.spawn(user.run(swarm.places.subscribe(), swarm.phase.subscribe()));
        }
        swarm
    }

    pub fn server_is_down(&self) {
        self.places.send_replace(Vec::new());
    }

    pub fn server_is_at(&self, addr: SocketAddr) {
        self.places.send_replace(vec![addr]);
    }

    pub fn servers_are_at(&self, places: &[SocketAddr]) {
        self.places.send_replace(places.to_vec());
    }

    /// Panics with the first user's failure, if one has failed.
    pub async fn still_well(&mut self) {
        if let Some(ended) = self.tasks.try_join_next() {
            let (user, _) = ended.expect("a user failed");
            panic!("{} ended before it was told to", user.name);
        }
        tokio::task::yield_now().await;
    }

    /// From here on nothing new is sent. Restart the server once more after this: then each user repeats all that it
    /// doesn't know to be persisted.
    pub fn settle(&self) {
        self.phase.send_replace(Phase::Settle);
    }

    /// As `judge_at`, on one server.
    pub async fn judge(self, server: &Server) -> (Counts, Verdict) {
        self.judge_at(&[server.addr()], || server.stderr()).await
    }

    /// Waits until every send is persisted, reads every channel as every member, searches, and asks the oracle.
    pub async fn judge_at(mut self, places: &[SocketAddr], logs: impl Fn() -> String) -> (Counts, Verdict) {
        let mut users = Vec::new();
        let mut counts = Counts::default();
        let settled = async {
            while let Some(ended) = self.tasks.join_next().await {
                let (user, record) = ended.expect("a user failed");
                counts.add(&user.counts);
                self.records.push(record);
                users.push(user);
            }
        };
        let settled = tokio::time::timeout(SETTLE_LIMIT, settled).await;
        assert!(settled.is_ok(), "not all sends are persisted after {SETTLE_LIMIT:?}; server:\n{}", logs());
        // A channel is stored in order: behind a message that is sent now, nothing accepted is on its way any more.
        let mut clients = Vec::new();
        let mut marked = HashSet::new();
        for (index, user) in users.iter().enumerate() {
            let place = places[index % places.len()];
            let client = Client::connect(place, &user.name, &user.token, user.encoding).await;
            for id in user.contiguous.keys() {
                if marked.insert(id.clone()) {
                    client.send_persisted(id, "the end").await;
                }
            }
            clients.push(client);
        }
        self.phase.send_replace(Phase::Over);
        while let Some(ended) = self.listeners.join_next().await {
            self.records.push(ended.expect("a listener failed"));
        }
        let mut unfound = Vec::new();
        for (user, client) in users.iter_mut().zip(clients) {
            for id in user.contiguous.keys() {
                client.record_history(id, &mut self.recorder).await;
            }
            for word in user.words_to_search() {
                if !search(&client, &word, self.pace.search, &mut self.recorder).await {
                    let detail = format!("{} finds nothing for {word} within {:?}", user.name, self.pace.search);
                    unfound.push(Violation { promise: Promise::P10, detail, messages: Vec::new() });
                }
            }
            client.record(&mut self.recorder);
        }
        self.records.push(self.recorder.into_record().unwrap());
        let mut verdict = oracle::check(&Record::merge(self.records));
        unfound.into_iter().for_each(|violation| verdict.add(violation));
        (counts, verdict)
    }
}

/// Records what is found by a word of a persisted message, and says whether anything is; the index may be behind for a
/// while.
async fn search(client: &Client, word: &str, limit: Duration, recorder: &mut Recorder) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let reply = client.request(json!({"op": "search", "query": word, "limit": 10})).await;
        let hits = reply["hits"].as_array().unwrap_or_else(|| panic!("search for {word}: {reply}"));
        if !hits.is_empty() || Instant::now() >= deadline {
            let reader = recorder.user(&client.username);
            for hit in hits {
                recorder.hit(reader, &Message::from_value(hit).unwrap()).unwrap();
            }
            return !hits.is_empty();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
