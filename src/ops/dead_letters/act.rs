//! `retry` and `purge`: first a look that counts, then a second one that does it.

use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Chosen;
use super::plan::{Group, Plan};
use crate::ops::confirm;
use crate::ops::exit::Advise as _;
use crate::ops::output::counted;
use crate::ops::progress::Progress;
use crate::ops::{Context, Exit, signals};
use crate::server::queue::{DeadLetters, QueueError};

#[derive(Debug, Clone, Copy)]
pub enum Act {
    Retry {
        /// A second.
        rate: NonZeroU32,
        most_attempts: Option<NonZeroU32>,
    },
    Purge,
}

impl Act {
    fn done(self) -> &'static str {
        match self {
            Self::Retry { .. } => "put back",
            Self::Purge => "thrown away",
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    done: &'static str,
    dry_run: bool,
    /// Done, or with `dry_run` to be done.
    letters: u64,
    /// Begun and not finished.
    left: u64,
    held_back: u64,
    beyond: u64,
    missing: &'a [String],
    interrupted: bool,
    groups: &'a [Group],
}

/// What came of the second look.
#[derive(Default)]
struct Outcome {
    done: u64,
    interrupted: bool,
    failed: Option<QueueError>,
}

pub async fn run(context: &Context, letters: &dyn DeadLetters, chosen: Chosen, act: Act) -> anyhow::Result<Exit> {
    let Chosen { ids, filter, dry_run, yes } = chosen;
    // From now on ctrl-c ends it after the letter in hand.
    let mut stop = pin!(signals::Terminate::listen()?.received());
    let filter = filter.of(&ids);
    let most_attempts = match act {
        Act::Retry { most_attempts, .. } => most_attempts,
        Act::Purge => None,
    };
    let plan = Plan::make(letters, &filter, most_attempts).await?;
    let total = plan.ids.len() as u64;
    let mut outcome = Outcome::default();
    if dry_run {
        outcome.done = total;
    } else if total > 0 {
        if !yes {
            context.output.note(plan.text());
            let (what, can_undo) = match act {
                Act::Retry { .. } => ("Put back", ""),
                Act::Purge => ("Throw away", ", for good"),
            };
            let letters = counted(total, "dead letter");
            if !confirm::ask(&format!("{what} {letters}{can_undo}?"))? {
                context.output.note("nothing was done");
                return Ok(Exit::Failed);
            }
        }
        let mut progress = Progress::new(context.output.is_quiet());
        outcome = carry_out(letters, &plan, act, stop.as_mut(), &mut progress).await;
    }
    report(context, &plan, act, dry_run, &outcome)?;
    let is_all = outcome.done == total && !outcome.interrupted;
    match outcome.failed {
        Some(error) if outcome.done == 0 => Err(error).hint(advice(&error_text(act))),
        Some(error) => {
            context.output.note(format_args!("stopped: {error}; {}", error_text(act)));
            Ok(Exit::Partly)
        }
        None if total == 0 && !plan.missing.is_empty() && plan.held_back == 0 => Ok(Exit::Failed),
        None if !is_all || plan.held_back + plan.beyond > 0 || !plan.missing.is_empty() => Ok(Exit::Partly),
        None => Ok(Exit::Done),
    }
}

fn error_text(act: Act) -> String {
    match act {
        Act::Retry { .. } => {
            "what is not put back is still a dead letter: run it again when the queue takes tasks".into()
        }
        Act::Purge => "run it again for the rest".into(),
    }
}

fn advice(text: &str) -> String {
    format!("{text}; `aula queue-stats` says how the queues are")
}

async fn carry_out(
    letters: &dyn DeadLetters,
    plan: &Plan,
    act: Act,
    mut stop: Pin<&mut impl Future<Output = &'static str>>,
    progress: &mut Progress,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut pace = match act {
        Act::Retry { rate, .. } => Some(pace(rate)),
        Act::Purge => None,
    };
    for family in &plan.families {
        if let Err(error) = through(letters, *family, plan, act, &mut pace, stop.as_mut(), progress, &mut outcome).await
        {
            outcome.failed = Some(error);
        }
        if outcome.interrupted || outcome.failed.is_some() {
            break;
        }
    }
    outcome
}

#[allow(clippy::too_many_arguments, reason = "the loop's state, for one family after the other")]
async fn through(
    letters: &dyn DeadLetters,
    family: crate::server::queue::Family,
    plan: &Plan,
    act: Act,
    pace: &mut Option<Interval>,
    mut stop: Pin<&mut impl Future<Output = &'static str>>,
    progress: &mut Progress,
    outcome: &mut Outcome,
) -> Result<(), QueueError> {
    let mut walk = letters.walk(family).await?;
    while let Some(letter) = walk.next().await? {
        if !plan.ids.contains(&letter.id) {
            continue;
        }
        let signal = match pace {
            Some(pace) => tokio::select! {
                biased;
                signal = &mut stop => Some(signal),
                _ = pace.tick() => None,
            },
            None => stop.as_mut().now_or_never(),
        };
        if signal.is_some() {
            outcome.interrupted = true;
            break;
        }
        match act {
            Act::Retry { .. } => walk.put_back().await?,
            Act::Purge => walk.remove().await?,
        }
        outcome.done += 1;
        progress.show(outcome.done as f64 / plan.ids.len() as f64, outcome.done, "letters");
    }
    walk.end().await
}

fn pace(rate: NonZeroU32) -> Interval {
    let mut pace = interval(Duration::from_secs(1) / rate.get());
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

fn report(context: &Context, plan: &Plan, act: Act, dry_run: bool, outcome: &Outcome) -> anyhow::Result<()> {
    let total = plan.ids.len() as u64;
    let report = Report {
        done: act.done(),
        dry_run,
        letters: outcome.done,
        left: total - outcome.done.min(total),
        held_back: plan.held_back,
        beyond: plan.beyond,
        missing: &plan.missing,
        interrupted: outcome.interrupted,
        groups: &plan.groups,
    };
    context.output.value(&report, || {
        let done = act.done();
        let mut lines = Vec::new();
        if total == 0 && plan.held_back == 0 {
            lines.push("no dead letter is meant by that".to_owned());
        } else if dry_run {
            lines.push(plan.text());
            lines.push(format!("{} would be {done}", counted(total, "dead letter")));
        } else {
            lines.push(format!("{} of {total} dead letters {done}", outcome.done));
        }
        if outcome.interrupted {
            lines.push("interrupted: the rest is as it was; run it again".to_owned());
        }
        if plan.held_back > 0 {
            lines.push(format!(
                "{} left out, because they have died too often (--most-attempts): find out why first, then --again",
                plan.held_back
            ));
        }
        if plan.beyond > 0 {
            lines.push(format!("{} more were too many for one go: run it again", plan.beyond));
        }
        if !plan.missing.is_empty() {
            lines.push(format!("not there: {}", plan.missing.join(", ")));
        }
        lines.join("\n")
    })?;
    Ok(())
}
