//! The open loop: what is due is done when it is due, whatever has become of what was before, and what is late counts
//! from when it was due.

use super::{Act, Ask, Crowd, SECOND, Timer};
use crate::ops::simulate::engine::{ClientNo, Net};
use crate::ops::simulate::scenario::Arrival;

/// When messages began, and when the next is due.
#[derive(Debug, Default)]
pub(super) struct Load {
    began: u64,
    next: u64,
    /// There is no next one.
    is_over: bool,
    /// When the run was told to settle.
    ended: u64,
}

impl Crowd {
    /// Messages begin at this time.
    pub(super) fn begin(&mut self, net: &mut Net<Timer>, at: u64) {
        self.act = Act::Running;
        self.load.began = at;
        self.load.next = at;
        for (index, span) in self.plan.spans.iter().enumerate() {
            if span.storm.is_some() {
                net.set_timer(at + span.begin, Timer::Storm(index));
            }
        }
        if self.advance(true) {
            net.set_timer(self.load.next, Timer::Write);
        }
    }

    /// Goes to when the next message is due; false if there is none.
    pub(super) fn advance(&mut self, is_first: bool) -> bool {
        let share = self.writers.len() as f64 / f64::from(self.all_writers.max(1));
        loop {
            let since = self.load.next.saturating_sub(self.load.began);
            let Some(span) = self.plan.span_at(since) else {
                self.load.is_over = true;
                return false;
            };
            let rate = span.rate * share;
            let end = self.load.began + span.end;
            if rate <= 0.0 {
                self.load.next = end;
                continue;
            }
            let mean = SECOND as f64 / rate;
            let pause = match self.plan.settings.scenario.arrival {
                Arrival::Poisson => self.rng.exponential(mean),
                // The parts of a run don't beat together.
                Arrival::Even if is_first => mean * self.rng.unit(),
                Arrival::Even => mean,
            };
            let next = self.load.next + pause as u64;
            if next < end {
                self.load.next = next;
                return true;
            }
            // Independent of the past, so that it may begin anew where the rate changes.
            self.load.next = end;
        }
    }

    pub(super) fn write_what_is_due(&mut self, net: &mut Net<Timer>, at: u64) {
        while self.act == Act::Running {
            let scheduled = self.load.next;
            if scheduled > at {
                return net.set_timer(scheduled, Timer::Write);
            }
            self.do_something(net, scheduled, at);
            if !self.advance(false) {
                return;
            }
        }
    }

    /// Nothing more is written. What has fallen due by now and was not come to is counted: it was planned, and is no
    /// message that the server failed to take.
    pub(super) fn stop_writing(&mut self, at: u64) {
        if self.act != Act::Running {
            return;
        }
        self.load.ended = at;
        while !self.load.is_over && self.load.next <= at {
            if !self.writers.is_empty() {
                self.meter.unwritten(at - self.load.next);
            }
            self.advance(false);
        }
    }

    /// One message, and what belongs to it on average.
    fn do_something(&mut self, net: &mut Net<Timer>, scheduled: u64, at: u64) {
        let Some((client, channel)) = self.somebody() else { return };
        let scenario = &self.plan.settings.scenario;
        let (per_message, think) = (scenario.per_message, scenario.think);
        let longest = (think.max - think.min).as_nanos() as u64;
        let typed_at = scheduled + think.min.as_nanos() as u64 + self.rng.below(longest.max(1));
        // What would be written after the end is written at once: as much is sent as was asked for.
        let is_in_time = typed_at < self.load.began + self.plan.duration().as_nanos() as u64;
        if is_in_time && self.rng.chance(per_message.typing) {
            if let Some(id) = self.ids[channel as usize] {
                self.say(net, client, &Ask::Typing { channel: id });
            }
            net.set_timer(typed_at, Timer::Typed(client, channel, typed_at));
        } else {
            self.write(net, client, channel, scheduled, at);
        }
        for _ in 0..self.times(per_message.history) {
            self.look_back(net, scheduled);
        }
        for _ in 0..self.times(per_message.search) {
            self.look_for_something(net, scheduled);
        }
    }

    /// 2.3 is two, and three times in ten three.
    fn times(&mut self, mean: f64) -> u32 {
        mean as u32 + u32::from(self.rng.chance(mean.fract()))
    }

    /// A client that can write, and one of its channels; none if there is nobody.
    pub(super) fn somebody(&mut self) -> Option<(ClientNo, u32)> {
        let index = self.rng.below((self.writers.len() as u64).max(1)) as usize;
        let client = *self.writers.get(index)?;
        let number = self.people.get(client as usize)?.number;
        let channel = self.plan.choose_channel(number, &mut self.rng)?;
        Some((client, channel))
    }

    pub(super) fn typed(&mut self, net: &mut Net<Timer>, client: ClientNo, channel: u32, scheduled: u64, at: u64) {
        if self.act == Act::Running {
            self.write(net, client, channel, scheduled, at);
        } else if scheduled <= self.load.ended {
            self.meter.unwritten(self.load.ended - scheduled);
        }
    }

    /// Connections break, as when a balancer is restarted.
    pub(super) fn storm(&mut self, net: &mut Net<Timer>, span: usize, at: u64) {
        let Some((share, within)) = self.plan.spans.get(span).and_then(|span| span.storm) else { return };
        if self.act != Act::Running {
            return;
        }
        for client in 0..self.people.len() as u32 {
            if self.people[client as usize].is_here() && self.rng.chance(share) {
                net.cut(client);
                self.gone(client, at);
                net.set_timer(at + self.rng.below(within.max(1)), Timer::Dial(client));
            }
        }
    }
}
