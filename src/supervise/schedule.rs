//! When the next run is due.

use std::str::FromStr as _;

use chrono::{
    DateTime, FixedOffset, Local, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone,
    Utc,
};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, errors::CronError};

use crate::config::Timetable;

/// A run that starts a little early, because the clock was set back by that much, is the run of the coming minute.
const EARLY_MAX: TimeDelta = TimeDelta::seconds(1);

/// A zone may be put to the other side of the date line.
const SKIPPED_MINUTES_MAX: i64 = 24 * 60;

/// Why nobody can tell when the next run is due.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The schedule is none.
    #[error(
        "--schedule {0:?} is passed over: {1}; write five fields as in a crontab, such as '17 3 * * mon-fri', or @daily"
    )]
    Cron(String, String),
    /// It is for when the machine starts.
    #[error("--schedule {0:?} is passed over: nobody knows when the machine starts again")]
    Reboot(String),
    /// It names its time zone, as some crontabs do.
    #[error("--schedule {0:?} is passed over: name the time zone with --timezone")]
    CronTz(String),
    /// The time zone is none.
    #[error("--timezone {0:?} is passed over, the next run is not told: write a name such as Europe/Berlin")]
    Timezone(String),
    /// The schedule names no time, such as 30 February.
    #[error("--schedule {0:?} is passed over: no such time comes")]
    Never(String),
}

/// When the run after one that started then is due; seen from now, if that comes later.
///
/// # Errors
/// What is wrong with the timetable.
pub fn next_run(
    timetable: &Timetable,
    start: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, ScheduleError> {
    if let Some(schedule) = &timetable.schedule {
        let schedule_in = Schedule { cron: parse(schedule)?, is_by_the_clock: is_by_the_clock(schedule) };
        let after = now.max(start + EARLY_MAX);
        let next = match &timetable.timezone {
            None => schedule_in.next(&after.with_timezone(&SystemZone)),
            Some(name) => {
                let zone = Tz::from_str(name).map_err(|_| ScheduleError::Timezone(name.clone()))?;
                schedule_in.next(&after.with_timezone(&zone))
            }
        };
        return next.map(Some).map_err(|_| ScheduleError::Never(schedule.clone()));
    }
    let every =
        timetable.every.and_then(|every| i64::try_from(every.as_micros()).ok()).filter(|every| *every > 0);
    // A run that takes longer leaves out those that were due meanwhile.
    let next = |every: i64| {
        let so_far = (now - start).num_microseconds().unwrap_or_default().max(0);
        start.checked_add_signed(TimeDelta::microseconds((so_far / every + 1).saturating_mul(every)))
    };
    Ok(every.and_then(next))
}

fn parse(schedule: &str) -> Result<Cron, ScheduleError> {
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    match fields[..] {
        ["@reboot"] => return Err(ScheduleError::Reboot(schedule.to_owned())),
        [first, ..] if first.starts_with("CRON_TZ=") || first.starts_with("TZ=") => {
            return Err(ScheduleError::CronTz(schedule.to_owned()));
        }
        _ => {}
    }
    // A day must be right in both ways if one of them begins with a star, such as */2; else in one of them (crontab(5)).
    let both = [2, 4].iter().any(|field| fields.get(*field).is_some_and(|field| field.starts_with('*')));
    let parser =
        CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).dom_and_dow(both).build();
    let schedule_or_alias = if schedule.trim() == "@midnight" { "@daily" } else { schedule.trim() };
    parser.parse(schedule_or_alias).map_err(|error| {
        let problem = match error {
            _ if fields.len() != 5 && !schedule.trim().starts_with('@') => {
                format!("it has {} fields", fields.len())
            }
            CronError::InvalidPattern(problem) | CronError::ComponentError(problem) => problem,
            other => other.to_string(),
        };
        ScheduleError::Cron(schedule.to_owned(), problem.trim_end_matches('.').to_lowercase())
    })
}

