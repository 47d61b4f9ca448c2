//! Who exists, who is in what, and when what happens: the same in each process of a run, from the same settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::engine::Rng;
use super::scenario::{Phase, PhaseKind, Scenario, Shape, ShapeKind};

/// Channels that one client is put into, at most: a welcome lists no more.
const MAX_CHANNELS: usize = 200;

/// What makes a run, besides the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    pub scenario: Scenario,
    /// Tells the run's channels and people from all others.
    pub run: String,
    pub seed: u64,
    /// The accounts were not made for the run: they may be in channels that are none of its business.
    pub are_accounts_given: bool,
}

/// A client's person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    pub name: String,
    pub token: String,
}

/// A channel that is made for the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    pub is_direct: bool,
    /// Clients, each once; the first makes the channel.
    pub members: Vec<u32>,
}

/// A part of the time in which messages are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Nanoseconds since messages began.
    pub begin: u64,
    pub end: u64,
    /// Messages a second, of all clients together.
    pub rate: f64,
    /// The share of clients that are cut off at its beginning, and how long they take to come back, in nanoseconds.
    pub storm: Option<(f64, u64)>,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub settings: Settings,
    pub accounts: Vec<Account>,
    pub channels: Vec<Channel>,
    /// Each client's channels, with the weight of all up to it.
    pub of_client: Vec<Vec<(u32, f64)>>,
    pub spans: Vec<Span>,
}

impl Plan {
    /// One client for each account.
    pub fn new(settings: Settings, accounts: Vec<Account>) -> Self {
        let clients = accounts.len() as u32;
        let mut rng = Rng::part(settings.seed, 1);
        let mut channels = Vec::new();
        let mut of_client: Vec<Vec<(u32, f64)>> = vec![Vec::new(); accounts.len()];
        for shape in &settings.scenario.channels {
            for members in memberships(shape, clients, &mut rng) {
                let has_room = |client: &u32| of_client[*client as usize].len() < MAX_CHANNELS;
                let members: Vec<u32> = members.into_iter().filter(has_room).collect();
                if members.len() < 2 {
                    continue;
                }
                for client in &members {
                    let of_client = &mut of_client[*client as usize];
                    let before = of_client.last().map_or(0.0, |(_, weight)| *weight);
                    of_client.push((channels.len() as u32, before + shape.weight));
                }
                // Of two people there is one direct channel for good, with what they said in earlier runs.
                let is_direct = shape.shape == ShapeKind::Direct && !settings.are_accounts_given;
                channels.push(Channel { is_direct, members });
            }
        }
        let spans = spans(&settings.scenario);
        Self { settings, accounts, channels, of_client, spans }
    }

    pub fn clients(&self) -> u32 {
        self.accounts.len() as u32
    }

    /// Whether a client is in any channel that something is said in.
    pub fn can_write(&self, client: u32) -> bool {
        self.of_client
            .get(client as usize)
            .and_then(|channels| channels.last())
            .is_some_and(|(_, weight)| *weight > 0.0)
    }

    /// Clients who can write: the messages of a run are theirs.
    pub fn writers(&self) -> u32 {
        (0..self.clients()).filter(|client| self.can_write(*client)).count() as u32
    }

    /// One of a client's channels, by weight; none if it is in none that anything is said in.
    pub fn choose_channel(&self, client: u32, rng: &mut Rng) -> Option<u32> {
        let channels = self.of_client.get(client as usize)?;
        let (_, whole) = channels.last()?;
        let point = rng.unit() * whole;
        let index = channels.partition_point(|(_, weight)| *weight <= point);
        channels.get(index).map(|(channel, _)| *channel)
    }

    /// The name of a channel that is a group.
    pub fn group_name(&self, channel: u32) -> String {
        format!("{}-{channel}", self.settings.run)
    }

    /// The group of this name, if it is of this run.
    pub fn group_of(&self, name: &str) -> Option<u32> {
        let channel: u32 = name.strip_prefix(&self.settings.run)?.strip_prefix('-')?.parse().ok()?;
        self.channels.get(channel as usize).filter(|channel| !channel.is_direct).map(|_| channel)
    }

    /// How long messages are sent.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.spans.last().map_or(0, |span| span.end))
    }

    pub fn span_at(&self, since: u64) -> Option<&Span> {
        self.spans.iter().find(|span| since < span.end)
    }

    /// Deliveries that the run will make, about; those to the senders are some of them.
    pub fn expected_deliveries(&self) -> f64 {
        let mut members_reached = 0.0;
        for channels in &self.of_client {
            let whole = channels.last().map_or(0.0, |(_, weight)| *weight);
            let mut before = 0.0;
            for (channel, weight) in channels {
                let members = self.channels[*channel as usize].members.len() as f64;
                members_reached += (weight - before) / whole.max(1e-9) * members;
                before = *weight;
            }
        }
        members_reached / f64::from(self.writers().max(1)) * self.settings.scenario.messages()
    }

    pub fn largest_channel(&self) -> usize {
        self.channels.iter().map(|channel| channel.members.len()).max().unwrap_or(0)
    }
}

/// The members of each channel of a shape.
fn memberships(shape: &Shape, clients: u32, rng: &mut Rng) -> Vec<Vec<u32>> {
    match shape.shape {
        ShapeKind::Direct => groups(2, shape.count, clients, rng),
        ShapeKind::Group => groups(shape.members.unwrap_or(2), shape.count, clients, rng),
        ShapeKind::Room => {
            let members = shape.members.unwrap_or(clients).min(clients);
            (0..shape.count.unwrap_or(1)).map(|_| sample(clients, members, rng)).collect()
        }
        ShapeKind::Zipf => {
            let largest = f64::from(shape.members.unwrap_or(clients).min(clients));
            let exponent = shape.exponent.unwrap_or(1.0);
            let size = |rank: u32| (largest / f64::from(rank).powf(exponent)).round().max(2.0) as u32;
            (1..=shape.count.unwrap_or(1)).map(|rank| sample(clients, size(rank).min(clients), rng)).collect()
        }
    }
}

