//! Users that chat through restarts, as a careful client would: they reconnect, resume from what they have without
//! a hole, repeat what has no answer under the same `client_id` (oldest first, before anything new in that channel),
//! and keep several sends in flight. What they saw goes to the oracle.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Auth, Client, Closed, Encoding, resume_request, send_request};
use crate::http::Http;
use crate::oracle::record::{Connection, Entry, History, Hit, Record};
use crate::oracle::{self, Promise, Violation};
use crate::rng::Rng;
use crate::server::Server;

const USERS: [&str; 8] = ["ada", "bob", "cleo", "dan", "eve", "fay", "gus", "hal"];
const GROUPS: [(&str, &[usize]); 3] =
    [("everyone", &[0, 1, 2, 3, 4, 5, 6, 7]), ("few", &[0, 1, 2]), ("odd", &[1, 3, 5, 7])];
const DIRECT: [(usize, usize); 3] = [(0, 1), (2, 7), (4, 5)];
/// A user's sends without an answer, over all channels.
const IN_FLIGHT: usize = 6;
const TICK: Duration = Duration::from_millis(4);
const WELCOME_LIMIT: Duration = Duration::from_secs(15);
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
const SEARCH_LIMIT: Duration = Duration::from_secs(5);
/// While settling, how often a send that isn't known to be persisted is repeated.
const REPEAT_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Load,
    /// No new sends; each user ends when all of its sends are persisted (or accepted, if it is trusting).
    Settle,
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
    addr: watch::Sender<Option<SocketAddr>>,
    phase: watch::Sender<Phase>,
    tasks: JoinSet<(User, Vec<Connection>)>,
    record: Record,
}

impl Swarm {
    /// The limits that eight users at full speed would meet, lifted.
    pub fn server() -> Server {
        Server::builder().env("AULA_SESSION_REQUESTS_PER_SECOND", 100_000).start()
    }

    /// Makes users and channels on a running server, and sets them going.
    pub async fn start(server: &Server, seed: u64) -> Self {
        let http = Http::new(server.addr());
        let mut clients = Vec::new();
        let mut tokens = Vec::new();
        for (index, name) in USERS.iter().enumerate() {
            let token = http.new_user(name).await;
            clients.push(Client::connect(server.addr(), name, &token, Encoding::BOTH[index % 2]).await);
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
            addr: watch::Sender::new(Some(server.addr())),
            phase: watch::Sender::new(Phase::Load),
            tasks: JoinSet::new(),
            record: Record::default(),
        };
        swarm.record.connections.extend(clients.iter().map(Client::record));
        for (index, (token, channels)) in tokens.into_iter().zip(channels).enumerate() {
            let user = User::new(index, token, &channels, seed);
            swarm.tasks.spawn(user.run(swarm.addr.subscribe(), swarm.phase.subscribe()));
        }
        swarm
    }

    pub fn server_is_down(&self) {
        self.addr.send_replace(None);
    }

