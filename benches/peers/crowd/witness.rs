use std::sync::Arc;

use aula::ops::simulate::engine::clock;
use aula::oracle::frame::{Received, Sent};
use aula::oracle::record::ConnectionNo;
use aula::oracle::{Record, Recorder};

use crate::cast::Cast;

/// What a crowd's clients say to aula and hear of it, for the oracle.
pub struct Witness {
    cast: Arc<Cast>,
    recorder: Recorder,
    /// By client.
    connections: Vec<Option<ConnectionNo>>,
    references: u64,
}

impl Witness {
    pub fn new(cast: &Arc<Cast>) -> Self {
        let connections = vec![None; cast.people.len()];
        Self { cast: Arc::clone(cast), recorder: Recorder::new(usize::MAX), connections, references: 0 }
    }

    /// Its handshake begins, or it is there already.
    pub fn open(&mut self, client: u32) {
        let user = self.recorder.user(&self.cast.people[client as usize].name);
        self.connections[client as usize] = Some(self.recorder.open(user, clock::now()));
    }

    /// One that no other send has.
    pub fn reference(&mut self) -> u64 {
        self.references += 1;
        self.references
    }

    /// Before it is sent.
    pub fn says(&mut self, client: u32, text: &str) {
        if let Some(connection) = self.connections[client as usize] {
            self.recorder.sent(connection, clock::now(), &Sent::from_json(text.as_bytes()).unwrap());
        }
    }

    pub fn hears(&mut self, client: u32, text: &str, at: u64) {
        let Some(connection) = self.connections[client as usize] else { return };
        match Received::from_json(text.as_bytes()) {
            Ok(frame) => self.recorder.received(connection, at, &frame),
            Err(problem) => self.recorder.malformed(connection, at, &problem),
        }
    }

    pub fn into_record(mut self) -> Record {
        let at = clock::now();
        self.connections.iter().flatten().for_each(|connection| self.recorder.close(*connection, at));
        self.recorder.into_record().unwrap()
    }
}
