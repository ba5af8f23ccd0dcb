//! When the next run is due.

use std::str::FromStr as _;

use chrono::{DateTime, Local, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, errors::CronError};

use crate::config::Timetable;

/// A run that starts a little early, because the clock was set back by that much, is the run of the coming minute.
const EARLY_MAX: TimeDelta = TimeDelta::seconds(30);

/// Why nobody can tell when the next run is due.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The schedule is none.
    #[error(
        "--schedule {0:?} is passed over: {1}; write five fields as in a crontab, such as '17 3 * * mon-fri', or @daily"
    )]
    Cron(String, CronError),
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
        let cron = parse(schedule)?;
        let after = now.max(start + EARLY_MAX);
        let next = match &timetable.timezone {
            None => next_in(&cron, after.with_timezone(&Local)),
            Some(name) => {
                let zone = Tz::from_str(name).map_err(|_| ScheduleError::Timezone(name.clone()))?;
                next_in(&cron, after.with_timezone(&zone))
            }
        };
        return next.map(Some).map_err(|_| ScheduleError::Never(schedule.clone()));
    }
    let every = timetable.every.and_then(|every| TimeDelta::from_std(every).ok());
    Ok(every.and_then(|every| start.checked_add_signed(every)).map(|next| next.max(now)))
}

fn parse(schedule: &str) -> Result<Cron, ScheduleError> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(schedule.trim()).map_err(|error| ScheduleError::Cron(schedule.to_owned(), error))
}

fn next_in<Z: chrono::TimeZone>(cron: &Cron, after: DateTime<Z>) -> Result<DateTime<Utc>, CronError>
where
    DateTime<Z>: croner::CronDateTime,
{
    cron.find_next_occurrence(&after, false).map(|next| next.to_utc())
}
