//! What every [`DeadLetters`](super::super::DeadLetters) must do.

use super::super::{DeadLetter, DeadLetters, Walk};
use super::*;

/// A lane's tasks, all of them dead; more than any backend reads at once if `count` is.
async fn dead(process: &impl Process, count: usize) {
    let queue = process.queue();
    enqueue_all(&*queue, LANE, numbered(0..count)).await;
    let mut consumer = consume(&*queue, LANE).await;
    let taken = expect(&mut *consumer, numbered(0..count)).await;
    for delivery in &taken {
        consumer.dead_letter(delivery.tag, &format!("no {}", delivery.tag % 2)).await.unwrap();
    }
}

async fn walk(letters: &dyn DeadLetters) -> Box<dyn Walk> {
    timeout(PATIENCE, letters.walk(Family::DbTasks)).await.unwrap().unwrap()
}

async fn next(walk: &mut dyn Walk) -> Option<DeadLetter> {
    timeout(PATIENCE, walk.next()).await.unwrap().unwrap()
}

async fn rest(walk: &mut dyn Walk) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    while let Some(letter) = next(walk).await {
        letters.push(letter);
    }
    letters
}

/// All of them, left as they are.
async fn all(letters: &dyn DeadLetters) -> Vec<DeadLetter> {
    let mut walk = walk(letters).await;
    let found = rest(&mut *walk).await;
    timeout(PATIENCE, walk.end()).await.unwrap().unwrap();
    found
}

fn bodies(letters: &[DeadLetter]) -> Vec<String> {
    letters.iter().map(|letter| String::from_utf8(letter.payload.to_vec()).unwrap()).collect()
}

pub async fn a_walk_sees_them_in_order_and_changes_nothing<B: Backend>() {
    // More than are read at once.
    const COUNT: usize = 620;
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    assert_eq!(all(&*process.dead_letters()).await, []);
    dead(&process, COUNT).await;
    let letters = process.dead_letters();
    let first = all(&*letters).await;
    assert_eq!(bodies(&first), numbered(0..COUNT).collect::<Vec<_>>());
    assert_eq!(all(&*letters).await, first, "each has the same name at the next look");
    let names: std::collections::HashSet<_> = first.iter().map(|letter| &letter.id).collect();
    assert_eq!(names.len(), COUNT);
    let one = &first[1];
    assert_eq!((one.lane, one.deaths), (LANE, 1));
    assert!(one.reason.starts_with("no ") && one.first_died_at == one.died_at, "{one:?}");
    assert!(one.enqueued_at.unwrap() <= one.died_at.unwrap(), "{one:?}");
    // Left in the middle, and then without goodbye.
    let mut part = walk(&*letters).await;
    next(&mut *part).await.unwrap();
    timeout(PATIENCE, part.end()).await.unwrap().unwrap();
    assert!(all(&*letters).await == first, "in the same order");
    let mut part = walk(&*letters).await;
    next(&mut *part).await.unwrap();
    drop((part, letters));
    process.kill(Vec::new()).await;
    let after = backend.open(Settings::default()).await.unwrap();
    let queue = after.queue();
    let come_back = async {
        while stats_of(&*queue, LANE).await.dead_letters != COUNT as u64 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, come_back).await.unwrap();
    let by_name = |mut letters: Vec<DeadLetter>| {
        letters.sort_by(|a, b| a.id.cmp(&b.id));
        letters
    };
    assert!(by_name(all(&*after.dead_letters()).await) == by_name(first), "none is lost, and none is there twice");
}

pub async fn what_is_put_back_comes_at_the_end_of_its_lane_as_a_repetition<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    dead(&process, 3).await;
    let queue = process.queue();
    enqueue_all(&*queue, LANE, ["new".to_owned()]).await;
    // As an operator's command does, beside the process that works.
    let operator = backend.open(Settings::default()).await.unwrap();
    let letters = operator.dead_letters();
    let before = all(&*letters).await;
    let mut walk = walk(&*letters).await;
    for number in 0..3 {
        next(&mut *walk).await.unwrap();
        if number != 1 {
            timeout(PATIENCE, walk.put_back()).await.unwrap().unwrap();
        }
    }
    walk.end().await.unwrap();
    assert_eq!(bodies(&all(&*letters).await), ["1"]);
    let mut consumer = consume(&*queue, LANE).await;
    let taken = expect(&mut *consumer, ["new", "0", "2"].map(str::to_owned)).await;
    assert!(taken[1].redelivered && taken[2].redelivered, "{taken:?}");
    // It dies again: the deaths are counted, and the first is remembered.
    consumer.dead_letter(taken[1].tag, "again").await.unwrap();
    let after = all(&*letters).await;
    assert_eq!(bodies(&after), ["1", "0"]);
    assert_eq!((after[1].deaths, after[1].reason.as_str()), (2, "again"));
    assert_eq!(after[1].first_died_at, before[0].first_died_at);
    assert!(after[1].died_at >= before[0].died_at && after[1].id != before[0].id);
}

