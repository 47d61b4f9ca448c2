//! What is read from a client's socket, in pieces of any size: the same is understood of it, however it is cut.
#![no_main]

use aula::websocket::{Reader, Role, Violation};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let read = |piece: usize| {
        let (mut reader, mut items) = (Reader::new(Role::Server, 64 << 10), Vec::new());
        let outcome = bytes.chunks(piece).try_for_each(|piece| {
            reader.read(&mut piece.to_vec(), |item| {
                items.push(format!("{item:?}"));
                Ok::<_, Violation>(())
            })
        });
        (items, outcome)
    };
    assert_eq!(read(usize::from(cut) + 1), read(bytes.len().max(1)));
});
