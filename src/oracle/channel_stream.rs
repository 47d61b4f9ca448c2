//! One channel on one connection: which seq may come next.

use crate::message::Seq;

#[derive(Debug, Default)]
pub struct Stream {
    /// The seq that the next `message` must have; none: whatever comes first.
    next: Option<Seq>,
    /// After a gap that said how far it reaches: a first frame beyond this leaves out more.
    at_most: Option<Seq>,
    /// Another seq that it may have: a resume left it to the server from where to go on.
    or_next: Option<Seq>,
    /// The head that `welcome` gave.
    welcomed: Seq,
    pub resumes: Vec<Resume>,
    pub delivered: Seq,
    pub read: Seq,
    /// When something of it came last: a message, or a word on where it goes on.
    pub moved_at: u64,
    /// The entry that removed the user, once it was shown here.
    pub removed_at: Option<Seq>,
}

/// A `resume` that is asked for and not yet answered.
#[derive(Debug)]
pub struct Resume {
    pub reference: u64,
    pub after: Seq,
    /// All of `after + 1 ..= reached` has come since it was asked for.
    pub reached: Seq,
    /// The stream has jumped to `after + 1`.
    pub has_restarted: bool,
}

impl Resume {
    pub const fn new(reference: u64, after: Seq) -> Self {
        Self { reference, after, reached: after, has_restarted: false }
    }
}

impl Stream {
    pub const fn welcome(&mut self, last_seq: Seq, (delivered, read): (Seq, Seq)) {
        self.next = Some(last_seq.saturating_add(1));
        self.welcomed = last_seq;
        (self.delivered, self.read) = (delivered, read);
    }

    pub fn gap(&mut self, last_seq: Seq) {
        self.at_most = Some(last_seq.saturating_add(1).max(self.next.unwrap_or(0)));
        self.next = None;
        self.or_next = None;
    }

    /// Everything up to `seq` is gone: what of it has not come won't come.
    pub fn purged(&mut self, seq: Seq) {
        for resume in &mut self.resumes {
            if resume.reached < seq {
                resume.reached = seq;
                if !resume.has_restarted {
                    resume.after = seq;
                }
            }
        }
        if self.next.is_some_and(|next| next <= seq) {
            self.gap(seq);
        }
    }

    /// The user is added by the entry `seq`, which comes next.
    pub const fn added(&mut self, seq: Seq) {
        self.next = Some(seq);
        self.removed_at = None;
    }

    /// A `message` came. Errors: the seq that should have come; the stream goes on behind the higher one.
    pub fn message(&mut self, seq: Seq) -> Result<(), Seq> {
        let after = seq.saturating_add(1);
        for resume in &mut self.resumes {
            if resume.reached.saturating_add(1) == seq {
                resume.reached = seq;
            }
        }
        let expected = self.next.unwrap_or_else(|| self.at_most.map_or(seq, |at_most| at_most.min(seq)));
        if seq == expected {
            self.next = Some(after);
            self.or_next = None;
            return Ok(());
        }
        let mut resumes = self.resumes.iter_mut();
        if let Some(resume) = resumes.find(|resume| !resume.has_restarted && resume.after.saturating_add(1) == seq) {
            resume.has_restarted = true;
            resume.reached = seq;
            self.next = Some(after);
            return Ok(());
        }
        if self.or_next == Some(seq) {
            self.or_next = None;
            self.next = Some(after);
            return Ok(());
        }
        if seq > expected {
            self.next = Some(after);
        }
        Err(expected)
    }

    /// The seq that is waited for; none if that is left to the server.
    pub fn awaited(&self) -> Option<Seq> {
        self.next.or(self.at_most).filter(|_| self.resumes.is_empty())
    }

    pub fn take_resume(&mut self, reference: u64) -> Option<Resume> {
        let index = self.resumes.iter().position(|resume| resume.reference == reference)?;
        Some(self.resumes.remove(index))
    }

    /// It was said to be complete up to `last_seq`; returns what is wrong with that.
    pub fn resumed(&mut self, resume: &Resume, last_seq: Seq) -> Option<String> {
        let goes_on = last_seq.saturating_add(1);
        if resume.reached < last_seq {
            self.next = Some(goes_on);
            return Some(format!("came up to {}, not {last_seq}", resume.reached));
        }
        if last_seq < self.welcomed {
            return Some(format!("up to {last_seq}, but welcome had {}", self.welcomed));
        }
        if !resume.has_restarted {
            // Nothing was missing. What came live before the reply may come again, as the stream restarted; and a
            // client that is ahead of the store (it saw entries that are still to be stored) may be spared them.
            let or_next = goes_on.max(resume.after.saturating_add(1));
            self.or_next = Some(or_next).filter(|seq| Some(*seq) != self.next);
        }
        None
    }
}