    pub fn server_is_at(&self, addr: SocketAddr) {
        self.addr.send_replace(Some(addr));
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

    /// Waits until every send is persisted, reads every channel as every member, searches, and asks the oracle.
    pub async fn judge(mut self, server: &Server) -> (Counts, Vec<Violation>) {
        let mut users = Vec::new();
        let mut counts = Counts::default();
        let settled = async {
            while let Some(ended) = self.tasks.join_next().await {
                let (user, connections) = ended.expect("a user failed");
                counts.add(&user.counts);
                self.record.connections.extend(connections);
                users.push(user);
            }
        };
        let settled = tokio::time::timeout(SETTLE_LIMIT, settled).await;
        assert!(settled.is_ok(), "not all sends are persisted after {SETTLE_LIMIT:?}; server:\n{}", server.stderr());
        // A channel is stored in order: behind a message that is sent now, nothing accepted is on its way any more.
        let mut clients = Vec::new();
        let mut marked = HashSet::new();
        for user in &users {
            let client = Client::connect(server.addr(), &user.name, &user.token, user.encoding).await;
            for id in user.contiguous.keys() {
                if marked.insert(id.clone()) {
                    client.send_persisted(id, "the end").await;
                }
            }
            clients.push(client);
        }
        let mut unfound = Vec::new();
        for (user, client) in users.iter_mut().zip(clients) {
            for id in user.contiguous.keys() {
                let entries = client.history_all(id).await;
                let entries = entries.iter().map(|entry| Entry::from_value(entry, Some(id)).unwrap()).collect();
                let (reader, channel) = (user.name.clone(), id.clone());
                self.record.histories.push(History { reader, channel, from: 1, entries });
            }
            for word in user.words_to_search() {
                let hits = search(&client, &word).await;
                if hits.is_empty() {
                    let detail = format!("{} finds nothing for {word} within {SEARCH_LIMIT:?}", user.name);
                    unfound.push(Violation { promise: Promise::P10, detail });
                }
                self.record.hits.extend(hits);
            }
            self.record.connections.push(client.record());
        }
        let mut violations = oracle::check(&self.record);
        violations.extend(unfound);
        (counts, violations)
    }
}

/// What is found by a word of a persisted message; the index may be behind for a while. Empty when the time is up.
async fn search(client: &Client, word: &str) -> Vec<Hit> {
    let deadline = Instant::now() + SEARCH_LIMIT;
    loop {
        let reply = client.request(json!({"op": "search", "query": word, "limit": 10})).await;
        let hits = reply["hits"].as_array().unwrap_or_else(|| panic!("search for {word}: {reply}"));
        if !hits.is_empty() || Instant::now() >= deadline {
            let reader = &client.username;
            let entries = hits.iter().map(|hit| Entry::from_value(hit, None).unwrap());
            return entries.map(|entry| Hit { reader: reader.clone(), entry }).collect();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be sent, or sent again.
    Waiting,
    /// Sent on this connection under this `ref`.
    InFlight(u64),
    /// Accepted; stays here until it is known to be persisted.
    Accepted,
}

#[derive(Debug)]
struct Outgoing {
    client_id: String,
    body: String,
    attempts: u32,
    state: State,
}

struct User {
    name: String,
    token: String,
    encoding: Encoding,
    rng: Rng,
    /// By channel: the last seq up to which this user has everything.
    contiguous: BTreeMap<String, u64>,
    /// By channel, in the order of the first attempts.
    outgoing: HashMap<String, VecDeque<Outgoing>>,
    /// The pages of history asked for on this connection.
    pages: HashMap<u64, String>,
    words: u64,
    /// Takes "accepted" at its word and forgets the message: so what is lost after that stays lost. The others
    /// repeat it until it is persisted.
    trusting: bool,
    counts: Counts,
}

impl User {
    fn new(index: usize, token: String, channels: &[String], seed: u64) -> Self {
        Self {
            name: USERS[index].to_owned(),
            token,
            encoding: Encoding::BOTH[index % 2],
            rng: Rng::new(seed.wrapping_add(index as u64 + 1)),
            contiguous: channels.iter().map(|id| (id.clone(), 0)).collect(),
            outgoing: channels.iter().map(|id| (id.clone(), VecDeque::new())).collect(),
            pages: HashMap::new(),
            words: 0,
            trusting: index % 4 < 2,
            counts: Counts::default(),
        }
    }

    async fn run(
        mut self,
        mut addr: watch::Receiver<Option<SocketAddr>>,
        phase: watch::Receiver<Phase>,
    ) -> (Self, Vec<Connection>) {
        let mut connections = Vec::new();
        loop {
            let Some(at) = addr.wait_for(Option::is_some).await.ok().and_then(|addr| *addr) else {
                return (self, connections);
            };
            let token = self.token.clone();
            let auth = if self.rng.one_in(2) { Auth::Bearer(&token) } else { Auth::FirstFrame(&token) };
            let Ok(client) = Client::try_connect(at, &self.name, auth, self.encoding).await else {
                tokio::time::sleep(Duration::from_millis(3)).await;
                continue;
            };
            self.counts.connections += 1;
            let outcome = self.session(&client, phase.clone()).await;
            connections.push(client.record());
            if outcome.is_ok() {
                client.close().await;
                return (self, connections);
            }
        }
    }

    /// One connection, from its welcome to its end; `Ok` when all is settled.
    async fn session(&mut self, client: &Client, mut phase: watch::Receiver<Phase>) -> Result<(), Closed> {
        let mut cursor = 0;
        self.pages.clear();
        self.await_welcome(client, &mut cursor).await?;
        let resume = resume_request(self.contiguous.iter().map(|(id, seq)| (id.as_str(), *seq)));
        client.post(resume).await?;
        for outgoing in self.outgoing.values_mut().flatten() {
            let again = match outgoing.state {
                State::Accepted => self.rng.one_in(4) || *phase.borrow() == Phase::Settle,
                State::InFlight(_) | State::Waiting => true,
            };
            if again {
                outgoing.state = State::Waiting;
            }
        }
        for channel in self.channels() {
            self.send_waiting(client, &channel).await?;
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut repeat_at = Instant::now() + REPEAT_EVERY;
        loop {
            let now = *phase.borrow_and_update();
            if now == Phase::Settle && self.outgoing.values().all(VecDeque::is_empty) {
                return Ok(());
            }
            tokio::select! {
                frames = client.next_frames(&mut cursor) => {
                    for frame in frames.ok_or(Closed)? {
                        self.receive(client, &frame).await?;
                    }
                }
                _ = tick.tick() => self.act(client, now).await?,
                _ = phase.changed() => {}
            }
            if now == Phase::Settle && Instant::now() >= repeat_at {
                repeat_at = Instant::now() + REPEAT_EVERY;
                let accepted = self.outgoing.values_mut().flatten().filter(|sent| sent.state == State::Accepted);
                accepted.for_each(|sent| sent.state = State::Waiting);
            }
        }
    }

    async fn await_welcome(&mut self, client: &Client, cursor: &mut usize) -> Result<(), Closed> {
        let deadline = Instant::now() + WELCOME_LIMIT;
        loop {
            let frames = tokio::time::timeout_at(deadline, client.next_frames(cursor)).await;
            let frames = frames.unwrap_or_else(|_| panic!("{}: no welcome within {WELCOME_LIMIT:?}", self.name));
            let frames = frames.ok_or(Closed)?;
            for frame in &frames {
                self.receive(client, frame).await?;
            }
            if frames.iter().any(|frame| frame["op"] == "welcome") {
                return Ok(());
            }
        }
    }

    fn channels(&self) -> Vec<String> {
        self.contiguous.keys().cloned().collect()
    }

    async fn act(&mut self, client: &Client, phase: Phase) -> Result<(), Closed> {
        let channels = self.channels();
        let channel = self.rng.pick(&channels).clone();
        if self.rng.one_in(6) {
            let op = if self.rng.one_in(2) { "delivered" } else { "read" };
            let seq = self.contiguous[&channel];
            client.post(json!({"op": op, "channel": channel, "seq": seq})).await?;
        }
        if phase == Phase::Load && self.in_flight() < IN_FLIGHT {
            for _ in 0..self.rng.between(1, 3) {
                let outgoing = self.compose();
                self.outgoing.get_mut(&channel).unwrap().push_back(outgoing);
            }
        }
        for channel in channels {
            self.send_waiting(client, &channel).await?;
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.outgoing.values().flatten().filter(|outgoing| outgoing.state != State::Accepted).count()
    }

    fn compose(&mut self) -> Outgoing {
        self.words += 1;
        self.counts.messages += 1;
        let filler = match self.rng.below(40) {
            0 => "long ".repeat(400),
            1 => "naïve Ünïcödé ☃ \u{1F980} \"quoted\" \\ \n two lines".to_owned(),
            _ => "says hello".to_owned(),
        };
        let client_id = if self.rng.one_in(2) { uuid::Uuid::new_v4() } else { uuid::Uuid::now_v7() };
        let body = format!("{} {filler}", self.word(self.words));
        Outgoing { client_id: client_id.to_string(), body, attempts: 0, state: State::Waiting }
    }

    /// A word that is in one message only.
    fn word(&self, number: u64) -> String {
        format!("{}word{number:06}", self.name)
    }

    fn words_to_search(&mut self) -> Vec<String> {
        let picks: Vec<u64> = (0..3).filter(|_| self.words > 0).map(|_| self.rng.between(1, self.words)).collect();
        picks.into_iter().map(|number| self.word(number)).collect()
    }

    /// Sends what waits in the channel, oldest first.
    async fn send_waiting(&mut self, client: &Client, channel: &str) -> Result<(), Closed> {
        for outgoing in self.outgoing.get_mut(channel).unwrap() {
            if outgoing.state != State::Waiting {
                continue;
            }
            let retry = outgoing.attempts > 0;
            self.counts.attempts += 1;
            self.counts.retries += u64::from(retry);
            outgoing.attempts += 1;
            let request = send_request(channel, &outgoing.body, &outgoing.client_id, retry);
            outgoing.state = State::InFlight(client.post(request).await?);
        }
        Ok(())
    }

    async fn receive(&mut self, client: &Client, frame: &Value) -> Result<(), Closed> {
        self.counts.received += 1;
        match frame["op"].as_str() {
            Some("message") => self.advance(frame),
            Some("status") if frame["status"] == "persisted" => {
                let id = &frame["client_id"];
                let of_channel = frame["channel"].as_str().and_then(|channel| self.outgoing.get_mut(channel));
                let of_channel = of_channel.expect("persisted names a channel of the sender");
                of_channel.retain(|outgoing| *id != *outgoing.client_id);
                self.counts.persisted += 1;
            }
            // Nobody leaves a channel here.
            Some("status") if frame["status"] == "rejected" => panic!("{}: {frame}", self.name),
            Some("ok") => return self.receive_ok(client, frame).await,
            Some("error") => self.receive_error(frame),
            Some("gap") => self.counts.gaps += 1,
            _ => {}
        }
        Ok(())
    }

    fn advance(&mut self, entry: &Value) {
        let (channel, seq) = (entry["channel"].as_str().unwrap_or_default(), entry["seq"].as_u64());
        if let Some(contiguous) = self.contiguous.get_mut(channel)
            && seq == Some(*contiguous + 1)
        {
            *contiguous += 1;
        }
    }

    async fn receive_ok(&mut self, client: &Client, frame: &Value) -> Result<(), Closed> {
        let reference = frame["ref"].as_u64().expect("a reply repeats its ref");
        if frame["status"] == "accepted" {
            for outgoing in self.outgoing.values_mut() {
                let Some(index) = outgoing.iter().position(|sent| sent.state == State::InFlight(reference)) else {
                    continue;
                };
                outgoing[index].state = State::Accepted;
                self.counts.accepted += 1;
                if self.trusting {
                    outgoing.remove(index);
                }
            }
        } else if let Some(channel) = self.pages.remove(&reference) {
            frame["messages"].as_array().into_iter().flatten().for_each(|entry| self.advance(entry));
            if frame["more"] == true {
                self.ask_page(client, channel).await?;
            }
        } else if let Some(resumed) = frame["channels"].as_object() {
            for (channel, reply) in resumed {
                if reply["complete"] == false {
                    self.ask_page(client, channel.clone()).await?;
                }
            }
        }
        Ok(())
    }

    async fn ask_page(&mut self, client: &Client, channel: String) -> Result<(), Closed> {
        let after = self.contiguous[&channel];
        let request = json!({"op": "history", "channel": channel, "after": after, "limit": 100});
        self.pages.insert(client.post(request).await?, channel);
        Ok(())
    }

    fn receive_error(&mut self, frame: &Value) {
        let reference = frame["ref"].as_u64();
        let mut all = self.outgoing.values_mut().flatten();
        let sent = all.find(|sent| matches!(sent.state, State::InFlight(sent) if Some(sent) == reference));
        match sent {
            // A receipt for an entry that this run of the server hasn't broadcast yet may be refused.
            None => assert_ne!(frame["code"], "unauthorized", "{}: {frame}", self.name),
            Some(outgoing) if frame["retry"] == true => {
                outgoing.state = State::Waiting;
                self.counts.deferred += 1;
            }
            Some(outgoing) => panic!("{}: {outgoing:?} was refused: {frame}", self.name),
        }
    }
}
