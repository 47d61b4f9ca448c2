use std::io::{self, BufRead, Read};

use super::{Head, Line, NAME, OLDEST, VERSION};
use crate::oracle::record::{
    ChannelNo, Connection, Entry, EntryNo, Event, History, Hit, Malformed, Mark, MembershipChange, Page, Record,
    ResumeAsked, ResumeReply, Resumed, Search, Seen, Send, SendNo, UserNo, Welcome,
};
use crate::oracle::symbols::Symbols;

/// Longer than any line of ours: what has none is no record, and must not fill the memory.
const MAX_LINE: u64 = 16 << 20;

/// Why a file is no record.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("can't read it: {0}")]
    Io(#[from] io::Error),
    /// Counted from 1.
    #[error("line {line}: {problem}")]
    Line { line: u64, problem: String },
}

impl Record {
    /// Reads what [`Record::write`] has written. Errors: what is wrong in which line, and what is expected there.
    pub fn read(mut input: impl BufRead) -> Result<Self, ReadError> {
        let mut reader = Reader::default();
        let mut text = Vec::new();
        let mut line = 0;
        while reader.ended_at.is_none() {
            line += 1;
            text.clear();
            input.by_ref().take(MAX_LINE).read_until(b'\n', &mut text)?;
            reader.take(line, &text).map_err(|problem| ReadError::Line { line, problem })?;
        }
        if input.fill_buf()?.is_empty() {
            Ok(reader.into_record())
        } else {
            Err(ReadError::Line { line: line + 1, problem: "nothing comes after the line `end`".to_owned() })
        }
    }
}

#[derive(Default)]
struct Reader {
    symbols: Symbols,
    /// The tables apart.
    record: Record,
    counts: Counts,
    ended_at: Option<u64>,
}

/// How many of each there are so far.
#[derive(Default)]
struct Counts {
    users: u32,
    channels: u32,
    sends: u32,
    entries: u32,
}

type Problem = String;

impl Reader {
    fn into_record(self) -> Record {
        let Record { connections, histories, hits, searches, .. } = self.record;
        Record { connections, histories, hits, searches, ..self.symbols.into_record() }
    }

    fn take(&mut self, number: u64, text: &[u8]) -> Result<(), Problem> {
        let Some(text) = text.strip_suffix(b"\n") else {
            return Err(match text.len() as u64 {
                0 => "the file ends without the line `end`: it was cut off, or is still being written".to_owned(),
                MAX_LINE.. => format!("it is longer than {} MiB, as no line of a record is", MAX_LINE >> 20),
                _ => "it breaks off: the file was cut off, or is still being written".to_owned(),
            });
        };
        let line: Line<'_> = serde_json::from_slice(text).map_err(|error| problem_of(&error))?;
        match line {
            Line::Format(name, OLDEST..=VERSION) if number == 1 && name == NAME => Ok(()),
            Line::Format(name, version) if number == 1 && name == NAME => {
                Err(format!("format version {version}; this program reads versions {OLDEST} to {VERSION}"))
            }
            _ if number == 1 => Err(format!("no recorded history: {{\"format\":[\"{NAME}\",{VERSION}]}} is expected")),
            Line::Format(..) => Err("`format` is the first line only".to_owned()),
            Line::End(lines) if lines == number - 1 => {
                self.ended_at = Some(number);
                Ok(())
            }
            Line::End(lines) => Err(format!("`end` counts {lines} lines before it, there are {}", number - 1)),
            Line::Connection(user, opened_at, closed_at) => {
                self.user(user)?;
                self.record.connections.push(Connection { user, opened_at, closed_at, events: Vec::new() });
                Ok(())
            }
            Line::History(reader, channel, from) => {
                self.user(reader)?;
                self.channel(channel)?;
                self.record.histories.push(History { reader, channel, from, entries: Vec::new() });
                Ok(())
            }
            Line::Entries(entries) => {
                self.entries(&entries)?;
                let history = self.record.histories.last_mut().ok_or("`entries` before the first `history`")?;
                history.entries.extend_from_slice(&entries);
                Ok(())
            }
            Line::Hit(reader, channel, sender, seq, id, body, at) => {
                self.user(reader)?;
                self.user(sender)?;
                self.channel(channel)?;
                self.record.hits.push(Hit { reader, channel, sender, seq, id, body, at: at.into() });
                Ok(())
            }
            Line::Search(reader, send, waited, is_found) => {
                self.user(reader)?;
                self.send(send)?;
                self.record.searches.push(Search { reader, send, waited, is_found });
                Ok(())
            }
            line => self.symbol(line),
        }
    }

    /// A line of the tables, or an event.
    fn symbol(&mut self, line: Line<'_>) -> Result<(), Problem> {
        match line {
            Line::User(name) => {
                let UserNo(place) = self.symbols.user(&name);
                count("user", place, &mut self.counts.users)
            }
            Line::Channel(id) => {
                let ChannelNo(place) = self.symbols.channel(id);
                count("channel", place, &mut self.counts.channels)
            }
            Line::Send(channel, sender, client_id, body) => {
                self.channel(channel)?;
                self.user(sender)?;
                let SendNo(place) = self.symbols.send(Send { channel, sender, client_id, body });
                count("send", place, &mut self.counts.sends)
            }
            Line::Entry(channel, sender, seq, id, client_id, kind, body, at) => {
                self.channel(channel)?;
                self.user(sender)?;
                let entry = Entry { channel, sender, seq, id, client_id, kind, body, at: at.into() };
                let (EntryNo(place), _) = self.symbols.entry(entry);
                count("entry", place, &mut self.counts.entries)
            }
            Line::Added(entry, members) => self.change(entry, true, &members),
            Line::Removed(entry, members) => self.change(entry, false, &members),
            line => {
                let event = self.event(line)?;
                let connection = self.record.connections.last_mut().ok_or("an event before the first `connection`")?;
                connection.events.push(event);
                Ok(())
            }
        }
    }