/// Whether what a clock on the wall shows counts, and not how much time has passed: neither minutes nor hours begin with a
/// star (cron(8) of Debian on daylight saving time).
fn is_by_the_clock(schedule: &str) -> bool {
    let mut fields = schedule.split_whitespace();
    fields.next().is_some_and(|minute| !minute.starts_with('*') && minute != "@hourly")
        && !fields.next().is_some_and(|hour| hour.starts_with('*'))
}

struct Schedule {
    cron: Cron,
    is_by_the_clock: bool,
}

impl Schedule {
    /// The first time after a moment.
    fn next<Z: TimeZone>(&self, after: &DateTime<Z>) -> Result<DateTime<Utc>, CronError>
    where
        DateTime<Z>: croner::CronDateTime,
    {
        if !self.is_by_the_clock {
            return self.cron.find_next_occurrence(after, false).map(|next| next.to_utc());
        }
        let mut shown = after.naive_local();
        loop {
            shown = self.cron.find_next_occurrence(&shown.and_utc(), false)?.naive_utc();
            let at = first_shown(&after.timezone(), shown).ok_or(CronError::TimeSearchLimitExceeded)?;
            // What the clock shows twice has been then, if that was before.
            if at > *after {
                return Ok(at);
            }
        }
    }
}

/// When a clock first shows a time; where it is put forward over that, when it is.
fn first_shown<Z: TimeZone>(zone: &Z, shown: NaiveDateTime) -> Option<DateTime<Utc>> {
    let later = (0..=SKIPPED_MINUTES_MAX).map(TimeDelta::minutes);
    let mut later = later.filter_map(|minutes| shown.checked_add_signed(minutes));
    later.find_map(|shown| zone.from_local_datetime(&shown).earliest()).map(|at| at.to_utc())
}

/// The system's time zone. When the clock goes back, [`Local`] names the later of two times first, and the moment at which
/// that is over as one of two, too; here it is as [`TimeZone`] promises.
#[derive(Debug, Clone, Copy)]
struct SystemZone;

impl TimeZone for SystemZone {
    type Offset = FixedOffset;

    fn from_offset(_: &FixedOffset) -> Self {
        Self
    }

    fn offset_from_local_date(&self, local: &NaiveDate) -> MappedLocalTime<FixedOffset> {
        self.offset_from_local_datetime(&local.and_time(NaiveTime::MIN))
    }

    fn offset_from_local_datetime(&self, local: &NaiveDateTime) -> MappedLocalTime<FixedOffset> {
        valid(local, Local.offset_from_local_datetime(local), |utc| Local.offset_from_utc_datetime(utc))
    }

    fn offset_from_utc_date(&self, utc: &NaiveDate) -> FixedOffset {
        self.offset_from_utc_datetime(&utc.and_time(NaiveTime::MIN))
    }

    fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> FixedOffset {
        Local.offset_from_utc_datetime(utc)
    }
}

/// Those of the offsets that a time may have which it has, the one of the earlier moment first.
fn valid(
    local: &NaiveDateTime,
    possible: MappedLocalTime<FixedOffset>,
    at: impl Fn(&NaiveDateTime) -> FixedOffset,
) -> MappedLocalTime<FixedOffset> {
    let is_valid =
        |offset: &FixedOffset| local.checked_sub_offset(*offset).is_some_and(|utc| at(&utc) == *offset);
    let first = possible.earliest().filter(is_valid);
    let second = possible.latest().filter(is_valid);
    match (first, second) {
        (Some(one), Some(other)) if one.local_minus_utc() > other.local_minus_utc() => {
            MappedLocalTime::Ambiguous(one, other)
        }
        (Some(one), Some(other)) if one != other => MappedLocalTime::Ambiguous(other, one),
        (one, other) => one.or(other).map_or(MappedLocalTime::None, MappedLocalTime::Single),
    }
}

