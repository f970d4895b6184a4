//! Dates, times and intervals in the ISO style. A zone never comes with a `timestamptz`: it is a moment, printed in
//! UTC. Source: `EncodeDateTime`, `EncodeTimezone`, `EncodeInterval` in PostgreSQL's
//! `src/backend/utils/adt/datetime.c`; ranges from `src/include/datatype/timestamp.h`.

use super::scalar::whole;
use super::{Out, take};

pub(super) fn date(bytes: &[u8], out: &mut Out) -> Option<()> {
    match i32::from_be_bytes(whole(bytes)?) {
        i32::MIN => out.push("-infinity"),
        i32::MAX => out.push("infinity"),
        days if (FIRST_DAY..END_DAY).contains(&days) => {
            let era = calendar(i64::from(days), out)?;
            out.push(era);
        }
        _ => return None,
    }
    Some(())
}

pub(super) fn time(bytes: &[u8], out: &mut Out) -> Option<()> {
    let micros = i64::from_be_bytes(whole(bytes)?);
    // 24:00:00 is a time.
    (0..=DAY).contains(&micros).then_some(())?;
    clock(micros.unsigned_abs(), out)
}

pub(super) fn timetz(mut rest: &[u8], out: &mut Out) -> Option<()> {
    let micros: [u8; 8] = take(&mut rest)?;
    time(&micros, out)?;
    // Seconds west of Greenwich.
    let zone = i32::from_be_bytes(whole(rest)?);
    let seconds = zone.unsigned_abs();
    (seconds < ZONE_SECONDS).then_some(())?;
    let sign = if zone > 0 { '-' } else { '+' };
    out.print(format_args!("{sign}{:02}", seconds / 3600))?;
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    if minutes != 0 || seconds != 0 {
        out.print(format_args!(":{minutes:02}"))?;
    }
    if seconds != 0 {
        out.print(format_args!(":{seconds:02}"))?;
    }
    Some(())
}

pub(super) fn timestamp(bytes: &[u8], zone: &str, out: &mut Out) -> Option<()> {
    match i64::from_be_bytes(whole(bytes)?) {
        i64::MIN => out.push("-infinity"),
        i64::MAX => out.push("infinity"),
        micros => {
            let days = micros.div_euclid(DAY);
            (i64::from(FIRST_DAY)..i64::from(END_TIMESTAMP_DAY))
                .contains(&days)
                .then_some(())?;
            let era = calendar(days, out)?;
            out.push(" ");
            clock(micros.rem_euclid(DAY).unsigned_abs(), out)?;
            out.push(zone);
            out.push(era);
        }
    }
    Some(())
}

/// Microseconds, days and months are counted apart and have signs of their own.
pub(super) fn interval(mut rest: &[u8], out: &mut Out) -> Option<()> {
    let micros = i64::from_be_bytes(take(&mut rest)?);
    let days = i32::from_be_bytes(take(&mut rest)?);
    let months = i32::from_be_bytes(whole(rest)?);
    // Since version 17; before, these were the longest intervals.
    match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => {
            out.push("infinity");
            return Some(());
        }
        (i64::MIN, i32::MIN, i32::MIN) => {
            out.push("-infinity");
            return Some(());
        }
        _ => {}
    }
    let mut separator = "";
    let mut after_negative = false;
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count == 0 {
            continue;
        }
        let plus = if after_negative && count > 0 { "+" } else { "" };
        let plural = if count == 1 { "" } else { "s" };
        out.print(format_args!("{separator}{plus}{count} {unit}{plural}"))?;
        after_negative = count < 0;
        separator = " ";
    }
    if micros != 0 || separator.is_empty() {
        let sign = match (micros < 0, after_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        out.print(format_args!("{separator}{sign}"))?;
        clock(micros.unsigned_abs(), out)?;
    }
    Some(())
}

/// Prints year, month and day, and gives what stands at the very end: the era. The calendar is Gregorian for all
/// time; the year before 1 is 1 BC.
fn calendar(days_since_2000: i64, out: &mut Out) -> Option<&'static str> {
    // Years that begin in March, in cycles of 400 of them: leap days are at the end of all of these.
    let days = days_since_2000 + DAYS_TO_2000;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year + cycle * 400 + i64::from(month <= 2);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    out.print(format_args!("{year:04}-{month:02}-{day:02}"))?;
    Some(era)
}

/// Hours, minutes, seconds, and as many decimals as are needed.
fn clock(micros: u64, out: &mut Out) -> Option<()> {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    out.print(format_args!("{hours:02}:{minutes:02}:{seconds:02}"))?;
    if micros != 0 {
        let decimals = format!("{micros:06}");
        out.print(format_args!(".{}", decimals.trim_end_matches('0')))?;
    }
    Some(())
}

/// Microseconds.
const DAY: i64 = 86_400_000_000;
/// Days of 400 years.
const CYCLE: i64 = 146_097;
/// From 1 March of the year 0 to 1 January 2000.
const DAYS_TO_2000: i64 = 730_425;
/// 24 November 4714 BC (`DATETIME_MIN_JULIAN`), counted from 2000.
const FIRST_DAY: i32 = -2_451_545;
/// Behind 31 December 5874897 (`DATE_END_JULIAN`).
const END_DAY: i32 = 2_147_483_494 - 2_451_545;
/// Behind 31 December 294276 (`TIMESTAMP_END_JULIAN`).
const END_TIMESTAMP_DAY: i32 = 109_203_528 - 2_451_545;
/// A zone is less than 16 hours off (`MAX_TZDISP_HOUR`).
const ZONE_SECONDS: u32 = 16 * 3600;
