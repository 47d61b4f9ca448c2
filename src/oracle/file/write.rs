use std::io::{self, BufWriter, Write};

use super::{ENTRIES_A_LINE, Head, Line, NAME, VERSION};
use crate::oracle::record::{Entry, Event, Hit, Mark, MembershipChange, Record, Search, Seen, Send};

impl Record {
    /// Writes it in the format of this version.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut lines = Lines { out: BufWriter::with_capacity(1 << 16, out), written: 0 };
        lines.put(&Line::Format(NAME.into(), VERSION))?;
        self.write_tables(&mut lines)?;
        for connection in &self.connections {
            lines.put(&Line::Connection(connection.user, connection.opened_at, connection.closed_at))?;
            connection.events.iter().try_for_each(|event| lines.put(&line_of(event)))?;
        }
        for history in &self.histories {
            lines.put(&Line::History(history.reader, history.channel, history.from))?;
            for entries in history.entries.chunks(ENTRIES_A_LINE) {
                lines.put(&Line::Entries(entries.into()))?;
            }
        }
        for Hit { reader, channel, sender, seq, id, body, at } in &self.hits {
            lines.put(&Line::Hit(*reader, *channel, *sender, *seq, *id, *body, (*at).into()))?;
        }
        for Search { reader, send, waited, is_found } in &self.searches {
            lines.put(&Line::Search(*reader, *send, *waited, *is_found))?;
        }
        lines.put(&Line::End(lines.written))?;
        lines.out.flush()
    }

    fn write_tables(&self, lines: &mut Lines<impl Write>) -> io::Result<()> {
        self.users.iter().try_for_each(|name| lines.put(&Line::User(name.into())))?;
        self.channels.iter().try_for_each(|id| lines.put(&Line::Channel(*id)))?;
        for Send { channel, sender, client_id, body } in &self.sends {
            lines.put(&Line::Send(*channel, *sender, *client_id, *body))?;
        }
        for Entry { channel, sender, seq, id, client_id, kind, body, at } in &self.entries {
            lines.put(&Line::Entry(*channel, *sender, *seq, *id, *client_id, *kind, *body, (*at).into()))?;
        }
        for MembershipChange { entry, added, members } in &self.changes {
            let members = members.into();
            lines.put(&if *added { Line::Added(*entry, members) } else { Line::Removed(*entry, members) })?;
        }
        Ok(())
    }
}

struct Lines<W: Write> {
    out: BufWriter<W>,
    written: u64,
}

impl<W: Write> Lines<W> {
    fn put(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.written += 1;
        self.out.write_all(b"\n")
    }
}

fn line_of(event: &Event) -> Line<'_> {
    let at = event.at;
    match &event.seen {
        Seen::Message(entry) => Line::Message(at, *entry),
        Seen::Send { reference, send } => Line::Sent(at, *reference, *send),
        Seen::Accepted { reference } => Line::Accepted(at, *reference),
        Seen::Refused { reference, code, retry } => Line::Refused(at, *reference, *code, *retry),
        Seen::Persisted { send, seq } => Line::Persisted(at, *send, *seq),
        Seen::Rejected { send } => Line::Rejected(at, *send),
        Seen::Watermark { mark: Mark::Delivered, channel, seq } => Line::Delivered(at, *channel, *seq),
        Seen::Watermark { mark: Mark::Read, channel, seq } => Line::Read(at, *channel, *seq),
        Seen::NewestAsked { reference, channel } => Line::Newest(at, *reference, *channel),
        Seen::Page(page) => Line::Page(at, page.reference, page.entries.as_slice().into()),
        Seen::Welcome(welcome) => {
            let heads = welcome.heads.iter().map(|head| {
                let messages = head.messages.as_slice().into();
                let (delivered, read) = (head.delivered_seq, head.read_seq);
                Head(head.channel, head.last_seq, delivered, read, head.unread, head.by_all, messages)
            });
            Line::Welcome(at, heads.collect())
        }
        Seen::Gap { channel, last_seq } => Line::Gap(at, *channel, *last_seq),
        Seen::Purged { channel, seq } => Line::Purged(at, *channel, *seq),
        Seen::ResumeAsked(asked) => Line::Resume(at, asked.reference, asked.channels.as_slice().into()),
        Seen::ResumeReply(reply) => {
            let channels = reply.channels.iter();
            let channels = channels.map(|resumed| (resumed.channel, resumed.complete, resumed.last_seq));
            Line::Resumed(at, reply.reference, channels.collect())
        }
        Seen::Malformed(malformed) => Line::Malformed(at, malformed.problem.as_str().into()),
    }
}
