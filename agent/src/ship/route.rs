//! Which of several collectors is tried when.
//!
//! Owns the rule, and nothing that waits or connects. The list is in order of preference. Whoever cannot be used is tried again behind a
//! pause that grows, and the others meanwhile. One that was left is gone back to when it answers again, behind a pause of its own that
//! grows each time that it does not last: so an agent does not swing between two of them.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses between attempts while nobody is connected.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// How long a collector that could not be used is left alone while another one is connected.
const REST_FIRST: Duration = Duration::from_secs(10);
const REST_LAST: Duration = Duration::from_secs(600);

/// A stream that was shorter counts as a failed attempt.
const SHORT: Duration = Duration::from_secs(1);

/// A stream that was longer shows that its collector can be relied on.
const LASTING: Duration = Duration::from_secs(60);

/// How the collectors stand.
#[derive(Debug)]
pub(super) struct Route(Vec<Standing>);

#[derive(Clone, Copy, Debug)]
struct Standing {
    /// The next pause.
    pause: Duration,
    /// It is not tried before.
    not_before: Instant,
    /// The rest behind the next failure.
    rest: Duration,
    /// It rests until then: others are preferred, and are not left for it.
    rests_until: Instant,
}

/// A collector that is preferred to the one in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preferred {
    /// Its place in the list.
    pub(super) nth: usize,
    /// It is asked then whether it is there,
    pub(super) at: Instant,
    /// and again behind this.
    pub(super) every: Duration,
}

impl Route {
    /// So many collectors, of which nothing is known.
    pub(super) fn new(collectors: usize, now: Instant) -> Self {
        let standing = Standing {
            pause: RETRY_FIRST,
            not_before: now,
            rest: REST_FIRST,
            rests_until: now,
        };
        Self(vec![standing; collectors])
    }

    /// The collector to be tried now; or when there is one.
    pub(super) fn next(&self, now: Instant) -> Result<usize, Instant> {
        let due = self.0.iter().enumerate();
        let due = due.filter(|(_, standing)| standing.not_before <= now);
        let best = due.min_by_key(|(nth, standing)| (standing.rests_until > now, *nth));
        let earliest = self.0.iter().map(|standing| standing.not_before).min();
        best.map(|(nth, _)| nth).ok_or(earliest.unwrap_or(now))
    }

    /// Those that are preferred to this one.
    pub(super) fn preferred(&self, to: usize) -> Vec<Preferred> {
        let before = self.0.iter().enumerate().take(to);
        before
            .map(|(nth, standing)| Preferred {
                nth,
                at: standing.rests_until,
                every: standing.rest,
            })
            .collect()
    }

    /// It could not be used.
    pub(super) fn failed(&mut self, nth: usize, now: Instant) {
        let Some(standing) = self.0.get_mut(nth) else {
            return;
        };
        standing.not_before = now + standing.pause;
        standing.pause = (standing.pause * 2).min(RETRY_LAST);
        standing.rests_until = now + standing.rest;
    }

    /// Its stream ended, behind so long a time. It is tried again at once, because it may have been started anew, unless it just had
    /// begun.
    pub(super) fn ended(&mut self, nth: usize, lasted: Duration, now: Instant) {
        let Some(standing) = self.0.get_mut(nth) else {
            return;
        };
        standing.rest = match lasted >= LASTING {
            true => REST_FIRST,
            false => (standing.rest * 2).min(REST_LAST),
        };
        if lasted < SHORT {
            return self.failed(nth, now);
        }
        standing.pause = RETRY_FIRST;
        standing.not_before = now;
        standing.rests_until = now;
    }

    /// It answers, and the one in use is left for it.
    pub(super) fn answers(&mut self, nth: usize, now: Instant) {
        let Some(standing) = self.0.get_mut(nth) else {
            return;
        };
        standing.pause = RETRY_FIRST;
        standing.not_before = now;
        standing.rests_until = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_alone_is_tried_ever_more_rarely() {
        let mut now = Instant::now();
        let mut route = Route::new(1, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(route.next(now), Ok(0));
            route.failed(0, now);
            let next = route.next(now).expect_err("a pause");
            pauses.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        route.ended(0, SECOND, now);
        assert_eq!(route.next(now), Ok(0), "at once");
        // One that takes the greeting and nothing more is no better than one that is away.
        route.ended(0, SECOND / 2, now);
        assert_eq!(route.next(now), Err(now + RETRY_FIRST));
    }

    #[test]
    fn the_others_are_tried_meanwhile_and_the_first_is_gone_back_to() {
        let now = Instant::now();
        let mut route = Route::new(3, now);
        route.failed(0, now);
        assert_eq!(route.next(now), Ok(1), "without a pause");
        route.failed(1, now);
        assert_eq!(route.next(now), Ok(2));
        let preferred = route.preferred(2);
        assert_eq!(preferred.len(), 2);
        assert_eq!(
            preferred.first(),
            Some(&Preferred {
                nth: 0,
                at: now + REST_FIRST,
                every: REST_FIRST
            })
        );
        // The one in use breaks: it is the first choice as long as the others rest.
        let later = now + 5 * SECOND;
        route.ended(2, 5 * SECOND, later);
        assert_eq!(route.next(later), Ok(2));
        route.failed(2, later);
        assert_eq!(route.next(later), Ok(0), "better than nobody");
        let later = now + REST_FIRST;
        route.answers(0, later);
        assert_eq!(route.next(later), Ok(0));
        assert!(route.preferred(0).is_empty());
    }

    #[test]
    fn one_that_does_not_last_is_left_alone_for_ever_longer() {
        let mut now = Instant::now();
        let mut route = Route::new(2, now);
        let mut rests = Vec::new();
        for _ in 0..8 {
            route.answers(0, now);
            now += 20 * SECOND;
            route.ended(0, 20 * SECOND, now);
            assert_eq!(route.next(now), Ok(0), "it may have been started anew");
            route.failed(0, now);
            assert_eq!(route.next(now), Ok(1));
            let back = route.preferred(1).first().expect("the first").at;
            rests.push((back - now).as_secs());
            now = back;
        }
        assert_eq!(rests, [20, 40, 80, 160, 320, 600, 600, 600]);
        route.answers(0, now);
        now += LASTING;
        route.ended(0, LASTING, now);
        route.failed(0, now);
        assert_eq!(
            route.preferred(1).first().expect("the first").at,
            now + REST_FIRST
        );
    }
}
