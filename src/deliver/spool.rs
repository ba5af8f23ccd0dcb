//! Pushes that could not be delivered, on disk until they can.
//!
//! There is one entry for each group and server: what a later run says replaces what an earlier one said, family by family,
//! as pushing both one after the other would. An entry is written under another name, synced and renamed, so it is there as a
//! whole or not at all; a file that is damaged all the same is set aside. The directory may be shared: each user has entries
//! and locks of his own, and only his are touched.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use nix::unistd::{AccessFlags, access, geteuid};
use serde::{Deserialize, Serialize};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::{Access, Promise, Target, body};
use crate::exposition::{Validation, check, text};
use crate::grouping::{GroupingKey, JOB_LABEL};

/// The machine's spool, if it can be written to.
const SYSTEM_DIR: &str = "/var/spool/jobmon";
/// The user's, below `$XDG_STATE_HOME` or `$HOME/.local/state` (XDG Base Directory Specification).
const USER_DIR: &str = "jobmon/spool";
/// Entries of a user; the oldest go first.
const ENTRIES_MAX: usize = 10_000;
/// Bytes of all entries of a user.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Nobody wants to know any more.
const AGE_MAX: Duration = Duration::from_hours(14 * 24);
/// The largest entry.
const ENTRY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Locks, so that many runs can write at once.
const STRIPES: u64 = 16;
/// How long somebody else's change is waited for.
const LOCK_MAX: Duration = Duration::from_secs(5);
/// What a file begins with; a checksum of the rest follows.
const MAGIC: &str = "jobmon spool 1";
const ENTRY_SUFFIX: &str = ".push";
/// Runs that overlap say what they have to say within this time, in microseconds; what seems to be later is of a wrong clock.
const OVERLAP_MAX_MICROS: i64 = 3600 * 1_000_000;
const DAMAGED_SUFFIX: &str = ".damaged";
const LOCK_SUFFIX: &str = ".lock";
/// Whoever writes an entry has done so after this time, or has died.
const HALF_WRITTEN_MAX: Duration = Duration::from_hours(1);

/// Where the spool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolPlace {
    /// Where spools are.
    Default,
    /// There.
    Dir(PathBuf),
    /// Nothing is kept.
    Nowhere,
}

impl SpoolPlace {
    /// The directory, which may not exist yet.
    pub fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::Nowhere => None,
            Self::Dir(dir) => Some(dir.clone()),
            Self::Default => {
                let system = PathBuf::from(SYSTEM_DIR);
                let can_write = |path: &Path| access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
                let can_make = || !system.exists() && system.parent().is_some_and(can_write);
                if can_write(&system) || can_make() {
                    return Some(system);
                }
                let absolute =
                    |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
                let state = absolute("XDG_STATE_HOME")
                    .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
                state.map(|state| state.join(USER_DIR))
            }
        }
    }
}

/// A push that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The server.
    pub target: Target,
    /// How to get in there.
    pub access: Access,
    /// The group.
    pub key: GroupingKey,
    /// What is said about it, in the text format.
    pub body: Bytes,
    /// When it was said, in microseconds since 1970.
    pub at_micros: i64,
    /// What is promised with it.
    pub promise: Promise,
}

/// What stands before the body in a file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    url: String,
    access: Access,
    grouping: BTreeMap<String, String>,
    at_micros: i64,
    /// Earlier versions promised nothing.
    #[serde(default)]
    promise: Promise,
}