    fn change(&mut self, entry: EntryNo, added: bool, members: &[UserNo]) -> Result<(), Problem> {
        self.entry(entry)?;
        members.iter().try_for_each(|user| self.user(*user))?;
        self.symbols.change(MembershipChange { entry, added, members: members.to_vec() });
        Ok(())
    }

    fn event(&self, line: Line<'_>) -> Result<Event, Problem> {
        let (at, seen) = match line {
            Line::Message(at, entry) => (at, Seen::Message(self.entry(entry)?)),
            Line::Sent(at, reference, send) => (at, Seen::Send { reference, send: self.send(send)? }),
            Line::Accepted(at, reference) => (at, Seen::Accepted { reference }),
            Line::Refused(at, reference, code, retry) => (at, Seen::Refused { reference, code, retry }),
            Line::Persisted(at, send, seq) => (at, Seen::Persisted { send: self.send(send)?, seq }),
            Line::Rejected(at, send) => (at, Seen::Rejected { send: self.send(send)? }),
            Line::Delivered(at, channel, seq) => {
                (at, Seen::Watermark { mark: Mark::Delivered, channel: self.channel(channel)?, seq })
            }
            Line::Read(at, channel, seq) => {
                (at, Seen::Watermark { mark: Mark::Read, channel: self.channel(channel)?, seq })
            }
            Line::Newest(at, reference, channel) => {
                (at, Seen::NewestAsked { reference, channel: self.channel(channel)? })
            }
            Line::Page(at, reference, entries) => {
                (at, Seen::Page(Box::new(Page { reference, entries: self.entries(&entries)? })))
            }
            Line::Welcome(at, heads) => {
                let heads = heads.into_iter().map(|head| self.head(head)).collect::<Result<_, _>>()?;
                (at, Seen::Welcome(Box::new(Welcome { heads })))
            }
            Line::Gap(at, channel, last_seq) => (at, Seen::Gap { channel: self.channel(channel)?, last_seq }),
            Line::Purged(at, channel, seq) => (at, Seen::Purged { channel: self.channel(channel)?, seq }),
            Line::Resume(at, reference, channels) => {
                channels.iter().try_for_each(|(channel, _)| self.channel(*channel).map(drop))?;
                (at, Seen::ResumeAsked(Box::new(ResumeAsked { reference, channels: channels.into_owned() })))
            }
            Line::Resumed(at, reference, channels) => {
                let resumed = |(channel, complete, last_seq)| {
                    Ok::<_, Problem>(Resumed { channel: self.channel(channel)?, complete, last_seq })
                };
                let channels = channels.into_iter().map(resumed).collect::<Result<_, _>>()?;
                (at, Seen::ResumeReply(Box::new(ResumeReply { reference, channels })))
            }
            Line::Malformed(at, problem) => {
                (at, Seen::Malformed(Box::new(Malformed { problem: problem.into_owned() })))
            }
            other => return Err(format!("{other:?} is no event")),
        };
        Ok(Event { at, seen })
    }

    fn head(&self, head: Head<'_>) -> Result<crate::oracle::record::Head, Problem> {
        let Head(channel, last_seq, delivered_seq, read_seq, unread, by_all, messages) = head;
        let (channel, messages) = (self.channel(channel)?, self.entries(&messages)?);
        Ok(crate::oracle::record::Head { channel, last_seq, delivered_seq, read_seq, unread, by_all, messages })
    }

    fn user(&self, user: UserNo) -> Result<(), Problem> {
        known("user", user.0, self.counts.users)
    }

    fn channel(&self, channel: ChannelNo) -> Result<ChannelNo, Problem> {
        known("channel", channel.0, self.counts.channels).map(|()| channel)
    }

    fn send(&self, send: SendNo) -> Result<SendNo, Problem> {
        known("send", send.0, self.counts.sends).map(|()| send)
    }

    fn entry(&self, entry: EntryNo) -> Result<EntryNo, Problem> {
        known("entry", entry.0, self.counts.entries).map(|()| entry)
    }

    fn entries(&self, entries: &[EntryNo]) -> Result<Vec<EntryNo>, Problem> {
        entries.iter().map(|entry| self.entry(*entry)).collect()
    }
}

fn known(what: &str, place: u32, count: u32) -> Result<(), Problem> {
    if place < count { Ok(()) } else { Err(format!("{what} {place} is used, but only {count} came before")) }
}

/// A table's next row: it must be a new one.
fn count(what: &str, place: u32, count: &mut u32) -> Result<(), Problem> {
    if place < *count {
        return Err(format!("this {what} came before, as number {place}: each is there once"));
    }
    *count += 1;
    Ok(())
}

/// What serde_json says, without its own count of lines.
fn problem_of(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let plain = text.rsplit_once(" at line ").map_or(text.as_str(), |(plain, _)| plain);
    format!("column {}: {plain}", error.column())
}
