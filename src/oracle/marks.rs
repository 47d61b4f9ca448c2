//! P9: a user's own watermarks, as the welcomes give them, don't go back from a connection to a later one.

use std::collections::HashMap;

use super::record::{ChannelNo, Connection, Head, Record, Seen};
use super::verdict::{Found, Promise};
use crate::message::Seq;

pub fn check(record: &Record, found: &mut Found) {
    let mut by_user: Vec<Vec<&Connection>> = vec![Vec::new(); record.users.len()];
    for connection in &record.connections {
        by_user[connection.user.0 as usize].push(connection);
    }
    for connections in &mut by_user {
        if connections.len() > 1 {
            check_user(record, connections, found);
        }
    }
}

fn welcomes(connection: &Connection) -> impl Iterator<Item = (u64, &[Head])> {
    connection.events.iter().filter_map(|event| match &event.seen {
        Seen::Welcome(welcome) => Some((event.at, welcome.heads.as_slice())),
        _ => None,
    })
}

fn check_user(record: &Record, connections: &mut [&Connection], found: &mut Found) {
    let mut told: Vec<(u64, &[Head])> = connections.iter().flat_map(|connection| welcomes(connection)).collect();
    told.sort_by_key(|(at, _)| *at);
    connections.sort_by_key(|connection| connection.opened_at);
    let mut earlier = told.into_iter().peekable();
    let mut known: HashMap<ChannelNo, (Seq, Seq)> = HashMap::new();
    for connection in connections {
        while let Some((_, heads)) = earlier.next_if(|(at, _)| *at < connection.opened_at) {
            for head in heads {
                let (delivered, read) = known.entry(head.channel).or_default();
                *delivered = head.delivered_seq.max(*delivered);
                *read = head.read_seq.max(*read);
            }
        }
        let welcome = welcomes(connection).next();
        for head in welcome.into_iter().flat_map(|(_, heads)| heads) {
            let Some((delivered, read)) = known.get(&head.channel) else { continue };
            if head.delivered_seq < *delivered || head.read_seq < *read {
                found.add(Promise::P9, || {
                    let (user, id) = (record.user(connection.user), record.channel(head.channel));
                    let now = format!("delivered {} and read {}", head.delivered_seq, head.read_seq);
                    let detail = format!("{user}'s welcome to {id}: {now} after delivered {delivered} and read {read}");
                    (detail, [record.place(head.channel, head.read_seq)])
                });
            }
        }
    }
}