/// Groups of `size`: everybody is in one, or in as many as there are to be.
fn groups(size: u32, count: Option<u32>, clients: u32, rng: &mut Rng) -> Vec<Vec<u32>> {
    let size = size.min(clients).max(1) as usize;
    let count = count.map_or((clients as usize).div_ceil(size), |count| count as usize);
    let mut groups = Vec::with_capacity(count);
    while groups.len() < count {
        // Cards are dealt to the end, and shuffled anew.
        let mut dealt = sample(clients, clients, rng);
        let extra = dealt.len() % size;
        if extra > 0 {
            // The last of a round is filled with people who have one already.
            dealt.extend_from_within(..size - extra);
        }
        groups.extend(dealt.chunks_exact(size).take(count - groups.len()).map(<[u32]>::to_vec));
    }
    groups
}

/// `size` different clients in random order.
fn sample(clients: u32, size: u32, rng: &mut Rng) -> Vec<u32> {
    let mut all: Vec<u32> = (0..clients).collect();
    for index in 0..size as usize {
        let other = index + rng.below(u64::from(clients) - index as u64) as usize;
        all.swap(index, other);
    }
    all.truncate(size as usize);
    all
}

fn spans(scenario: &Scenario) -> Vec<Span> {
    let mut begin = 0;
    let span = |phase: &Phase| {
        let end = begin + phase.duration.as_nanos() as u64;
        let storm = (phase.phase == PhaseKind::ReconnectStorm).then(|| {
            let within = phase.within.unwrap_or(Duration::from_secs(1)).min(phase.duration);
            (phase.share.unwrap_or(1.0), within.as_nanos() as u64)
        });
        let span = Span { begin, end, rate: scenario.rate * phase.factor(), storm };
        begin = end;
        span
    };
    scenario.loaded().iter().map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(clients: u32, channels: &str) -> Plan {
        let text = format!(
            "about: x\nclients: {clients}\nrate: 10\nchannels: {channels}\nphases: [{{phase: hold, duration: 10s}}]\n"
        );
        let scenario = crate::ops::simulate::scenario::read(&text).unwrap();
        let account = |index| Account { name: format!("u{index}"), token: String::new() };
        let settings = Settings { scenario, run: "r".to_owned(), seed: 7, are_accounts_given: false };
        Plan::new(settings, (0..clients).map(account).collect())
    }

    #[test]
    fn everybody_is_in_a_group_and_nobody_twice_in_the_same() {
        for (clients, size) in [(100, 10), (101, 10), (7, 3), (2, 2), (3, 10)] {
            let plan = plan(clients, &format!("[{{shape: group, members: {size}}}]"));
            assert!(plan.of_client.iter().all(|channels| !channels.is_empty()), "{clients} in groups of {size}");
            for channel in &plan.channels {
                let mut members = channel.members.clone();
                members.sort_unstable();
                members.dedup();
                assert_eq!(members.len(), channel.members.len());
                assert_eq!(members.len() as u32, size.min(clients));
            }
        }
    }

    #[test]
    fn the_same_settings_make_the_same_plan() {
        let shapes = "[{shape: direct}, {shape: zipf, count: 9, members: 30}, {shape: room}]";
        assert_eq!(plan(60, shapes).channels, plan(60, shapes).channels);
    }

    #[test]
    fn a_mix_has_few_large_channels() {
        let plan = plan(100, "[{shape: zipf, count: 20, members: 80, exponent: 1}]");
        let sizes: Vec<_> = plan.channels.iter().map(|channel| channel.members.len()).collect();
        assert_eq!((sizes[0], sizes[1], sizes[3], sizes[19]), (80, 40, 20, 4));
    }

    #[test]
    fn weights_say_where_messages_go() {
        let plan = plan(10, "[{shape: room, weight: 3}, {shape: room, weight: 1}]");
        let mut rng = Rng::new(1);
        let first = (0..10_000).filter(|_| plan.choose_channel(3, &mut rng) == Some(0)).count();
        assert!((7_200..7_800).contains(&first), "{first}");
        assert!((plan.expected_deliveries() - 1_000.0).abs() < 1.0);
    }

    #[test]
    fn who_is_in_no_channel_writes_nothing_and_the_others_write_it_all() {
        let plan = plan(100, "[{shape: group, members: 5, count: 4}, {shape: room, weight: 0}]");
        assert_eq!(plan.writers(), 20);
        assert!((plan.expected_deliveries() - 500.0).abs() < 1.0, "{}", plan.expected_deliveries());
        let mut rng = Rng::new(1);
        for client in 0..100 {
            assert_eq!(plan.choose_channel(client, &mut rng).is_some(), plan.can_write(client), "{client}");
        }
    }

    #[test]
    fn groups_are_known_by_their_names() {
        let plan = plan(4, "[{shape: direct}, {shape: room}]");
        let group = plan.channels.iter().position(|channel| !channel.is_direct).unwrap() as u32;
        assert_eq!(plan.group_of(&plan.group_name(group)), Some(group));
        for other in ["r-0", "r-99", "x-2", "r", "r-"] {
            assert_eq!(plan.group_of(other), None, "{other}");
        }
    }
}
