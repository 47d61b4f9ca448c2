//! The files of an export, in pieces of bounded size.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::super::record::{Account, Header, MAX_LINE, Record};
use crate::message::{Message, Seq};

/// Entries in a piece, at most…
const ENTRIES: usize = 500;
/// … or bytes of their lines.
const BYTES: u64 = 1 << 20;

/// Some of a channel's entries.
pub struct Piece {
    pub header: Arc<Header>,
    pub entries: Vec<Arc<Message>>,
    pub is_first: bool,
    pub is_last: bool,
}

/// Reads one file from its beginning, or from where a channel began.
pub struct Reader {
    path: PathBuf,
    lines: BufReader<File>,
    /// The bytes that were read.
    offset: u64,
    line: Vec<u8>,
    /// The channel that is being read, and the last seq that was.
    going: Option<(Arc<Header>, Seq)>,
}

impl Reader {
    pub fn open(path: &Path, offset: u64) -> anyhow::Result<Self> {
        let shown = || format!("can't read {}", path.display());
        let mut file = File::open(path).with_context(shown)?;
        file.seek(SeekFrom::Start(offset)).with_context(shown)?;
        let lines = BufReader::with_capacity(256 * 1024, file);
        Ok(Self { path: path.to_owned(), lines, offset, line: Vec::new(), going: None })
    }

    /// Between two channels, this is where the next begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// `None` at the end. Errors: what is there is no account.
    pub fn account(&mut self) -> anyhow::Result<Option<Account>> {
        match self.record()? {
            None => Ok(None),
            Some(Record::Account(account)) => Ok(Some(account)),
            Some(_) => bail!("{} before byte {}: an account is expected", self.path.display(), self.offset),
        }
    }

    /// `None` at the end. Errors: what is there does not follow from what came before.
    pub fn piece(&mut self) -> anyhow::Result<Option<Piece>> {
        let is_first = self.going.is_none();
        let (header, mut at) = match self.going.take() {
            Some(going) => going,
            None => match self.record()? {
                None => return Ok(None),
                Some(Record::Channel(header)) => {
                    let at = header.purged_seq;
                    if at > header.last_seq {
                        bail!("{}: the channel {} ends before it begins", self.path.display(), header.id);
                    }
                    (Arc::new(header), at)
                }
                Some(_) => bail!("{} before byte {}: a channel is expected", self.path.display(), self.offset),
            },
        };
        let (mut entries, began) = (Vec::new(), self.offset);
        while at < header.last_seq && entries.len() < ENTRIES && self.offset - began < BYTES {
            match self.record()? {
                Some(Record::Entry(entry)) if entry.seq == at + 1 => {
                    at = entry.seq;
                    entries.push(entry.message(header.id));
                }
                _ => bail!(
                    "{} before byte {}: the entry {} of the channel {} is expected",
                    self.path.display(),
                    self.offset,
                    at + 1,
                    header.id
                ),
            }
        }
        let is_last = at >= header.last_seq;
        if !is_last {
            self.going = Some((Arc::clone(&header), at));
        }
        Ok(Some(Piece { header, entries, is_first, is_last }))
    }

    fn record(&mut self) -> anyhow::Result<Option<Record>> {
        self.line.clear();
        let read = self.lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line);
        let read = read.with_context(|| format!("can't read {}", self.path.display()))?;
        if read == 0 {
            return Ok(None);
        }
        self.offset += read as u64;
        let record = Record::of_line(&self.line);
        Ok(Some(record.with_context(|| format!("{} before byte {}", self.path.display(), self.offset))?))
    }
}
