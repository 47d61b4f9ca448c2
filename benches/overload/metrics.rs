use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// What the server says it has refused, by its code.
pub fn refused(server: SocketAddr) -> BTreeMap<String, u64> {
    let mut socket = TcpStream::connect(server).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let line = |line: &str| {
        let (reason, count) = line.strip_prefix("aula_refused_total{reason=\"")?.split_once("\"} ")?;
        Some((reason.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}