#[cfg(test)]
mod tests {
    use chrono::Offset as _;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    /// The next time of a schedule after a moment, in UTC.
    fn after(schedule: &str, timezone: &str, moment: &str) -> Result<String, String> {
        let timetable = Timetable {
            schedule: Some(schedule.to_owned()),
            timezone: Some(timezone.to_owned()),
            ..Timetable::default()
        };
        let next = next_run(&timetable, time(moment) - EARLY_MAX, time(moment));
        next.map(|next| next.expect("there is a schedule").format("%FT%TZ").to_string())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn schedules_are_those_of_a_crontab() {
        for (schedule, moment, next) in [
            ("17 3 * * *", "2026-11-23T03:17:00Z", "2026-11-24T03:17:00Z"),
            ("*/15 * * * *", "2026-11-23T03:17:00Z", "2026-11-23T03:30:00Z"),
            ("0 9-17/4 * * mon-fri", "2026-11-27T17:00:00Z", "2026-11-30T09:00:00Z"),
            ("0 0 1 jan,JUL *", "2026-11-23T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("30 4 * * 7", "2026-11-23T00:00:00Z", "2026-11-29T04:30:00Z"),
            ("30 4 * * sun", "2026-11-23T00:00:00Z", "2026-11-29T04:30:00Z"),
            // Either of the two, as cron has it; both, if one begins with a star.
            ("0 0 13 * fri", "2026-11-23T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("0 0 */2 * mon", "2026-11-23T00:00:00Z", "2026-12-07T00:00:00Z"),
            ("@midnight", "2026-11-23T00:10:00Z", "2026-11-24T00:00:00Z"),
            ("0 0 29 2 *", "2026-11-23T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@hourly", "2026-11-23T00:10:00Z", "2026-11-23T01:00:00Z"),
            ("@daily", "2026-11-23T00:10:00Z", "2026-11-24T00:00:00Z"),
            ("@weekly", "2026-11-23T00:10:00Z", "2026-11-29T00:00:00Z"),
            (" 0 0 * * * ", "2026-11-23T00:10:00Z", "2026-11-24T00:00:00Z"),
        ] {
            assert_eq!(after(schedule, "UTC", moment).as_deref(), Ok(next), "{schedule}");
        }
    }

    #[test]
    fn daylight_saving_time_neither_skips_nor_repeats_a_run() {
        let berlin = |schedule, moment| after(schedule, "Europe/Berlin", moment).expect("a time");
        // On 28 March 2027 two o'clock is three o'clock: what was due in between is due then.
        assert_eq!(berlin("30 2 * * *", "2027-03-27T12:00:00Z"), "2027-03-28T01:00:00Z");
        assert_eq!(berlin("30 2 * * *", "2027-03-28T01:00:00Z"), "2027-03-29T00:30:00Z");
        // On 25 October 2026 three o'clock is two o'clock again: once is enough.
        assert_eq!(berlin("30 2 * * *", "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(berlin("30 2 * * *", "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
        // So it is with lists and ranges.
        assert_eq!(berlin("0,30 2 * * *", "2027-03-28T00:59:00Z"), "2027-03-28T01:00:00Z");
        assert_eq!(berlin("0,30 2 * * *", "2027-03-28T01:00:00Z"), "2027-03-29T00:00:00Z");
        assert_eq!(berlin("0,30 2 * * *", "2026-10-25T00:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(berlin("0,30 2 * * *", "2026-10-25T00:30:00Z"), "2026-10-26T01:00:00Z");
        assert_eq!(berlin("0 2,3 * * *", "2026-10-25T00:00:00Z"), "2026-10-25T02:00:00Z");
        assert_eq!(berlin("0 1-5 * * *", "2026-10-25T00:00:00Z"), "2026-10-25T02:00:00Z");
        assert_eq!(berlin("45 2 * * *", "2026-10-25T01:15:00Z"), "2026-10-26T01:45:00Z");
        // What runs all the time does so then, too.
        assert_eq!(berlin("0 * * * *", "2026-10-25T00:00:00Z"), "2026-10-25T01:00:00Z");
        assert_eq!(berlin("@hourly", "2026-10-25T00:00:00Z"), "2026-10-25T01:00:00Z");
        assert_eq!(berlin("0 */2 * * *", "2026-10-25T00:00:00Z"), "2026-10-25T01:00:00Z");
        assert_eq!(berlin("*/30 * * * *", "2026-10-25T00:30:00Z"), "2026-10-25T01:00:00Z");
        assert_eq!(berlin("*/30 * * * *", "2027-03-28T00:45:00Z"), "2027-03-28T01:00:00Z");
    }

    #[test]
    fn times_that_come_twice_are_in_order() {
        let berlin = chrono_tz::Europe::Berlin;
        let [summer, winter] = [7200, 3600].map(|seconds| FixedOffset::east_opt(seconds).expect("an offset"));
        let both = MappedLocalTime::Ambiguous(winter, summer);
        for (local, possible, expected) in [
            ("2026-10-25T01:59:59", MappedLocalTime::Single(summer), MappedLocalTime::Single(summer)),
            ("2026-10-25T02:00:00", both, MappedLocalTime::Ambiguous(summer, winter)),
            ("2026-10-25T02:59:59", both, MappedLocalTime::Ambiguous(summer, winter)),
            ("2026-10-25T03:00:00", both, MappedLocalTime::Single(winter)),
            ("2027-03-28T02:00:00", MappedLocalTime::Single(winter), MappedLocalTime::None),
            ("2027-03-28T02:30:00", MappedLocalTime::None, MappedLocalTime::None),
            ("2027-03-28T03:00:00", MappedLocalTime::Single(summer), MappedLocalTime::Single(summer)),
        ] {
            let local: NaiveDateTime = local.parse().expect("a time");
            let at = |utc: &NaiveDateTime| berlin.offset_from_utc_datetime(utc).fix();
            assert_eq!(valid(&local, possible, at), expected, "{local}");
            assert_eq!(berlin.offset_from_local_datetime(&local).map(|offset| offset.fix()), expected);
        }
    }

    #[test]
    fn nonsense_is_told() {
        for schedule in ["", "x", "61 * * * *", "* * * *", "* * * * * *", "@reboot", "* * * * fun"] {
            let error = after(schedule, "UTC", "2026-11-23T00:00:00Z").expect_err(schedule);
            assert!(error.starts_with(&format!("--schedule {schedule:?} is passed over: ")), "{error}");
        }
        for (schedule, told) in [
            ("@reboot", "nobody knows when the machine starts again"),
            ("CRON_TZ=Europe/Berlin 0 3 * * *", "name the time zone with --timezone"),
            ("0 3 * *", "it has 4 fields; write five fields"),
        ] {
            let error = after(schedule, "UTC", "2026-11-23T00:00:00Z").expect_err(schedule);
            assert!(error.contains(told), "{error}");
        }
        let never = after("0 0 30 2 *", "UTC", "2026-11-23T00:00:00Z").expect_err("no such day");
        assert!(never.contains("no such time comes"), "{never}");
        let zone = after("@daily", "Mars/Base", "2026-11-23T00:00:00Z").expect_err("no such zone");
        assert!(zone.starts_with("--timezone \"Mars/Base\" is passed over"), "{zone}");
    }

    #[test]
    fn a_run_that_starts_a_little_early_is_that_of_the_coming_minute() {
        let timetable = Timetable {
            schedule: Some("0 3 * * *".to_owned()),
            timezone: Some("UTC".to_owned()),
            ..Timetable::default()
        };
        let start = time("2026-11-23T02:59:59.9Z");
        let next = next_run(&timetable, start, start).ok().flatten();
        assert_eq!(next, Some(time("2026-11-24T03:00:00Z")));
    }

    #[test]
    fn without_a_schedule_the_interval_counts_from_the_start() {
        let timetable = Timetable { every: Some(std::time::Duration::from_hours(1)), ..Timetable::default() };
        let start = time("2026-11-23T03:00:00Z");
        let next = |now| next_run(&timetable, start, time(now)).ok().flatten();
        assert_eq!(next("2026-11-23T03:10:00Z"), Some(time("2026-11-23T04:00:00Z")));
        assert_eq!(next("2026-11-23T05:10:00Z"), Some(time("2026-11-23T06:00:00Z")));
        assert_eq!(next("2026-11-23T02:00:00Z"), Some(time("2026-11-23T04:00:00Z")));
        assert_eq!(next_run(&Timetable::default(), start, start).ok(), Some(None));
    }
}
