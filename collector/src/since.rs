//! Times and spans as people write them: `2026-11-21T00:00:00Z`, or `90s`, `15m`, `24h`, `7d`.

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use crate::store::question::Span;

/// The flags of a question about some time.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct When {
    /// From then on: RFC 3339, or a span before now like 24h or 30d.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Up to then.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

impl When {
    /// As they are meant at this moment.
    ///
    /// # Errors
    ///
    /// If one is no time.
    pub(crate) fn span(&self, now: Timestamp) -> anyhow::Result<Span> {
        let time = |text: &Option<String>| text.as_deref().map(|text| since(text, now)).transpose();
        Ok(Span {
            since_ns: time(&self.since)?,
            until_ns: time(&self.until)?,
        })
    }
}

/// A time in Unix nanoseconds: RFC 3339, or a span before `now`.
///
/// # Errors
///
/// If it is neither.
pub fn since(text: &str, now: Timestamp) -> anyhow::Result<i64> {
    let wrong = "since must be RFC 3339 or like 90s, 15m, 24h, 7d";
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at.as_nanosecond(),
        Err(_) => now.as_nanosecond() - i128::from(span(text).ok().context(wrong)?) * 1_000_000_000,
    };
    i64::try_from(at).ok().context(wrong)
}

/// A span in seconds.
///
/// # Errors
///
/// If it is not a number of seconds, minutes, hours or days.
pub fn span(text: &str) -> anyhow::Result<i64> {
    let wrong = || format!("{text:?} is no span of time like 90s, 15m, 24h, 7d");
    let unit = text.chars().last().with_context(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => bail!(wrong()),
    };
    let count: u32 = text
        .strip_suffix(unit)
        .and_then(|number| number.parse().ok())
        .with_context(wrong)?;
    Ok(i64::from(count) * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_span() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ns = |text| since(text, now).ok();
        assert_eq!(ns("15m"), Some((1_000_000 - 900) * 1_000_000_000));
        assert_eq!(ns("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        for wrong in ["", "m", "15", "-5m", "15w", "9999999999d", "é", "2026-11-21"] {
            assert_eq!(ns(wrong), None, "{wrong}");
        }
        assert_eq!(span("30d").unwrap(), 2_592_000);
    }
}
