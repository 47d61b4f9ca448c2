use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;

fn frame(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn sockets() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    (Arc::new(ours), theirs)
}

#[test]
fn a_full_outbox_closes_rather_than_leaves_a_frame_out() {
    for outbox in [Outbox::new(4, 1000), Outbox::new(100, 40)] {
        (0..4).for_each(|_| outbox.push(&frame("ten bytes.")));
        assert!(!outbox.is_overrun());
        outbox.push(&frame("one more"));
        outbox.push(&frame("another"));
        assert_eq!(outbox.take(), (vec![], Some(SLOW_CONSUMER)));
    }
}

#[tokio::test]
async fn a_large_reply_takes_no_place_from_what_comes_behind_it() {
    let large = Bytes::from(vec![b'x'; 200]);
    let welcomed = Outbox::new(100, 40);
    welcomed.open(sockets().await.0, large.clone());
    welcomed.state.lock().is_blocked = true;
    let replied = Outbox::new(100, 40);
    replied.push(&large);
    for outbox in [welcomed, replied] {
        (0..4).for_each(|_| outbox.push(&frame("ten bytes.")));
        assert!(!outbox.is_overrun());
        // A second one does: so there is a bound.
        outbox.push(&large);
        assert!(outbox.is_overrun());
    }
}

#[test]
fn what_waits_goes_out_before_the_close() {
    let outbox = Outbox::new(10, 1000);
    outbox.push(&frame("one"));
    outbox.close(Closing::new(1000, "bye"));
    outbox.close(Closing::new(1001, "later"));
    outbox.push(&frame("two"));
    assert_eq!(outbox.take(), (vec![frame("one")], Some(Closing::new(1000, "bye"))));
}

#[tokio::test]
async fn the_first_frame_overtakes_those_that_wait_and_then_nothing_does() {
    let (ours, mut theirs) = sockets().await;
    let outbox = Outbox::new(10, 1000);
    outbox.push(&frame("two "));
    outbox.open(ours, frame("one "));
    // Not before those that wait.
    outbox.push(&frame("three "));
    assert!(outbox.drain().unwrap().rest.is_none());
    outbox.push_all(&[frame("four "), frame("five")]);
    assert!(outbox.is_empty());
    let mut seen = [0; 23];
    theirs.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"one two three four five");
}

#[tokio::test]
async fn what_is_held_goes_with_the_next_frame_or_when_asked() {
    let (ours, mut theirs) = sockets().await;
    let outbox = Outbox::new(10, 1000);
    outbox.open(ours, frame("one "));
    assert!(outbox.drain().unwrap().rest.is_none());
    assert!(outbox.hold(&frame("two ")));
    assert!(!outbox.hold(&frame("three ")));
    assert_eq!(outbox.state.lock().frames.len(), 2);
    outbox.push(&frame("four "));
    assert!(outbox.is_empty());
    assert!(outbox.hold(&frame("five ")));
    outbox.push_all(&[frame("six "), frame("seven ")]);
    assert!(outbox.hold(&frame("eight")));
    assert_eq!(outbox.state.lock().frames.len(), 1);
    outbox.write_held();
    assert!(outbox.is_empty());
    let mut seen = [0; 39];
    theirs.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"one two three four five six seven eight");
}

#[tokio::test]
async fn what_goes_in_one_piece_leaves_no_old_page_behind() {
    let (ours, mut theirs) = sockets().await;
    let outbox = Outbox::new(4, 40);
    outbox.open(ours, frame("the welcome, which is a page "));
    outbox.push(&frame("ten bytes."));
    theirs.read_exact(&mut [0; 39]).await.unwrap();
    assert_eq!(outbox.state.lock().page.frames, 0);
    // So the next large reply is one that a slow reader may have in one piece.
    outbox.state.lock().is_blocked = true;
    outbox.push(&Bytes::from(vec![b'x'; 200]));
    outbox.push(&frame("ten bytes."));
    assert!(!outbox.is_overrun());
}

