//! Dates and times, in the ISO forms alone: year first, with four digits or more, which no `DateStyle` reads otherwise.
//! Source: `DecodeDateTime` and `DecodeTimezone` in `datetime.c`. Forms are counted from 2000 as the server counts.

use super::trimmed;

/// Days from 2000.
pub(super) fn date(text: &str) -> Option<String> {
    let text = trimmed(text);
    Some(match infinite(text) {
        Some(infinite) => infinite,
        // A time behind it is dropped, and so is a zone.
        None => read(text)?.days.to_string(),
    })
}

/// Microseconds of the day.
pub(super) fn time(text: &str) -> Option<String> {
    let (micros, rest) = clock(trimmed(text))?;
    rest.is_empty().then(|| micros.to_string())
}

/// Microseconds from 2000, in whichever zone. One that is written is not looked at.
pub(super) fn timestamp(text: &str) -> Option<String> {
    let text = trimmed(text);
    infinite(text).or_else(|| Some(read(text)?.micros().to_string()))
}

/// Microseconds from 2000 in UTC. Without a zone it would be that of the session.
pub(super) fn timestamptz(text: &str) -> Option<String> {
    let text = trimmed(text);
    if let Some(infinite) = infinite(text) {
        return Some(infinite);
    }
    let moment = read(text)?;
    Some((moment.micros() - moment.east? * SECOND).to_string())
}

/// A timestamp that equals a date.
pub(super) fn date_of_midnight(text: &str) -> Option<String> {
    if let Some(infinite) = infinite(text) {
        return Some(infinite);
    }
    let moment = read(trimmed(text))?;
    (moment.time == 0).then(|| moment.days.to_string())
}

/// A date as a timestamp.
pub(super) fn midnight(text: &str) -> Option<String> {
    let text = trimmed(text);
    infinite(text).or_else(|| Some((read(text)?.days * DAY).to_string()))
}

struct Moment {
    days: i64,
    /// Microseconds of the day.
    time: i64,
    /// Seconds east of Greenwich, if a zone is given.
    east: Option<i64>,
}

impl Moment {
    fn micros(&self) -> i64 {
        self.days * DAY + self.time
    }
}

fn infinite(text: &str) -> Option<String> {
    ["infinity", "-infinity"]
        .into_iter()
        .find(|name| text.eq_ignore_ascii_case(name))
        .map(str::to_owned)
}

/// `2024-02-29`, `20240229`, then perhaps a time and a zone, then perhaps the era.
fn read(text: &str) -> Option<Moment> {
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text.strip_suffix(" AD").unwrap_or(text), false),
    };
    let (first, rest) = number(text, 4..=8)?;
    let (year, month, day, rest) = match rest.strip_prefix('-') {
        Some(rest) => {
            let (month, rest) = number(rest, 1..=2)?;
            let (day, rest) = number(rest.strip_prefix('-')?, 1..=2)?;
            (first, month, day, rest)
        }
        // Eight digits are all three.
        None if text.len() - rest.len() == 8 => (first / 10_000, first / 100 % 100, first % 100, rest),
        None => return None,
    };
    behind(days(era(year, before_christ)?, month, day)?, rest)
}

/// What stands behind the date.
fn behind(days: i64, rest: &str) -> Option<Moment> {
    let date = Moment {
        days,
        time: 0,
        east: None,
    };
    if rest.is_empty() {
        return Some(date);
    }
    let (time, rest) = clock(rest.strip_prefix([' ', 'T', 't'])?.trim_start_matches(' '))?;
    let rest = rest.trim_start_matches(' ');
    let east = if rest.is_empty() { None } else { Some(zone(rest)?) };
    Some(Moment { time, east, ..date })
}

/// Year 0 is 1 BC.
fn era(year: i64, before_christ: bool) -> Option<i64> {
    (year > 0).then_some(if before_christ { 1 - year } else { year })
}

/// `14:30`, `14:30:05`, `14:30:05.123456`; what stands behind it.
fn clock(text: &str) -> Option<(i64, &str)> {
    let (hour, rest) = number(text, 1..=2)?;
    let (minute, mut rest) = number(rest.strip_prefix(':')?, 2..=2)?;
    let (mut second, mut micros) = (0, 0);
    if let Some(more) = rest.strip_prefix(':') {
        (second, rest) = number(more, 2..=2)?;
        if let Some(more) = rest.strip_prefix('.') {
            // More digits than six are rounded, which may carry into the date.
            let (decimals, behind) = number(more, 1..=6)?;
            let digits = u32::try_from(more.len() - behind.len()).ok()?;
            micros = decimals * 10_i64.pow(6_u32.checked_sub(digits)?);
            rest = behind;
        }
    }
    let time = ((hour * 60 + minute) * 60 + second) * SECOND + micros;
    (minute < 60 && second < 60 && time <= DAY).then_some((time, rest))
}

/// Seconds east of Greenwich: `Z`, `UTC`, `+02`, `+0230`, `+02:30`, `+02:30:15`. Names of zones need tables.
fn zone(text: &str) -> Option<i64> {
    if ["z", "utc", "gmt"]
        .iter()
        .any(|name| text.eq_ignore_ascii_case(name))
    {
        return Some(0);
    }
    let (sign, text) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (first, rest) = number(text, 2..=4)?;
    let (hours, minutes, seconds, rest) = match (text.len() - rest.len(), rest.strip_prefix(':')) {
        (2, None) => (first, 0, 0, rest),
        (2, Some(more)) => {
            let (minutes, rest) = number(more, 2..=2)?;
            match rest.strip_prefix(':') {
                Some(more) => {
                    let (seconds, rest) = number(more, 2..=2)?;
                    (first, minutes, seconds, rest)
                }
                None => (first, minutes, 0, rest),
            }
        }
        (4, None) => (first / 100, first % 100, 0, rest),
        _ => return None,
    };
    let is_zone = rest.is_empty() && hours < 16 && minutes < 60 && seconds < 60;
    is_zone.then_some(sign * ((hours * 60 + minutes) * 60 + seconds))
}

/// Days from 2000 of a date that there is. Source of the counting: the same as in `date2j`, years that begin in March.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (year, from_march) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    Some(cycle * CYCLE + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + day_of_year - DAYS_TO_2000)
}

/// All digits at the front, if there are so many.
fn number(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<(i64, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(end)?;
    digits
        .contains(&end)
        .then(|| Some((number.parse().ok()?, rest)))?
}

/// Microseconds.
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Days of 400 years.
const CYCLE: i64 = 146_097;
/// From 1 March of the year 0 to 1 January 2000.
const DAYS_TO_2000: i64 = 730_425;
