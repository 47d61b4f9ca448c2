//! Everybody comes at once: item for item what a gateway's restart costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aula::config::{Config, Overrides};
use aula::message::{Change, ChannelId, ChannelKind, Kind, Message, Millis, Role, Username};
use aula::server::backends::{Backends, Part};
use aula::server::store::{ChannelBatch, Member, NewChannel};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use uuid::Uuid;

use super::trial::bounded;
use super::{Cluster, namespace::Namespace, servers::Servers};
use crate::rng::Rng;

const ENTRIES: u64 = 12;
/// Users and channels that are made at the same time.
const MAKERS: usize = 48;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_connected_in_the_end() {
    let users = number("AULA_TEST_STORM_CLIENTS", 400);
    let channels = number("AULA_TEST_STORM_CHANNELS", 20);
    let limit = Duration::from_secs(20 + users as u64 / 20);
    bounded(200 + users as u64 / 5, async {
        let mut cluster = tokio::task::block_in_place(|| {
            Cluster::on(Arc::new(Namespace::new(&Servers::shared())), &[("AULA_AUTH_ACCESS_TOKEN_TTL", "1h")])
        });
        let tokens = populate(&cluster.namespace, users, channels).await;
        println!("{users} users with {channels} channels each");
        let mut connected = storm(&cluster.addrs(), &tokens, channels, limit).await;
        // A gateway dies: its half comes to the other one, which has the rooms already.
        tokio::task::block_in_place(|| cluster.gateways[0].kill9());
        let orphans: Vec<String> = tokens.iter().step_by(2).cloned().collect();
        let place = cluster.gateways[1].addr();
        connected.extend(storm(&[place], &orphans, channels, limit).await);
        // Both die and come back, and know nothing.
        drop(connected);
        tokio::task::block_in_place(|| cluster.gateways.iter_mut().for_each(crate::server::Server::restart));
        storm(&cluster.addrs(), &tokens, channels, limit).await;
    })
    .await;
}

/// Users, and channels of which each user is in `each`, put where the deployment keeps them; a token for each user.
async fn populate(namespace: &Namespace, users: usize, each: usize) -> Vec<String> {
    let config = Config::load(Some(&namespace.config()), std::iter::empty(), &Overrides::default()).unwrap();
    let backends = Backends::open(&config, Part::Worker).await.unwrap();
    let auth = backends.auth(&config, true).unwrap();
    let names: Vec<Username> = (0..users).map(|index| Username::new(&format!("storm{index:05}")).unwrap()).collect();
    let tokens = stream::iter(&names).map(async |name| {
        backends.accounts.create_user(name, "no password has this hash", Millis::now()).await.unwrap();
        auth.mint(name, Duration::from_secs(3600)).await.unwrap().0
    });
    let tokens = tokens.buffered(MAKERS).collect().await;
    let made = stream::iter(0..users).map(async |first| {
        let members: Vec<Username> = (first..first + each).map(|index| names[index % users].clone()).collect();
        backends.store.append(Arc::new(channel(&members))).await.unwrap();
    });
    made.buffer_unordered(MAKERS).for_each(|()| std::future::ready(())).await;
    tokens
}

fn channel(members: &[Username]) -> ChannelBatch {
    let channel = ChannelId::new_group();
    let entry = |seq: u64| {
        let (kind, body) = match seq {
            1 => (Kind::System, Change::Created { members: members.to_vec() }.to_body()),
            _ => (Kind::Text, format!("entry {seq}, about as long as what people say to each other")),
        };
        let sender = members[0].clone();
        Arc::new(Message {
            channel,
            seq,
            id: Uuid::now_v7(),
            sender,
            client_id: Uuid::now_v7(),
            kind,
            body,
            at: Millis::now(),
        })
    };
    let member = |(index, name): (usize, &Username)| {
        let role = if index == 0 { Role::Owner } else { Role::Member };
        (name.clone(), Member { role, joined_seq: 1, delivered: 0, read: 0 })
    };
    ChannelBatch {
        channel,
        create: Some(NewChannel { kind: ChannelKind::Group, name: Some("storm".into()) }),
        entries: (1..=ENTRIES).map(entry).collect(),
        members: members.iter().enumerate().map(member).collect(),
        departed: Vec::new(),
        delivered_by_all: 0,
        read_by_all: 0,
        refused: Vec::new(),
    }
}

/// Ends its connection when it is dropped.
struct Connected(#[allow(dead_code, reason = "held")] tokio::task::JoinHandle<()>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All at once; each tries again, after a while that grows and is jittered, until it is welcome.
async fn storm(places: &[SocketAddr], tokens: &[String], channels: usize, limit: Duration) -> Vec<Connected> {
    let begun = Instant::now();
    let (welcome, mut welcomed) = mpsc::channel(tokens.len());
    let mut connected = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let (place, token, welcome) = (places[index % places.len()], token.clone(), welcome.clone());
        connected.push(Connected(tokio::spawn(client(place, token, welcome, index as u64))));
    }
    drop(welcome);
    let mut took = Vec::new();
    let mut attempts = 0;
    while took.len() < tokens.len() {
        let next = tokio::time::timeout_at(begun + limit, welcomed.recv()).await;
        let next = next.unwrap_or_else(|_| panic!("{} of {} are connected after {limit:?}", took.len(), tokens.len()));
        let (seen, tried) = next.expect("nobody gives up");
        assert_eq!(seen, channels, "channels in a welcome");
        attempts += tried;
        took.push(begun.elapsed());
    }
    let (half, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    let last = took[took.len() - 1];
    let rate = took.len() as f64 / last.as_secs_f64();
    println!(
        "{} clients on {} gateways: half connected after {half:?}, 99 % after {most:?}, all after {last:?} \
         ({rate:.0} welcomes/s, {attempts} attempts)",
        took.len(),
        places.len()
    );
    connected
}

/// Says how many channels its welcome had, and at which attempt it came; stays connected then.
async fn client(place: SocketAddr, token: String, welcome: mpsc::Sender<(usize, u64)>, seed: u64) {
    let mut rng = Rng::new(seed);
    for attempt in 1.. {
        if let Some((mut socket, channels)) = connect(place, &token).await {
            let _ = welcome.send((channels, attempt)).await;
            drop(welcome);
            while let Some(Ok(_)) = socket.next().await {}
            return;
        }
        let longest = 200_u64 << attempt.min(4);
        tokio::time::sleep(Duration::from_millis(rng.between(longest / 2, longest))).await;
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(place: SocketAddr, token: &str) -> Option<(Socket, usize)> {
    let mut request = format!("ws://{place}/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "aula.v1.json".parse().unwrap());
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.ok()?;
    loop {
        let frame = socket.next().await?.ok()?;
        if !frame.is_text() {
            continue;
        }
        let frame: serde_json::Value = serde_json::from_str(frame.to_text().unwrap()).unwrap();
        if frame["op"] == "welcome" {
            return Some((socket, frame["channels"].as_array().unwrap().len()));
        }
    }
}
