//! A task, as a broken disk or another version's gateway may have left it in the queue.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = aula::server::queue::Task::decode(bytes);
});
