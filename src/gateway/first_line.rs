//! Quotes in a URL, as people write them: `curl -g 'http://…/api/v1/groups?match[]={job="x"}'`.
//!
//! A quote has to be written `%22` in a URL (RFC 3986, section 2), and our HTTP library refuses the request. A Pushgateway's does
//! not, and who types a selector has more to think of. So the first line of a connection is read with its quotes written as they
//! should be; programs, which send more lines on a connection, write them so themselves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longer lines are left as they are.
const LINE_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4096;

/// A stream whose first line has no quotes.
pub(super) struct FirstLine<S> {
    stream: S,
    progress: Progress,
}

enum Progress {
    /// What has been read of the line.
    Reading(Vec<u8>),
    /// What has been read and not been given on, and how much of it has.
    GivingOn(Vec<u8>, usize),
    Done,
}

impl<S> FirstLine<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, progress: Progress::Reading(Vec::new()) }
    }
}

/// Bytes whose first line has its quotes escaped.
fn escaped(bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    if !bytes[..end].contains(&b'"') {
        return bytes;
    }
    let (line, rest) = bytes.split_at(end);
    [&line.split(|byte| *byte == b'"').collect::<Vec<_>>().join(&b"%22"[..]), rest].concat()
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstLine<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, progress } = self.get_mut();
        loop {
            match progress {
                Progress::Done => return Pin::new(stream).poll_read(cx, buf),
                Progress::GivingOn(bytes, given) => {
                    let now = buf.remaining().min(bytes.len() - *given);
                    buf.put_slice(&bytes[*given..*given + now]);
                    *given += now;
                    if *given == bytes.len() {
                        *progress = Progress::Done;
                    }
                    return Poll::Ready(Ok(()));
                }
                Progress::Reading(line) => {
                    let mut room = [0; READ_BYTES];
                    let mut room = ReadBuf::new(&mut room);
                    ready!(Pin::new(&mut *stream).poll_read(cx, &mut room))?;
                    let more = room.filled();
                    let is_over = more.is_empty() || more.contains(&b'\n') || line.len() > LINE_BYTES_MAX;
                    line.extend_from_slice(more);
                    if is_over {
                        *progress = Progress::GivingOn(escaped(std::mem::take(line)), 0);
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstLine<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What arrives of bytes that are sent in pieces, with a pause after each.
    fn arrived(pieces: &[&[u8]]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1024 * 1024);
            let mut server = FirstLine::new(server);
            let send = async move {
                for piece in pieces {
                    client.write_all(piece).await.expect("there is room");
                    tokio::task::yield_now().await;
                }
            };
            let mut all = Vec::new();
            let (read, ()) = tokio::join!(server.read_to_end(&mut all), send);
            read.expect("it ends");
            all
        })
    }

    #[test]
    fn quotes_of_the_first_line_are_escaped() {
        for (pieces, expected) in [
            (
                &[&b"GET /?a=\"b\" HTTP/1.1\r\nX: \"y\"\r\n\r\n\"z\""[..]][..],
                &b"GET /?a=%22b%22 HTTP/1.1\r\nX: \"y\"\r\n\r\n\"z\""[..],
            ),
            (&[b"GET /?a=\"", b"b\"\r", b"\n\"z\""], b"GET /?a=%22b%22\r\n\"z\""),
            (&[b"PUT / HTTP/1.1\r\n\r\n\"\n\""], b"PUT / HTTP/1.1\r\n\r\n\"\n\""),
            (&[b"\""], b"%22"),
            (&[], b""),
        ] {
            assert_eq!(arrived(pieces), expected);
        }
        let long = vec![b'"'; 3 * LINE_BYTES_MAX];
        assert!(arrived(&[&long]).len() >= long.len());
    }
}
