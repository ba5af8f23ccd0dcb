//! The command's output, where it is not simply the caller's: kept until the end and shown if the run fails, or thrown away.
//!
//! What is kept is bounded: the beginning, in memory and then in a file without a name, and the end. Stdout and stderr are
//! kept apart, in the order in which the kernel hands them out; where the caller's are one file, as under cron, the command
//! gets one pipe for both, and the order is exact.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::unistd::pipe2;

use super::fifo::temporary_directories;
use crate::config::OutputMode;

/// What is kept in memory before there is a file.
const MEMORY_BYTES_MAX: usize = 64 * 1024;
/// What is kept of the beginning, in the file.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What is kept of the end.
const END_BYTES_MAX: usize = 64 * 1024;
/// What is read before other events get their turn.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Stream and length before each piece in the file.
const HEADER_BYTES: usize = 5;

/// What becomes of the command's output.
#[derive(Debug)]
pub enum Output {
    /// It goes where jobmon's own would.
    Inherited,
    /// `/dev/null`, opened for it.
    Discarded(OwnedFd),
    /// It is kept.
    Kept(Box<Capture>),
}

/// Output on its way into memory.
#[derive(Debug)]
pub struct Capture {
    /// What we read: stdout's and stderr's pipe, or one for both.
    readers: Vec<(Stream, File)>,
    /// What the command writes to.
    writers: [OwnedFd; 2],
    kept: Kept,
}

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Output {
    /// Prepares what the command writes to.
    ///
    /// # Errors
    /// Why there is nothing to keep it in; the command can write to the caller's then.
    pub fn prepare(mode: OutputMode) -> io::Result<Self> {
        match mode {
            OutputMode::Inherit => Ok(Self::Inherited),
            OutputMode::Discard => Ok(Self::Discarded(File::options().write(true).open("/dev/null")?.into())),
            OutputMode::OnFailure => Ok(Self::Kept(Box::new(Capture::prepare()?))),
        }
    }

    /// What becomes the command's stdout and stderr.
    pub fn for_command(&self) -> Option<[BorrowedFd<'_>; 2]> {
        match self {
            Self::Inherited => None,
            Self::Discarded(null) => Some([null.as_fd(), null.as_fd()]),
            Self::Kept(capture) => Some([capture.writers[0].as_fd(), capture.writers[1].as_fd()]),
        }
    }

    /// What tells that there is something to read.
    pub fn readable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let readers = if let Self::Kept(capture) = self { &capture.readers[..] } else { &[] };
        readers.iter().map(|(_, reader)| reader.as_fd())
    }

    /// Reads what is there, some of it if there is much.
    pub fn read(&mut self) {
        if let Self::Kept(capture) = self {
            capture.read(READ_BYTES_MAX);
        }
    }

    /// Reads what the command has written, not what others write that it has left behind.
    pub fn drain(&mut self) {
        if let Self::Kept(capture) = self {
            let held =
                capture.readers.iter().filter_map(|(_, r)| fcntl(r, FcntlArg::F_GETPIPE_SZ).ok()).max();
            capture.read(held.and_then(|held| held.try_into().ok()).unwrap_or(READ_BYTES_MAX));
        }
    }

    /// What was kept.
    pub fn take(&mut self) -> Option<Kept> {
        match self {
            Self::Kept(capture) => Some(std::mem::take(&mut capture.kept)),
            Self::Inherited | Self::Discarded(_) => None,
        }
    }
}

impl Capture {
    fn prepare() -> io::Result<Self> {
        let (out_reader, out_writer) = pipe()?;
        if are_one_file() {
            let both = out_writer.try_clone()?;
            return Ok(Self {
                readers: vec![(Stream::Stdout, out_reader)],
                writers: [out_writer, both],
                kept: Kept::default(),
            });
        }
        let (err_reader, err_writer) = pipe()?;
        Ok(Self {
            readers: vec![(Stream::Stdout, out_reader), (Stream::Stderr, err_reader)],
            writers: [out_writer, err_writer],
            kept: Kept::default(),
        })
    }

    fn read(&mut self, bytes_max: usize) {
        let mut buffer = [0; 16 * 1024];
        let mut bytes = 0;
        loop {
            let mut idle = true;
            // In turns, so that neither runs ahead by more than a piece.
            for (stream, reader) in &mut self.readers {
                if let Ok(n @ 1..) = reader.read(&mut buffer) {
                    self.kept.add(*stream, &buffer[..n]);
                    bytes += n;
                    idle = false;
                }
            }
            if idle || bytes >= bytes_max {
                return;
            }
        }
    }
}

/// A pipe whose reading end does not block.
fn pipe() -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((File::from(reader), writer))
}

/// Whether the caller's stdout and stderr are the same, as `2>&1` makes them.
fn are_one_file() -> bool {
    match (fstat(io::stdout()), fstat(io::stderr())) {
        (Ok(out), Ok(err)) => (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino),
        _ => false,
    }
}

/// What was kept of the output.
#[derive(Debug, Default)]
pub struct Kept {
    beginning: Vec<u8>,
    /// Where the beginning goes on; `None` if it does not, or nowhere.
    file: Option<File>,
    file_bytes: u64,
    /// Whether something came after the beginning was full.
    is_cut: bool,
    end: VecDeque<(Stream, Vec<u8>)>,
    end_bytes: usize,
    left_out_bytes: u64,
}

