//! Messages on stderr: `jobmon: …` from the supervisor, whose stderr is the command's, and logfmt from the gateway.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use chrono::{SecondsFormat, Utc};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

/// How a message looks.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    /// `jobmon: message key=value`.
    Prefixed,
    /// `time=… level=… msg="…" key=value`.
    Logfmt,
    /// `{"time":"…","level":"…","msg":"…","key":"value"}`.
    Json,
}

/// Sends messages from `level` on to stderr. Only the first call counts.
pub fn start(style: Style, level: LevelFilter) {
    // A second subscriber is refused; the first goes on.
    let _ = tracing::subscriber::set_global_default(Messages { style, level });
}

/// Events as lines. There are no spans here, and a subscriber that could keep some would be most of what the supervisor
/// loads before it starts the command.
struct Messages {
    style: Style,
    level: LevelFilter,
}

impl Subscriber for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        print(&self.style.line(event.metadata(), &parts));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// How long a message waits for somebody to read the ones before it.
const UNREAD_MAX_MS: u8 = 100;
/// What a pipe that can be written to takes without blocking (pipe(7), `PIPE_BUF`).
const PIECE_BYTES: usize = 4096;

/// Writes a text to stderr as far as it is taken.
pub fn print(text: &str) {
    // Writing to it never fails.
    let _ = Stderr.write_all(text.as_bytes());
}

/// Stderr that never fails and never blocks for long: where it is full and nobody reads it, or closed, messages are lost
/// rather than time.
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        for piece in bytes.chunks(PIECE_BYTES) {
            let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
            let writable = poll(&mut fds, PollTimeout::from(UNREAD_MAX_MS)).is_ok_and(|ready| ready > 0);
            if !writable || stderr.lock().write_all(piece).is_err() {
                break;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Style {
    fn line(self, metadata: &Metadata<'_>, parts: &Parts) -> String {
        let time = || Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let level = metadata.level();
        match self {
            Self::Prefixed => format!("jobmon: {}{}\n", parts.message, parts.logfmt()),
            Self::Logfmt => {
                format!("time={} level={level} msg={:?}{}\n", time(), parts.message, parts.logfmt())
            }
            Self::Json => {
                let own = [("time", time()), ("level", level.to_string()), ("msg", parts.message.clone())];
                let own = own.into_iter().map(|(name, value)| (name, value.into()));
                let fields = parts.fields.iter().map(|(name, value)| (*name, value.as_str().into()));
                let all = own.chain(fields).map(|(name, value)| (name.to_owned(), value));
                let object: serde_json::Map<String, serde_json::Value> = all.collect();
                format!("{}\n", serde_json::Value::from(object))
            }
        }
    }
}

/// An event's message and its fields.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }
}

impl Parts {
    fn add(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), text));
        }
    }

    /// ` key=value` for each field, in quotes where there are blanks.
    fn logfmt(&self) -> String {
        let mut line = String::new();
        for (name, text) in &self.fields {
            let plain = !text.is_empty()
                && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "\"=".contains(c));
            // A String takes every write.
            let _ = if plain { write!(line, " {name}={text}") } else { write!(line, " {name}={text:?}") };
        }
        line
    }
}
