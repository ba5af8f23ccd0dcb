//! HTTP as it is on the wire, so that answers can be compared to the byte.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::DEADLINE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

pub fn get(url: &str) -> Answer {
    request("GET", url, &[], b"")
}

pub fn put(url: &str, body: &[u8]) -> Answer {
    request("PUT", url, &[], body)
}

pub fn post(url: &str, body: &[u8]) -> Answer {
    request("POST", url, &[], body)
}

/// Sends one request on a connection of its own.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let (host, path) = split(url);
    request_raw(method, host, path, headers, body)
}

/// The same, to a host, with whatever stands for a path.
pub fn request_raw(method: &str, host: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a String grows");
    }
    if !body.is_empty() || method == "PUT" || method == "POST" {
        write!(head, "Content-Length: {}\r\n", body.len()).expect("a String grows");
    }
    head.push_str("\r\n");
    exchange(host, &[head.as_bytes(), body].concat(), method == "HEAD")
        .unwrap_or_else(|e| panic!("{method} {host}{path}: {e}"))
}

/// The host with its port, and the path.
pub fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

/// Sends bytes and reads the answer to the end.
pub fn exchange(host: &str, bytes: &[u8], is_head: bool) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    // A server that refuses a body may close before it has read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        end?;
    }
    parse(&answer, is_head)
        .ok_or_else(|| std::io::Error::other(format!("no answer: {}", answer.escape_ascii())))
}

/// Forwards connections of a socket to a server, for as long as the process lives.
pub fn forward(socket: &std::path::Path, url: &str) -> std::thread::JoinHandle<()> {
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("bound");
    let host = split(url).0.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&host).expect("it is up");
            let (from, to) = (client.try_clone().expect("copied"), server.try_clone().expect("copied"));
            pass_on(from, to, server, client);
        }
    })
}

/// Passes on what a client and a server say to each other, until both have ended.
pub fn relay(client: TcpStream, host: &str) {
    let server = TcpStream::connect(host).expect("it is up");
    let (from, to) = (client.try_clone().expect("copied"), server.try_clone().expect("copied"));
    pass_on(from, to, server, client);
}

fn pass_on(
    mut from_client: impl Read + Send + 'static,
    mut to_server: TcpStream,
    mut from_server: TcpStream,
    mut to_client: impl Write,
) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut from_server, &mut to_client);
}

fn parse(answer: &[u8], is_head: bool) -> Option<Answer> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> =
        lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut answer = Answer { status, headers, body: answer[end + 4..].to_vec() };
    if answer.header("transfer-encoding") == Some("chunked") && !is_head {
        answer.body = unchunk(&answer.body)?;
    }
    Some(answer)
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(out);
        }
        out.extend_from_slice(body.get(end + 2..end + 2 + length)?);
        body = body.get(end + 4 + length..)?;
    }
}
