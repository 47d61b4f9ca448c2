//! A binary frame, as any client on the internet may send it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = aula::wire::decode_msgpack(bytes);
});