/// A user's part of a spool directory.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// The spool in a directory, which is made when there is something to keep.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps a push, together with what was kept of its group before. It is on disk when this returns.
    ///
    /// # Errors
    /// What the file system said; what was there is there still.
    pub fn put(&self, entry: &Entry) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let name = entry.name();
        let _lock = self.lock(&name)?;
        let path = self.dir.join(&name);
        let merged = match Self::read(&path)? {
            Some(old) => old.merged_with(entry),
            None => entry.clone(),
        };
        let mut file = tempfile::Builder::new().prefix(&format!(".{name}-")).tempfile_in(&self.dir)?;
        file.write_all(&merged.to_bytes()?)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        File::open(&self.dir)?.sync_all()?;
        self.keep_bounds();
        Ok(())
    }

    /// What waits for a group and server.
    ///
    /// # Errors
    /// What the file system said.
    pub fn get(&self, target: &Target, key: &GroupingKey) -> io::Result<Option<Entry>> {
        Self::read(&self.dir.join(name(target, key)))
    }

    /// Takes out an entry that was found here and has been delivered, unless it is another one by now.
    ///
    /// # Errors
    /// What the file system said.
    pub fn take_out(&self, delivered: &Entry) -> io::Result<()> {
        self.remove_if(delivered, |entry| entry == delivered)
    }

    /// Takes back what was put here and has been delivered meanwhile, with what waited before it; not if there is a word of any
    /// other run.
    ///
    /// # Errors
    /// What the file system said.
    pub fn take_back(&self, put: &Entry, waiting: Option<&Entry>) -> io::Result<()> {
        let told: HashSet<&str> = [Some(put), waiting].into_iter().flatten().flat_map(Entry::runs).collect();
        self.remove_if(put, |entry| entry.runs().all(|run| told.contains(run)))
    }

    fn remove_if(&self, delivered: &Entry, is_delivered: impl FnOnce(&Entry) -> bool) -> io::Result<()> {
        let name = delivered.name();
        let path = self.dir.join(&name);
        if !path.exists() {
            return Ok(());
        }
        let _lock = self.lock(&name)?;
        if Self::read(&path)?.as_ref().is_some_and(is_delivered) { fs::remove_file(path) } else { Ok(()) }
    }

    /// The names of all entries of this user, those first that have waited longest.
    ///
    /// # Errors
    /// What the file system said; a directory that is not there has none.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let files = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let prefix = own_prefix();
        let mut names: Vec<(Option<SystemTime>, String)> = files
            .flatten()
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                let is_entry = name.starts_with(&prefix) && name.ends_with(ENTRY_SUFFIX);
                is_entry.then(|| (file.metadata().and_then(|metadata| metadata.modified()).ok(), name))
            })
            .collect();
        names.sort();
        Ok(names.into_iter().map(|(_, name)| name).collect())
    }

    /// The entry of a name; `None` if it has gone, or cannot be read, which is told.
    pub fn entry(&self, name: &str) -> Option<Entry> {
        Self::read(&self.dir.join(name)).unwrap_or_else(|error| {
            warn!(file = name, %error, "what is in the spool cannot be read");
            None
        })
    }

    /// Throws everything away; returns how many there were.
    ///
    /// # Errors
    /// What the file system said.
    pub fn clear(&self) -> io::Result<usize> {
        let mut dropped = 0;
        for name in self.names()? {
            match fs::remove_file(self.dir.join(name)) {
                Ok(()) => dropped += 1,
                // Somebody else was quicker, or it is no entry at all.
                Err(error)
                    if [io::ErrorKind::NotFound, io::ErrorKind::IsADirectory].contains(&error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(dropped)
    }

    /// The right to deliver entries of others, which one process has at a time. `None` if another one has it.
    ///
    /// # Errors
    /// What the file system said.
    pub fn claim(&self) -> io::Result<Option<File>> {
        let file = self.open_lock("flush")?;
        Ok(file.try_lock().is_ok().then_some(file))
    }

    /// Waits for the right to change an entry.
    fn lock(&self, name: &str) -> io::Result<File> {
        let file = self.open_lock(&format!("{:x}", xxh3_64(name.as_bytes()) % STRIPES))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < LOCK_MAX => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn open_lock(&self, name: &str) -> io::Result<File> {
        let path = self.dir.join(format!(".{}{name}{LOCK_SUFFIX}", own_prefix()));
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        File::options().read(true).write(true).create(true).mode(0o600).custom_flags(flags).open(path)
    }

    /// Reads an entry. `None` if there is none, or a damaged one, which is set aside, or one of somebody else.
    fn read(path: &Path) -> io::Result<Option<Entry>> {
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let metadata = file.metadata()?;
        if metadata.uid() != geteuid().as_raw() || !metadata.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(ENTRY_BYTES_MAX).read_to_end(&mut bytes)?;
        let entry = Entry::from_bytes(&bytes).filter(|entry| path.ends_with(entry.name()));
        if entry.is_none() {
            let mut aside = path.as_os_str().to_owned();
            aside.push(DAMAGED_SUFFIX);
            warn!(file = %path.display(), "a damaged push in the spool is set aside");
            fs::rename(path, aside)?;
        }
        Ok(entry)
    }

    /// Lets the oldest go where there is too much; those set aside count too, and what a killed process has left half
    /// written. It is no failure of a push if that fails.
    fn keep_bounds(&self) {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let (prefix, temporary) = (own_prefix(), format!(".{}", own_prefix()));
        let mut own: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for file in files {
            let (name, path) = (file.file_name().to_string_lossy().into_owned(), file.path());
            let Ok(metadata) = file.metadata() else { continue };
            let Ok(modified) = metadata.modified() else { continue };
            if name.starts_with(&prefix)
                && [ENTRY_SUFFIX, DAMAGED_SUFFIX].iter().any(|end| name.ends_with(end))
            {
                own.push((modified, metadata.len(), path));
            } else if name.starts_with(&temporary)
                && !name.ends_with(LOCK_SUFFIX)
                && modified.elapsed().is_ok_and(|age| age > HALF_WRITTEN_MAX)
            {
                let _ = fs::remove_file(path);
            }
        }
        own.sort();
        let mut count = own.len();
        let mut bytes: u64 = own.iter().map(|(_, len, _)| len).sum();
        for (modified, len, path) in own {
            let is_old = modified.elapsed().is_ok_and(|age| age > AGE_MAX);
            if !is_old && count <= ENTRIES_MAX && bytes <= BYTES_MAX {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                warn!(file = %path.display(), "the oldest push is dropped from the spool, which is full");
            }
            count -= 1;
            bytes -= len;
        }
    }
}

/// What the names of this user's files begin with.
fn own_prefix() -> String {
    format!("{}-", geteuid())
}

fn name(target: &Target, key: &GroupingKey) -> String {
    let hash = xxh3_64(format!("{}\0{}", target.to_url(), key.to_path()).as_bytes());
    format!("{}{hash:016x}{ENTRY_SUFFIX}", own_prefix())
}

impl Entry {
    fn name(&self) -> String {
        name(&self.target, &self.key)
    }

    /// The ids of the runs that it tells of.
    fn runs(&self) -> impl Iterator<Item = &str> {
        self.promise.earlier.iter().chain(&self.promise.run).map(|run| run.id.as_str())
    }

    /// Whether this was said after the other, which is said now: by the clock, unless that was set back meanwhile.
    pub(super) fn is_later_than(&self, now: &Self) -> bool {
        let ahead = self.at_micros - now.at_micros;
        ahead > 0 && ahead < OVERLAP_MAX_MICROS
    }

    /// What this and another, said now, say together; the later one where they disagree, and when the next push is due.
    #[must_use]
    pub fn merged_with(&self, other: &Self) -> Self {
        let (older, newer) = if self.is_later_than(other) { (other, self) } else { (self, other) };
        let parse = |entry: &Self| text::parse(&entry.body, Validation::Legacy).unwrap_or_default();
        let mut families = parse(newer);
        let old = parse(older);
        let names: Vec<String> = families.iter().map(|family| family.name.clone()).collect();
        families.extend(old.into_iter().filter(|family| !names.contains(&family.name)));
        // A name of the old may collide with one of the new, which would cost the whole; the new one stays.
        let families = check::keep_exposable(families).families;
        let promise = newer.promise.merged_with(&older.promise);
        Self { body: body(&families), promise, ..newer.clone() }
    }

    /// The same without the command's own metrics.
    pub fn without_command(&self) -> Bytes {
        let mut families = text::parse(&self.body, Validation::Legacy).unwrap_or_default();
        families.retain(|family| family.name.starts_with("jobmon_"));
        body(&families)
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let labels = self.key.labels().iter();
        let header = Header {
            url: self.target.to_url(),
            access: self.access.clone(),
            grouping: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            at_micros: self.at_micros,
            promise: self.promise.clone(),
        };
        let mut rest = serde_json::to_vec(&header)?;
        rest.push(b'\n');
        rest.extend_from_slice(&self.body);
        let mut bytes = format!("{MAGIC} {:016x}\n", xxh3_64(&rest)).into_bytes();
        bytes.append(&mut rest);
        Ok(bytes)
    }

    /// `None` if it is damaged.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = split_line(bytes)?;
        let checksum = std::str::from_utf8(first).ok()?.strip_prefix(MAGIC)?.trim();
        if u64::from_str_radix(checksum, 16).ok()? != xxh3_64(rest) {
            return None;
        }
        let (header, body) = split_line(rest)?;
        let header: Header = serde_json::from_slice(header).ok()?;
        let job = header.grouping.get(JOB_LABEL)?.clone();
        Some(Self {
            target: Target::parse(&header.url).ok()?,
            access: header.access,
            key: GroupingKey::new(&job, header.grouping),
            body: Bytes::copy_from_slice(body),
            at_micros: header.at_micros,
            promise: header.promise,
        })
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::{Expect, RunRecord};
    use super::*;
    use crate::run::RunOutcome;

    fn entry(job: &str, at_micros: i64, text: &str) -> Entry {
        Entry {
            target: Target::parse("http://u:p@h:1/x").expect("a URL"),
            access: Access { password_file: Some("/p".into()), ..Access::default() },
            key: GroupingKey::new(job, [("a", "1")]),
            body: Bytes::copy_from_slice(text.as_bytes()),
            at_micros,
            promise: Promise::default(),
        }
    }

    fn run(id: &str, end_micros: i64) -> RunRecord {
        let (outcome, exit_code) = (RunOutcome::Failure, 3);
        RunRecord { id: id.to_owned(), end_micros, ended: None, duration_micros: 1, exit_code, outcome }
    }

    /// The end of a run, as it waits.
    fn last(id: &str, at_micros: i64, expect: Expect) -> Entry {
        let promise = Promise { expect, run: Some(run(id, at_micros)), ..Promise::default() };
        Entry { promise, ..entry("x", at_micros, "# TYPE a untyped\na 1\n") }
    }

    fn ids(promise: &Promise) -> (Option<&str>, Vec<&str>) {
        fn id(run: &RunRecord) -> &str {
            &run.id
        }
        (promise.run.as_ref().map(id), promise.earlier.iter().map(id).collect())
    }

    fn entries(spool: &Spool) -> Vec<Entry> {
        spool.names().expect("readable").iter().filter_map(|name| spool.entry(name)).collect()
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(dir.path().join("deep/spool"));
        (dir, spool)
    }

    #[test]
    fn what_is_put_is_there_until_it_is_removed() {
        let (_dir, spool) = spool();
        let one = entry("x", 1, "# TYPE a untyped\na 1\n");
        assert_eq!(entries(&spool), []);
        assert_eq!(spool.get(&one.target, &one.key).expect("readable"), None);
        spool.put(&one).expect("written");
        assert_eq!(spool.get(&one.target, &one.key).expect("readable"), Some(one.clone()));
        assert_eq!(entries(&spool), std::slice::from_ref(&one));
        spool.take_out(&one).expect("taken out");
        spool.take_out(&one).expect("nothing to take out");
        assert_eq!(spool.names().expect("readable"), [""; 0]);
    }

    #[test]
    fn the_later_one_wins_family_by_family() {
        let (_dir, spool) = spool();
        spool.put(&entry("x", 2, "# TYPE a untyped\na 2\n# TYPE c untyped\nc 2\n")).expect("written");
        // It comes later, but was said earlier.
        spool.put(&entry("x", 1, "# TYPE a untyped\na 1\n# TYPE b untyped\nb 1\n")).expect("written");
        let entries = entries(&spool);
        let text = String::from_utf8_lossy(&entries[0].body).into_owned();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!((samples, entries.len(), entries[0].at_micros), (vec!["a 2", "c 2", "b 1"], 1, 2));
    }

    /// However long it had waited.
    #[test]
    fn what_came_while_another_was_delivered_stays() {
        let (_dir, spool) = spool();
        let waits = || spool.names().expect("readable").len();
        for waited_micros in [1, OVERLAP_MAX_MICROS - 1, 24 * OVERLAP_MAX_MICROS] {
            spool.put(&last("a", 5, Expect::Keep)).expect("written");
            let key = GroupingKey::new("x", [("a", "1")]);
            let found = spool.get(&entry("x", 0, "").target, &key).expect("readable").expect("it is there");
            let own = last("b", 5 + waited_micros, Expect::Keep);
            spool.put(&own).expect("written");
            spool.take_out(&found).expect("nothing happens");
            assert_eq!(waits(), 1, "{waited_micros}");
            // Nor does what nobody has told of go with what was delivered, whichever came first.
            spool.take_back(&own, None).expect("nothing happens");
            assert_eq!(waits(), 1, "{waited_micros}");
            spool.put(&last("c", 4, Expect::Keep)).expect("written");
            spool.take_back(&own, Some(&found)).expect("nothing happens");
            assert_eq!(waits(), 1, "{waited_micros}");
            let all = found.merged_with(&last("c", 4, Expect::Keep));
            spool.take_back(&own, Some(&all)).expect("taken back");
            assert_eq!(waits(), 0, "{waited_micros}");
        }
    }

    #[test]
    fn damaged_files_are_set_aside_byte_by_byte() {
        let (_dir, spool) = spool();
        let good = entry("x", 1, "# TYPE a untyped\na 1\n");
        let bytes = good.to_bytes().expect("serializable");
        assert_eq!(Entry::from_bytes(&bytes), Some(good.clone()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            let read = Entry::from_bytes(&damaged);
            // The case of a hexadecimal digit says nothing.
            assert!(read.is_none() || read == Some(good.clone()), "{at}");
            assert!(Entry::from_bytes(&bytes[..at]).is_none(), "{at}");
        }
        spool.put(&good).expect("written");
        spool.put(&entry("y", 2, "# TYPE a untyped\na 2\n")).expect("written");
        fs::write(spool.dir().join(good.name()), &bytes[..bytes.len() - 1]).expect("writable");
        assert_eq!(entries(&spool).len(), 1);
        let mut aside = good.name();
        aside.push_str(DAMAGED_SUFFIX);
        assert!(spool.dir().join(aside).exists());
        // Its place is free again.
        spool.put(&good).expect("written");
        assert_eq!(entries(&spool).len(), 2);
        assert_eq!(spool.clear().expect("removed"), 2);
    }

    #[test]
    fn a_run_that_never_arrived_goes_with_a_later_one() {
        let (_dir, spool) = spool();
        let put = |entry: &Entry| spool.put(entry).expect("written");
        let waits = || entries(&spool).remove(0).promise;
        put(&last("a", 1, Expect::At(7)));
        put(&Entry { promise: Promise::default(), ..entry("x", 2, "") });
        assert_eq!((ids(&waits()), waits().expect), ((None, vec!["a"]), Expect::At(7)));
        let ttl = Some(Duration::from_secs(5));
        let newest = last("c", 4, Expect::Withdrawn);
        put(&Entry { promise: Promise { ttl, ..newest.promise.clone() }, ..newest.clone() });
        // It comes later, but was said earlier.
        put(&last("b", 3, Expect::At(8)));
        // One of them comes again.
        put(&last("b", 3, Expect::At(8)));
        assert_eq!(ids(&waits()), (Some("c"), vec!["a", "b"]));
        assert_eq!((waits().expect, waits().ttl), (Expect::Withdrawn, ttl));
        put(&newest);
        assert_eq!(ids(&waits()), (Some("c"), vec!["a", "b"]), "it is not earlier than itself");
        assert_eq!(waits().earlier[1], run("b", 3));
        for n in 5..100 {
            put(&last(&format!("{n}"), n, Expect::At(9)));
        }
        let promise = waits();
        let (run, earlier) = ids(&promise);
        assert_eq!((run, earlier.len(), earlier[0], earlier[59]), (Some("99"), 60, "39", "98"));
    }

    /// A file of a version that promised nothing, and knew no runs.
    #[test]
    fn older_files_are_read() {
        let old = br#"jobmon spool 1 f8df57c6c07294bb
{"url":"http://h:1/","access":{"username":null,"password_file":null,"bearer_token_file":null,"headers":[],"ca_file":null,"cert_file":null,"key_file":null,"proxy":"System"},"grouping":{"job":"x"},"at_micros":5}
# TYPE a untyped
a 1
"#;
        let entry = Entry::from_bytes(old).expect("a good file");
        assert_eq!((entry.at_micros, &entry.body[..]), (5, &b"# TYPE a untyped\na 1\n"[..]));
        assert_eq!(entry.promise, Promise::default());
        let now = last("b", 6, Expect::At(8));
        assert_eq!(entry.merged_with(&Entry { key: entry.key.clone(), ..now.clone() }).promise, now.promise);
    }

    #[test]
    fn what_is_promised_waits_too() {
        let promise = Promise {
            expect: Expect::Within(Duration::from_millis(1500)),
            ttl: Some(Duration::ZERO),
            run: Some(run("b", 2)),
            ongoing: None,
            earlier: vec![run("a", 1)],
        };
        for expect in [promise.expect, Expect::At(-1), Expect::Keep, Expect::Withdrawn] {
            let entry = Entry { promise: Promise { expect, ..promise.clone() }, ..entry("x", 2, "") };
            assert_eq!(Entry::from_bytes(&entry.to_bytes().expect("serializable")), Some(entry));
        }
    }

    #[test]
    fn what_is_too_old_goes() {
        let (_dir, spool) = spool();
        let old = entry("old", 1, "");
        spool.put(&old).expect("written");
        let file = File::options().write(true).open(spool.dir().join(old.name())).expect("there");
        file.set_modified(SystemTime::now() - AGE_MAX - Duration::from_hours(1)).expect("settable");
        spool.put(&entry("new", 2, "")).expect("written");
        assert_eq!(spool.names().expect("readable"), [entry("new", 2, "").name()]);
    }

    #[test]
    fn one_at_a_time_delivers_for_others() {
        let (_dir, spool) = spool();
        spool.put(&entry("x", 1, "")).expect("written");
        let first = spool.claim().expect("a lock");
        assert!(first.is_some() && spool.claim().expect("a lock").is_none());
        drop(first);
        assert!(spool.claim().expect("a lock").is_some());
    }
}
