//! The file for node exporter's textfile collector.
//!
//! A file is written under a temporary name in the same directory, one that does not end in `.prom`, and renamed, so that a
//! scrape sees the old or the new one, and a full disk leaves the old one alone.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{About, Report, body};
use crate::exposition::{Labels, MetricFamily, Validation, check, series, text};
use crate::grouping::GroupingKey;

/// Node exporter runs as another user, whatever the umask says.
const MODE: u32 = 0o644;
/// What stands in the file's name as it is.
const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
/// Metrics of a run end with the next success, but for when something else last happened.
const LAST: [&str; 3] = [
    "jobmon_last_failure_timestamp_seconds",
    "jobmon_last_run_lost_timestamp_seconds",
    "jobmon_last_skip_timestamp_seconds",
];

/// A directory that node exporter reads, and the group whose file is written there.
#[derive(Debug, Clone)]
pub(super) struct Textfile {
    dir: PathBuf,
    key: GroupingKey,
}

impl Textfile {
    pub(super) fn new(dir: PathBuf, key: GroupingKey) -> Self {
        Self { dir, key }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(format!("jobmon_{}.prom", utf8_percent_encode(self.key.job(), FILE_NAME)))
    }

    /// Replaces the file. Until a run succeeds, it keeps what earlier runs wrote under names that this report does not hold,
    /// as a gateway does with a POST.
    ///
    /// # Errors
    /// What the file system said; the old file is as it was then.
    pub(super) fn write(&self, report: &Report) -> io::Result<()> {
        let path = self.path();
        let mut families = report.families.clone();
        for family in &mut families {
            complete(family, self.key.labels());
        }
        let old = kept(&path, &families, report.about);
        families.extend(old);
        // A name of an old run may collide with one of this run, which would cost the whole file; the new one stays.
        let mut families = check::keep_exposable(families).families;
        families.sort_by(|a, b| a.name.cmp(&b.name));
        let mut file = tempfile::Builder::new()
            .prefix(".jobmon-")
            .suffix(".tmp")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(&self.dir)?;
        // The umask has taken from the mode of a new file.
        file.as_file().set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(&body(&families))?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    }
}

/// Puts the grouping labels on the metrics. Node exporter needs no `instance` made up for it.
fn complete(family: &mut MetricFamily, grouping: &Labels) {
    series::strip(family, grouping);
    for metric in &mut family.metrics {
        metric.labels = Labels::from_pairs(grouping.iter().chain(metric.labels.iter())).sorted();
    }
}

/// The families of the old file that go on. A file that cannot be read keeps nothing.
fn kept(path: &Path, new: &[MetricFamily], about: About) -> Vec<MetricFamily> {
    let old = fs::read(path).unwrap_or_default();
    let mut old = text::parse(&old, Validation::Legacy).unwrap_or_default();
    let names: HashSet<&str> = new.iter().map(|family| family.name.as_str()).collect();
    old.retain(|family| {
        let goes_on = about != About::Success || LAST.contains(&family.name.as_str());
        goes_on && !names.contains(family.name.as_str())
    });
    old
}

#[cfg(test)]
mod tests {
    use super::super::Promise;
    use super::*;

    fn report(about: About, body: &str) -> Report {
        let families = text::parse(body.as_bytes(), Validation::Legacy).expect("a good text");
        Report { families, without_command: None, about, promise: Promise::default(), at_micros: 0 }
    }

    fn samples(file: &Textfile) -> Vec<String> {
        let text = fs::read_to_string(file.path()).expect("the file is there");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn earlier_runs_are_kept_until_one_succeeds() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = Textfile::new(dir.path().to_owned(), GroupingKey::new("a/b", [("x", "1")]));
        assert!(file.path().ends_with("jobmon_a%2Fb.prom"));
        let write = |about, body| file.write(&report(about, body)).expect("written");
        write(About::Failure, "jobmon_last_failure_timestamp_seconds 1\nold 1\n");
        write(About::Success, "jobmon_last_success_timestamp_seconds 2\nitems 5\n");
        let success = [
            r#"items{job="a/b",x="1"} 5"#,
            r#"jobmon_last_failure_timestamp_seconds{job="a/b",x="1"} 1"#,
            r#"jobmon_last_success_timestamp_seconds{job="a/b",x="1"} 2"#,
        ];
        assert_eq!(samples(&file), success);
        write(About::Progress, "jobmon_running 1\n");
        assert_eq!(samples(&file).len(), 4);
        write(About::Failure, "jobmon_running 0\njobmon_last_failure_timestamp_seconds 3\n");
        let failure: Vec<_> = samples(&file);
        assert!(
            failure[0].ends_with(" 5") && failure[1].ends_with(" 3") && failure[2].ends_with(" 2"),
            "{failure:?}"
        );
        let mode = fs::metadata(file.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = Textfile::new(dir.path().join("missing"), GroupingKey::new("a", [("", ""); 0]));
        assert_eq!(
            file.write(&report(About::Success, "a 1\n")).expect_err("no directory").kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn an_old_family_never_clashes_with_a_new_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = Textfile::new(dir.path().to_owned(), GroupingKey::new("a", [("", ""); 0]));
        file.write(&report(About::Failure, "h_count 1\n")).expect("written");
        file.write(&report(About::Failure, "# TYPE h histogram\nh_count 2\n")).expect("written");
        assert_eq!(samples(&file).last().expect("samples"), r#"h_count{job="a"} 2"#);
        assert_eq!(samples(&file).len(), 3);
    }
}
