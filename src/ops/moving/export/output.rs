//! The file that is being filled.

use std::io;
use std::path::Path;

use super::super::files::{Growing, Mark};
use super::super::manifest::{Listed, Part};
use super::super::record::Record;

/// A file is ended behind the first channel with which it has so many entries…
const ENTRIES: u64 = 50_000;
/// … or bytes…
const BYTES: u64 = 64 << 20;
/// … or channels: what a killed export has to do again.
const CHANNELS: u64 = 10_000;

/// Of entries and password hashes: for their owner alone.
const MODE: u32 = 0o600;

pub struct OutputFile {
    name: String,
    growing: Growing,
    accounts: u64,
    channels: u64,
    entries: u64,
}

/// Where a channel begins.
pub struct Start {
    mark: Mark,
    channels: u64,
    entries: u64,
}

impl OutputFile {
    pub fn create(folder: &Path, name: String) -> io::Result<Self> {
        let growing = Growing::create(&folder.join(&name), MODE)?;
        Ok(Self { name, growing, accounts: 0, channels: 0, entries: 0 })
    }

    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.growing.write(&record.to_line()?)?;
        match record {
            Record::Channel(_) => self.channels += 1,
            Record::Entry(_) => self.entries += 1,
            Record::Account(_) => self.accounts += 1,
        }
        Ok(())
    }

    pub fn start(&self) -> Start {
        Start { mark: self.growing.mark(), channels: self.channels, entries: self.entries }
    }

    /// Takes out what came since.
    pub fn go_back(&mut self, to: &Start) -> io::Result<()> {
        (self.channels, self.entries) = (to.channels, to.entries);
        self.growing.go_back(&to.mark)
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.growing.bytes() == 0
    }

    pub fn is_full(&self) -> bool {
        self.entries >= ENTRIES || self.channels >= CHANNELS || self.growing.bytes() >= BYTES
    }

    /// It was not needed.
    pub fn discard(self) -> io::Result<()> {
        self.growing.discard()
    }

    /// Durable, and under its name.
    pub fn finish(self) -> io::Result<Part> {
        let Self { name, growing, accounts, channels, entries } = self;
        let (bytes, sha256) = growing.finish()?;
        Ok(Part { listed: Listed { name, bytes, sha256 }, accounts, channels, entries })
    }
}