impl Kept {
    fn add(&mut self, stream: Stream, bytes: &[u8]) {
        if !self.is_cut {
            self.is_cut = !self.add_to_beginning(stream, bytes);
        }
        if self.is_cut {
            self.add_to_end(stream, bytes);
        }
    }

    /// Whether there was room.
    fn add_to_beginning(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let piece = [&[u8::from(stream == Stream::Stderr)], &length[..], bytes].concat();
        if self.file.is_none() && self.beginning.len() + piece.len() <= MEMORY_BYTES_MAX {
            self.beginning.extend_from_slice(&piece);
            return true;
        }
        if self.file_bytes + piece.len() as u64 > FILE_BYTES_MAX {
            return false;
        }
        if self.file.is_none() {
            self.file = temporary_directories().into_iter().find_map(|dir| tempfile::tempfile_in(dir).ok());
        }
        let Some(file) = &mut self.file else { return false };
        if file.write_all(&piece).is_err() {
            // The disk is full: what was written of this piece does not count.
            let _ = file.set_len(self.file_bytes);
            return false;
        }
        self.file_bytes += piece.len() as u64;
        true
    }

    fn add_to_end(&mut self, stream: Stream, bytes: &[u8]) {
        self.end.push_back((stream, bytes.to_vec()));
        self.end_bytes += bytes.len();
        while self.end_bytes > END_BYTES_MAX
            && let Some((_, oldest)) = self.end.pop_front()
        {
            self.end_bytes -= oldest.len();
            self.left_out_bytes += oldest.len() as u64;
        }
    }

    /// Writes everything to where it belongs, as far as it is taken: one of the two may take no more, and the other all.
    pub fn show(mut self, stdout: &mut impl Write, stderr: &mut impl Write) {
        let (mut stdout, mut stderr) = (Some(stdout), Some(stderr));
        let mut show = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => write_or_close(&mut stdout, bytes),
            Stream::Stderr => write_or_close(&mut stderr, bytes),
        };
        show_pieces(&mut self.beginning.as_slice(), &mut show);
        if let Some(file) = &mut self.file
            && file.rewind().is_ok()
        {
            show_pieces(&mut io::BufReader::new(file.take(self.file_bytes)), &mut show);
        }
        if self.left_out_bytes > 0 {
            self.start_end_at_a_line();
            let note = format!("\njobmon: {} bytes of output are left out here\n", self.left_out_bytes);
            show(Stream::Stderr, note.as_bytes());
        }
        self.end.iter().for_each(|(stream, bytes)| show(*stream, bytes));
    }

    /// The end begins where something was cut, in the middle of a line or of a character.
    fn start_end_at_a_line(&mut self) {
        if let Some((_, first)) = self.end.front_mut() {
            let cut = first.iter().position(|b| *b == b'\n').map_or(0, |end| end + 1);
            self.left_out_bytes += cut as u64;
            first.drain(..cut);
        }
    }
}

/// Writes to an output that has taken everything up to now.
fn write_or_close(output: &mut Option<&mut impl Write>, bytes: &[u8]) {
    if output.as_mut().is_some_and(|output| output.write_all(bytes).is_err()) {
        *output = None;
    }
}

fn show_pieces(pieces: &mut impl Read, mut show: impl FnMut(Stream, &[u8])) {
    let mut header = [0; HEADER_BYTES];
    let mut piece = Vec::new();
    while pieces.read_exact(&mut header).is_ok() {
        let stream = if header[0] == 0 { Stream::Stdout } else { Stream::Stderr };
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
        piece.clear();
        if pieces.take(u64::from(length)).read_to_end(&mut piece).is_err() {
            return;
        }
        show(stream, &piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kept: Kept) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        kept.show(&mut out, &mut err);
        (out, err)
    }

    #[test]
    fn streams_are_kept_apart_in_memory_and_in_the_file() {
        for rounds in [10, 40_000] {
            let mut kept = Kept::default();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                let line = format!("line {round}\n");
                let (stream, all) =
                    if round % 3 == 0 { (Stream::Stderr, &mut err) } else { (Stream::Stdout, &mut out) };
                kept.add(stream, line.as_bytes());
                all.extend_from_slice(line.as_bytes());
            }
            assert!(kept.file.is_some() == (rounds > 10) && kept.beginning.len() <= MEMORY_BYTES_MAX);
            assert_eq!(shown(kept), (out, err));
        }
    }

    #[test]
    fn of_too_much_the_beginning_and_the_end_are_kept() {
        let mut kept = Kept::default();
        let line = |n: u32| format!("line {n:>12000}\n");
        for n in 0..6000 {
            kept.add(Stream::Stdout, line(n).as_bytes());
        }
        assert!(kept.end_bytes <= END_BYTES_MAX && kept.file_bytes <= FILE_BYTES_MAX);
        let (out, err) = shown(kept);
        assert!(out.starts_with(line(0).as_bytes()) && out.ends_with(line(5999).as_bytes()));
        let note = String::from_utf8_lossy(&err).into_owned();
        let left_out: usize = note.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
        assert_eq!(out.len() + left_out, 6000 * line(0).len(), "{note}");
    }
}
