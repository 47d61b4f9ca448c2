//! What the loop calls: frames, timers and ends go to those whose business they are.

use super::super::engine::{ClientNo, Data, Ended, Net, Script};
use super::super::measured::Stage;
use super::{Crowd, SECOND, Timer};
use crate::message::ChannelId;
use crate::oracle::frame::{Received, Status};

impl Script for Crowd {
    type Timer = Timer;

    fn start(&mut self, _net: &mut Net<Timer>, _at: u64) {}

    fn woken(&mut self, net: &mut Net<Timer>, at: u64) {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.obey(net, order, at),
                Err(std::sync::mpsc::TryRecvError::Empty) => return,
                // Whoever conducted is gone: nobody wants to know any more.
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return net.stop(),
            }
        }
    }

    fn opened(&mut self, _net: &mut Net<Timer>, client: ClientNo, _at: u64) {
        self.begin_connection(client);
    }

    fn message(&mut self, net: &mut Net<Timer>, client: ClientNo, data: Data<'_>, at: u64) {
        let received = match data {
            Data::Text(text) => Received::from_json(text.as_bytes()),
            Data::Binary(bytes) => Received::from_msgpack(bytes),
        };
        let connection = self.people[client as usize].connection;
        if matches!(received, Ok(Received::Welcome(_))) && self.people[client as usize].has_arrived {
            self.learn_from_welcome(data);
        }
        let frame = match received {
            Ok(frame) => self.only_of_the_run(frame),
            Err(problem) => {
                self.meter.error(Stage::SendToReceive, "malformed");
                if let (Some(recorder), Some(connection)) = (&mut self.recorder, connection) {
                    recorder.malformed(connection, at, &problem);
                }
                return;
            }
        };
        if let (Some(recorder), Some(connection)) = (&mut self.recorder, connection) {
            recorder.received(connection, at, &frame);
        }
        match &frame {
            Received::Message(message) => self.receive(net, client, message, at),
            Received::Accepted { reference } => self.accepted(client, *reference, at),
            Received::Status(Status::Persisted { channel, client_id, .. }) => {
                self.persisted(client, *channel, *client_id, at);
            }
            Received::Status(Status::Rejected { client_id, .. }) => self.rejected(client, *client_id),
            Received::Status(Status::Delivered { channel, seq }) => self.delivered_by_all(client, *channel, *seq, at),
            Received::Status(Status::Read { channel, seq }) => self.read_by_all(client, *channel, *seq, at),
            Received::Error(error) => self.refused(net, client, error, at),
            Received::Welcome(welcome) => self.welcomed(net, client, welcome, at),
            Received::Resumed { reference, channels } => self.resumed(net, client, *reference, channels, at),
            // Its messages were received, or won't come: there is nothing to ask for.
            Received::Purged(_) => {}
            Received::Gap(gap) => self.missed(net, client, gap.channel, at),
            Received::Page { reference, messages, more, .. } => {
                self.page(net, client, *reference, messages, *more, at);
            }
            Received::SearchResults(results) => self.found(net, client, results, at),
            Received::Other => self.other(net, client, data, at),
        }
    }

    fn timer(&mut self, net: &mut Net<Timer>, timer: Timer, at: u64) {
        match timer {
            Timer::Dial(client) => self.dial(net, client, at),
            Timer::Welcomed(client, dialled_at) => self.give_up_dialling(net, client, dialled_at, at),
            Timer::Write => self.write_what_is_due(net, at),
            Timer::Typed(client, channel, scheduled) => self.typed(net, client, channel, scheduled, at),
            Timer::TryAgain(client) => {
                self.people[client as usize].will_try_again = false;
                self.send_pending(net, client, at);
            }
            Timer::Deliver(client) => self.say_delivered(net, client),
            Timer::Read(client) => self.say_read(net, client),
            Timer::Resume(client) => self.resume(net, client),
            Timer::Storm(span) => self.storm(net, span, at),
            Timer::Create => self.create(net, at),
            Timer::Check => self.check(net, at),
            Timer::Settle => self.settle(net, at),
            Timer::Second => {
                self.tick(at);
                // At the seconds of the run, however late this one was.
                let seconds = at.saturating_sub(self.began) / SECOND;
                net.set_timer(self.began + (seconds + 1) * SECOND, Timer::Second);
            }
        }
    }

    fn closed(&mut self, net: &mut Net<Timer>, client: ClientNo, why: Ended, at: u64) {
        self.lost(net, client, why, at);
    }
}

impl Crowd {
    /// Leaves out what given accounts see of channels that are none of the run's: nobody here knows what was sent there.
    fn only_of_the_run<'a>(&self, mut frame: Received<'a>) -> Received<'a> {
        if !self.plan.settings.are_accounts_given {
            return frame;
        }
        let is_ours = |id: &ChannelId| self.known.contains_key(id);
        let channel = match &mut frame {
            Received::Welcome(welcome) => {
                welcome.channels.retain(|head| is_ours(&head.id));
                return frame;
            }
            Received::SearchResults(results) => {
                results.hits.retain(|hit| hit.channel.is_some_and(|id| is_ours(&id)));
                return frame;
            }
            Received::Message(message) => message.channel,
            Received::Gap(gap) => Some(gap.channel),
            Received::Purged(purged) => Some(purged.channel),
            Received::Status(
                Status::Persisted { channel, .. }
                | Status::Rejected { channel, .. }
                | Status::Delivered { channel, .. }
                | Status::Read { channel, .. },
            ) => Some(*channel),
            _ => return frame,
        };
        if channel.is_none_or(|id| is_ours(&id)) { frame } else { Received::Other }
    }
}