pub async fn only_what_is_removed_is_gone<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    dead(&process, 6).await;
    let letters = process.dead_letters();
    let mut walk = walk(&*letters).await;
    while let Some(letter) = next(&mut *walk).await {
        if letter.reason == "no 0" {
            walk.remove().await.unwrap();
        }
    }
    walk.end().await.unwrap();
    let left = all(&*letters).await;
    assert!(left.len() == 3 && left.iter().all(|letter| letter.reason == "no 1"), "{left:?}");
    drop((letters, process));
    let backend = backend.after_kill().await;
    let process = backend.open(Settings::default()).await.unwrap();
    assert_eq!(all(&*process.dead_letters()).await, left);
}

/// What dies of the retry is not tried again by the same walk.
pub async fn a_walk_ends_though_what_it_puts_back_dies_again<B: Backend>() {
    let backend = B::fresh().await;
    let process = backend.open(Settings::default()).await.unwrap();
    dead(&process, 4).await;
    let operator = backend.open(Settings::default()).await.unwrap();
    let letters = operator.dead_letters();
    let queue = process.queue();
    let mut walk = walk(&*letters).await;
    let mut seen = 0;
    let mut consumer = None;
    while next(&mut *walk).await.is_some() {
        seen += 1;
        assert!(seen <= 4, "it sees what came after it");
        timeout(PATIENCE, walk.put_back()).await.unwrap().unwrap();
        let consumer = match &mut consumer {
            Some(consumer) => consumer,
            none => none.insert(consume(&*queue, LANE).await),
        };
        let taken = take(&mut **consumer, 1).await;
        consumer.dead_letter(taken[0].tag, "again").await.unwrap();
    }
    walk.end().await.unwrap();
    let after = all(&*letters).await;
    assert_eq!(bodies(&after), numbered(0..4).collect::<Vec<_>>());
    assert!(after.iter().all(|letter| letter.deaths == 2), "{after:?}");
}

/// A process that dies while it puts tasks back loses none: each is in its lane, or still dead, or both.
pub async fn a_kill_while_tasks_are_put_back_loses_none<B: Backend>() {
    const COUNT: usize = 20;
    for done in [1, 7] {
        let backend = B::fresh().await;
        let process = backend.open(Settings::default()).await.unwrap();
        dead(&process, COUNT).await;
        let operator = backend.open(Settings::default()).await.unwrap();
        let letters = operator.dead_letters();
        let mut walk = walk(&*letters).await;
        for _ in 0..done {
            next(&mut *walk).await.unwrap();
            timeout(PATIENCE, walk.put_back()).await.unwrap().unwrap();
        }
        next(&mut *walk).await.unwrap();
        // Begun, and cut off wherever it is.
        let cut = timeout(Duration::from_micros(300), walk.put_back()).await;
        operator.kill(Vec::new()).await;
        drop((walk, letters, cut));
        let queue = process.queue();
        let letters = process.dead_letters();
        // All that are left, by the next run.
        let count_down = async {
            loop {
                let mut walk = self::walk(&*letters).await;
                while next(&mut *walk).await.is_some() {
                    timeout(PATIENCE, walk.put_back()).await.unwrap().unwrap();
                }
                walk.end().await.unwrap();
                // A broker may return the killed one's a little later.
                tokio::time::sleep(A_MOMENT).await;
                if stats_of(&*queue, LANE).await.dead_letters == 0 {
                    break;
                }
            }
        };
        timeout(PATIENCE, count_down).await.unwrap();
        let depth = stats_of(&*queue, LANE).await.depth as usize;
        assert!((COUNT..=COUNT + done + 1).contains(&depth), "{depth} of {COUNT}");
        let mut consumer = consume(&*queue, LANE).await;
        let taken: std::collections::HashSet<_> = texts(&take(&mut *consumer, depth).await).into_iter().collect();
        assert_eq!(taken, numbered(0..COUNT).collect());
    }
}
