//! The fenced blocks of the page that mean something.

use serde_json::Value;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum What<'a> {
    /// `json client NAME`: this connection sends it.
    Client(&'a str),
    /// `json server NAME`: this connection receives it.
    Server(&'a str),
    /// `json shape NAME`: shown, but not played.
    Shape(&'a str),
    /// `json closed NAME`: how this connection is closed.
    Closed(&'a str),
    /// `http request`
    Request { method: &'a str, path: &'a str },
    /// `http response`
    Response { status: u16 },
    /// `sh stop`: the server is told to stop.
    Stop,
    /// `sh run`: an operator's command.
    Run(&'a str),
}

#[derive(Debug, Clone)]
pub struct Block<'a> {
    /// In the page, of the opening fence.
    pub line: usize,
    pub what: What<'a>,
    /// As `name: value`.
    pub headers: Vec<(&'a str, &'a str)>,
    /// Null if there is none; text that is no JSON as a string.
    pub json: Value,
}

/// All blocks, in order; panics at one that can't be read.
pub fn of(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some(begin) = rest.find("\n```") {
        let line = page[..page.len() - rest.len() + begin + 1].lines().count() + 1;
        let (info, body) = rest[begin + 4..].split_once('\n').unwrap();
        let (body, after) = body.split_once("\n```\n").unwrap_or_else(|| panic!("line {line}: the block has no end"));
        blocks.push(block(line, info, body));
        // The next fence may follow at once.
        rest = &rest[rest.len() - after.len() - 1..];
    }
    blocks
}

fn block<'a>(line: usize, info: &'a str, body: &'a str) -> Block<'a> {
    let words: Vec<&str> = info.split(' ').collect();
    let what = match words[..] {
        ["json", "client", name] => What::Client(name),
        ["json", "server", name] => What::Server(name),
        ["json", "shape", name] => What::Shape(name),
        ["json", "closed", name] => What::Closed(name),
        ["sh", "stop"] => return Block { line, what: What::Stop, headers: Vec::new(), json: Value::Null },
        ["sh", "run"] => return Block { line, what: What::Run(body.trim()), headers: Vec::new(), json: Value::Null },
        ["http", kind] => return http(line, kind, body),
        _ => panic!("line {line}: {info:?} means nothing to the test"),
    };
    let json = serde_json::from_str(body).unwrap_or_else(|error| panic!("line {line}: {error}"));
    Block { line, what, headers: Vec::new(), json }
}

fn http<'a>(line: usize, kind: &str, text: &'a str) -> Block<'a> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let first: Vec<&str> = lines.next().unwrap().splitn(3, ' ').collect();
    let what = match (kind, &first[..]) {
        ("request", [method, path @ ..]) if !path.is_empty() => {
            // A placeholder has a space in it.
            let path = head.lines().next().unwrap().strip_prefix(method).unwrap().trim();
            What::Request { method, path }
        }
        ("response", ["HTTP/1.1", status, _reason]) => What::Response { status: status.parse().unwrap() },
        _ => panic!("line {line}: neither a request nor a response"),
    };
    let headers = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let json = match body {
        "" => Value::Null,
        body => serde_json::from_str(body).unwrap_or_else(|_| Value::String(format!("{body}\n"))),
    };
    Block { line, what, headers, json }
}
