use std::time::Instant;

use futures_util::future::join_all;

use super::*;

const CHANNELS: usize = 64;
const RUN: Duration = Duration::from_secs(4);

/// Single inserts of one entry, as many at a time as there are channels. Inserts a second.
async fn bare(store: &CassandraStore) -> f64 {
    let since = Instant::now();
    let ada = somebody();
    let channel = |_| async {
        let id = ChannelId::new_group();
        let mut seq = 0;
        while since.elapsed() < RUN {
            seq += 1;
            store.inner.write_entries(&[Arc::new(message(id, seq, &ada))]).await.unwrap();
        }
        seq
    };
    let done: Vec<Seq> = join_all((0..CHANNELS).map(channel)).await;
    done.iter().sum::<Seq>() as f64 / since.elapsed().as_secs_f64()
}

/// Flushes a second.
async fn flushes(store: &CassandraStore, entries: u64) -> f64 {
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        let ada = somebody();
        let mut owned = Owned::new();
        append(store, &owned.creation(&[&ada, &somebody()])).await;
        channels.push((owned, ada));
    }
    let since = Instant::now();
    let run = |(mut owned, ada): (Owned, Username)| async move {
        let mut count = 0;
        while since.elapsed() < RUN {
            let first = owned.state.last_seq + 1;
            let batch = owned.batch((first..first + entries).map(|seq| message(owned.id, seq, &ada)).collect());
            append(store, &batch).await;
            count += 1;
        }
        count
    };
    let done: Vec<u64> = join_all(channels.into_iter().map(run)).await;
    done.iter().sum::<u64>() as f64 / since.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture flushes_beside_bare_inserts"]
async fn flushes_beside_bare_inserts() {
    let store = store().await;
    bare(&store).await;
    for entries in [1, 10, 100] {
        let bare = bare(&store).await;
        let flushes = flushes(&store, entries).await;
        let stored = flushes * entries as f64;
        println!(
            "{entries} entries a flush: {flushes:.0} flushes/s, {stored:.0} entries/s; bare inserts {bare:.0}/s; ratio {:.2}",
            stored / bare
        );
    }
}