#[tokio::test]
async fn what_is_held_makes_nobody_slow() {
    for outbox in [Outbox::new(4, 1000), Outbox::new(100, 40)] {
        let (ours, mut theirs) = sockets().await;
        outbox.open(ours, frame("ten bytes."));
        for _ in 0..100 {
            outbox.hold(&frame("ten bytes."));
        }
        assert!(!outbox.is_overrun());
        outbox.write_held();
        theirs.read_exact(&mut [0; 1010]).await.unwrap();
        // Who has not said its first words yet has a bound all the same.
        let silent = Outbox::new(4, 1000);
        for _ in 0..100 {
            silent.hold(&frame("ten bytes."));
        }
        assert!(silent.is_overrun());
    }
}

#[tokio::test]
async fn a_close_does_not_come_within_a_frame() {
    let (ours, mut theirs) = sockets().await;
    let outbox = Outbox::new(3, 100 << 20);
    outbox.open(Arc::clone(&ours), frame("one"));
    assert!(outbox.drain().unwrap().rest.is_none());
    // More than the sockets hold.
    let large = Bytes::from(vec![b'x'; 32 << 20]);
    for _ in 0..5 {
        outbox.push(&large);
    }
    assert!(outbox.is_overrun());
    let rest = outbox.finish().unwrap();
    assert!(rest.len() < large.len(), "nothing of it was written");
    let (mut seen, expected) = (0, "one".len() + large.len() - rest.len());
    let mut buffer = vec![0; 1 << 20];
    while seen < expected {
        seen += tokio::time::timeout(Duration::from_secs(10), theirs.read(&mut buffer)).await.unwrap().unwrap();
    }
    assert_eq!(seen, expected, "more than that frame was begun");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whoever pushes and whoever flushes: each byte once, in order, though the reader is slow.
    #[test]
    fn each_byte_arrives_once_and_in_order(
        pushes in prop::collection::vec(
            prop_oneof![prop::collection::vec(1..20_000_usize, 1), prop::collection::vec(1..20_000_usize, 1..70)],
            1..30,
        ),
        pieces in prop::collection::vec(1..200_000_usize, 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = sockets().await;
            let outbox = Arc::new(Outbox::new(100_000, 1 << 40));
            outbox.open(Arc::clone(&ours), frame("begin"));
            let flushed = Arc::clone(&outbox);
            let flushes = tokio::spawn(async move {
                loop {
                    if let Some(end) = flushed.drain().unwrap().rest {
                        while !flushed.flush(end).unwrap() {
                            ours.writable().await.unwrap();
                        }
                        continue;
                    }
                    flushed.changed().await;
                }
            });
            let (mut sent, mut seen) = (b"begin".to_vec(), Vec::new());
            let mut pieces = pieces.iter().cycle();
            for (number, lengths) in pushes.iter().enumerate() {
                let frames: Vec<Bytes> = lengths.iter().map(|length| Bytes::from(vec![number as u8; *length])).collect();
                frames.iter().for_each(|frame| sent.extend_from_slice(frame));
                match &frames[..] {
                    [frame] => {
                        outbox.hold(frame);
                        // The next push takes it along.
                        continue;
                    }
                    _ => outbox.push_all(&frames),
                }
                let mut piece = vec![0; *pieces.next().unwrap()];
                let read = theirs.read(&mut piece).await.unwrap();
                seen.extend_from_slice(&piece[..read]);
            }
            outbox.write_held();
            let mut piece = vec![0; 1 << 20];
            while seen.len() < sent.len() {
                let read = theirs.read(&mut piece).await.unwrap();
                seen.extend_from_slice(&piece[..read]);
            }
            flushes.abort();
            assert!(seen == sent, "{} bytes of {}", seen.len(), sent.len());
            assert!(outbox.is_empty());
            assert_eq!(outbox.state.lock().bytes, 0);
        });
    }
}
