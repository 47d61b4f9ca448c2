//! One user of the swarm.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use aula::oracle::Record;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Counts, Pace, Phase, USERS};
use crate::client::{Auth, Client, Closed, Encoding, recorder, resume_request, send_request};
use crate::rng::Rng;

/// A user's sends without an answer, over all channels.
const IN_FLIGHT: usize = 6;
/// While settling, how often a send that isn't known to be persisted is repeated.
const REPEAT_EVERY: Duration = Duration::from_secs(2);
/// The pause after an attempt to connect that failed: from, and by doubling up to.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(200));
/// The longest wait for a server that asked for one: it is to be tried while it is overloaded, too.
const DEFER: Duration = Duration::from_millis(500);

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

pub(super) struct User {
    pub(super) name: String,
    pub(super) token: String,
    pub(super) encoding: Encoding,
    rng: Rng,
    /// By channel: the last seq up to which this user has everything.
    pub(super) contiguous: BTreeMap<String, u64>,
    /// By channel, in the order of the first attempts.
    outgoing: HashMap<String, VecDeque<Outgoing>>,
    /// The pages of history asked for on this connection.
    pages: HashMap<u64, String>,
    words: u64,
    /// Takes "accepted" at its word and forgets the message: so what is lost after that stays lost. The others
    /// repeat it until it is persisted.
    trusting: bool,
    pub(super) counts: Counts,
    pace: Pace,
    /// Counts the connections: which server the next one goes to.
    place: usize,
    /// A server asked for some time.
    deferred_until: Instant,
}

impl User {
    pub(super) fn new(index: usize, token: String, channels: &[String], seed: u64, pace: Pace) -> Self {
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
            pace,
            place: index,
            deferred_until: Instant::now(),
        }
    }

    pub(super) const fn at_place(mut self, place: usize) -> Self {
        self.place = place;
        self
    }

    pub(super) async fn run(
        mut self,
        mut places: watch::Receiver<Vec<SocketAddr>>,
        phase: watch::Receiver<Phase>,
    ) -> (Self, Record) {
        let mut recorder = recorder();
        while let Some(client) = self.connect(&mut places).await {
            self.counts.connections += 1;
            let outcome = self.session(&client, phase.clone()).await;
            client.record(&mut recorder);
            if outcome.is_ok() {
                client.close().await;
                break;
            }
        }
        (self, recorder.into_record().unwrap())
    }

    /// A second session that only listens, and resumes as the first does; until all is over.
    pub(super) async fn listen(
        mut self,
        mut places: watch::Receiver<Vec<SocketAddr>>,
        mut phase: watch::Receiver<Phase>,
    ) -> Record {
        let mut recorder = recorder();
        loop {
            let client = tokio::select! {
                client = self.connect(&mut places) => client,
                _ = phase.wait_for(|phase| *phase == Phase::Over) => None,
            };
            let Some(client) = client else { return recorder.into_record().unwrap() };
            let session = async {
                let mut cursor = 0;
                self.pages.clear();
                self.await_welcome(&client, &mut cursor).await?;
                self.resume(&client).await?;
                loop {
                    for frame in client.next_frames(&mut cursor).await.ok_or(Closed)? {
                        if frame["op"] != "status" {
                            self.receive(&client, &frame).await?;
                        }
                    }
                }
            };
            let ended: Option<Result<(), Closed>> = tokio::select! {
                ended = session => Some(ended),
                _ = phase.wait_for(|phase| *phase == Phase::Over) => None,
            };
            client.record(&mut recorder);
            if ended.is_none() {
                client.close().await;
            }
        }
    }

    /// To the next server that is up, as soon as it takes us; none if the swarm is gone.
    async fn connect(&mut self, places: &mut watch::Receiver<Vec<SocketAddr>>) -> Option<Client> {
        let mut pause = RECONNECT.0;
        loop {
            let place = {
                let places = places.wait_for(|places| !places.is_empty()).await.ok()?;
                places[self.place % places.len()]
            };
            self.place += 1;
            let token = self.token.clone();
            let auth = if self.rng.one_in(2) { Auth::Bearer(&token) } else { Auth::FirstFrame(&token) };
            match Client::try_connect(place, &self.name, auth, self.encoding).await {
                Ok(client) => return Some(client),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(RECONNECT.1);
        }
    }

    async fn resume(&self, client: &Client) -> Result<(), Closed> {
        let resume = resume_request(self.contiguous.iter().map(|(id, seq)| (id.as_str(), *seq)));
        client.post(resume).await.map(drop)
    }

    /// One connection, from its welcome to its end; `Ok` when all is settled.
    async fn session(&mut self, client: &Client, mut phase: watch::Receiver<Phase>) -> Result<(), Closed> {
        let mut cursor = 0;
        self.pages.clear();
        self.await_welcome(client, &mut cursor).await?;
        self.resume(client).await?;
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
        let mut tick = tokio::time::interval(self.pace.tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut repeat_at = Instant::now() + REPEAT_EVERY;
        loop {
            let now = *phase.borrow_and_update();
            if now != Phase::Load && self.outgoing.values().all(VecDeque::is_empty) {
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
        let limit = self.pace.welcome;
        let deadline = Instant::now() + limit;
        loop {
            let frames = tokio::time::timeout_at(deadline, client.next_frames(cursor)).await;
            let frames = frames.unwrap_or_else(|_| panic!("{}: no welcome within {limit:?}", self.name));
            let Some(frames) = frames else {
                // Sent away: not again at once.
                tokio::time::sleep(Duration::from_millis(self.rng.between(3, 50))).await;
                return Err(Closed);
            };
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
        if self.rng.one_in(8) {
            // On whatever gateway: it has all that anybody was told to be persisted.
            client.post(json!({"op": "history", "channel": channel, "limit": 5})).await?;
        }
        if Instant::now() < self.deferred_until {
            return Ok(());
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

    pub(super) fn words_to_search(&mut self) -> Vec<String> {
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
                let wait = Duration::from_millis(frame["retry_after_ms"].as_u64().unwrap_or(0)).min(DEFER);
                self.deferred_until = Instant::now() + wait;
            }
            Some(outgoing) => panic!("{}: {outgoing:?} was refused: {frame}", self.name),
        }
    }
}
