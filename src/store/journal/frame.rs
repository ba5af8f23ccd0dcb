//! A frame: what every record is wrapped in on disk, so that it can be told whether it is whole.
//!
//! All numbers are little-endian: a mark of 4 bytes, the payload's length (4), a CRC32C of all that follows the checksum and
//! of the length (4), the record's number (8), the number of the last record that was on disk when this one was written
//! (8), the payload.

/// Where a frame begins.
const MARK: [u8; 4] = [0xF5, b'j', b'm', b'1'];
const HEAD_BYTES: usize = 28;
/// A payload that would be longer is none: no limit on pushes admits it.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// A record on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Its number; each has that of the one before and one more.
    pub(super) number: u64,
    /// Records up to this one were on disk before it was written.
    pub(super) synced: u64,
    /// What is recorded.
    pub(super) payload: &'a [u8],
}

fn checksum(length: [u8; 4], rest: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&length), rest).to_le_bytes()
}

/// Appends a frame.
pub(super) fn write(out: &mut Vec<u8>, frame: Frame<'_>) {
    let length = u32::try_from(frame.payload.len()).expect("pushes are limited to far less than 1 GiB");
    let length = length.to_le_bytes();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&length);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&frame.number.to_le_bytes());
    out.extend_from_slice(&frame.synced.to_le_bytes());
    out.extend_from_slice(frame.payload);
    let checksum = checksum(length, &out[at + 4..]);
    out[at..at + 4].copy_from_slice(&checksum);
}

/// Reads the frame that bytes begin with, and what follows it; nothing where there is no whole and undamaged one.
pub(super) fn read(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (mark, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<4>()?;
    let payload_bytes = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if *mark != MARK || payload_bytes > PAYLOAD_BYTES_MAX {
        return None;
    }
    let (checked, rest) = rest.split_at_checked(HEAD_BYTES - 12 + payload_bytes)?;
    if checksum(*length, checked) != *expected {
        return None;
    }
    let (number, checked) = checked.split_first_chunk::<8>()?;
    let (synced, payload) = checked.split_first_chunk::<8>()?;
    let frame = Frame { number: u64::from_le_bytes(*number), synced: u64::from_le_bytes(*synced), payload };
    Some((frame, rest))
}

/// The whole frames behind the beginning of some bytes that may stand behind a record before `next`, and where they are.
/// Payloads are a stranger's: what looks like a frame in one of them is not believed when it claims what cannot be.
pub(super) fn find(bytes: &[u8], next: u64) -> impl Iterator<Item = (usize, Frame<'_>)> {
    let room = (bytes.len() / HEAD_BYTES) as u64;
    let possible = next..=next.saturating_add(room);
    let marks = memchr::memmem::find_iter(bytes, &MARK).filter(|at| *at > 0);
    marks
        .filter_map(|at| Some((at, read(&bytes[at..])?.0)))
        .filter(move |(_, frame)| possible.contains(&frame.number) && frame.synced < frame.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, payload) in [(1, &b"one"[..]), (2, b""), (3, &MARK)] {
            write(&mut bytes, Frame { number, synced: number - 1, payload });
        }
        bytes
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let bytes = frames();
        let (first, rest) = read(&bytes).expect("whole");
        assert_eq!(first, Frame { number: 1, synced: 0, payload: b"one" });
        let (_, rest) = read(rest).expect("whole");
        let (third, rest) = read(rest).expect("whole");
        assert_eq!((third.number, third.payload, rest), (3, &MARK[..], &b""[..]));
    }

    #[test]
    fn no_changed_byte_goes_unnoticed() {
        let bytes = frames();
        let first_bytes = HEAD_BYTES + 3;
        for at in 0..first_bytes {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(read(&damaged), None, "byte {at}, bit {bit}");
                let next = find(&damaged, 1).next();
                assert_eq!(next.map(|(at, frame)| (at, frame.number)), Some((first_bytes, 2)));
            }
            assert_eq!(read(&bytes[..at]), None);
        }
    }
}
